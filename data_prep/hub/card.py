"""The card of a pushed data set, its README.md: what it holds, where it comes from, licence and privacy."""

from data_prep.hub.layout import CONFIG, parquet_name
from data_prep.labels import SAFE, UNSAFE
from data_prep.rows.content import SplitCounts

_TITLE = "CCTV frames, SAFE or UNSAFE"
_HASH = "Content hash: `"
_CARD = """\
---
pretty_name: {title}
{configs}---

# {title}

One row is one frame of a clip from a fixed camera in a workplace, with the question put to a vision-language model and
its one-word answer. Validation is cut from train by clip: clips of the same content never part.

| split | frames | clips | SAFE | UNSAFE |
|---|---:|---:|---:|---:|
{rows}

Columns: `image` (the file's bytes, embedded), `prompt`, `response`, `clip`, `sample` (number k is the first frame shown
from k to k + 1 over fps seconds of the clip; one in which none is shown is missing), `source_class` (the behaviour's
folder in the published data set, or its line in a classes file), `camera` (null where it isn't known).

{hash}{content}`

## Source, licence and privacy

Frames of the published clips come from "Video Dataset for Safe and Unsafe Behaviours" by Önal and Dandıl, Mendeley
Data, doi [10.17632/xjmtb22pff.1](https://doi.org/10.17632/xjmtb22pff.1), licensed
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). Changes made: frames were sampled from the clips and saved
as images, and the eight behaviours were collapsed to SAFE and UNSAFE.
**Workers are identifiable in them: keep this data set private.**

Frames of clips that this project's `make_demo_clips.py` drew show nobody and come from no camera.
"""


def dataset_card(content: str, counts: dict[str, SplitCounts], *, with_files: bool) -> str:
    """Return the data set's README.md: what it holds, where it comes from, licence and privacy.

    `with_files` says in its head which Parquet file is which split; the library's own push writes that by itself.
    """
    files = "".join(f"  - split: {split}\n    path: {parquet_name(split)}\n" for split in counts)
    configs = f"configs:\n- config_name: {CONFIG}\n  data_files:\n{files}" if with_files else ""
    rows = [
        f"| {split} | {c.frames} | {c.clips} | {c.labels[SAFE]} | {c.labels[UNSAFE]} |" for split, c in counts.items()
    ]
    return _CARD.format(title=_TITLE, hash=_HASH, configs=configs, rows="\n".join(rows), content=content)


def is_own_card(card: str) -> bool:
    """Say whether a data set's README.md is dataset_card's, whatever a push made of its head."""
    return f"\n# {_TITLE}\n" in card and f"\n{_HASH}" in card
