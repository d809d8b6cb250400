"""The validation split: which clips of train become it."""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from data_prep.labels import TEST, TRAIN, VALIDATION
from data_prep.rows.frames import Frame, read_frames

VALIDATION_FRACTION = 0.1  # of train's clips


def _classes_by_content(frames: Sequence[Frame]) -> dict[str, Counter[str]]:
    """Count, for each distinct clip content, its clips by source class; ordered by content, not by name."""
    classes: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for frame in frames:
        classes[frame.clip_sha256][frame.clip] = frame.source_class
    return {content: Counter(classes[content].values()) for content in sorted(classes)}


def cut_validation(frames: Sequence[Frame], *, seed: int = 0) -> set[str]:
    """Choose the clips of train that become validation: a tenth of each source class, at least one, drawn by `seed`.

    Clips with the same content go together, and every class keeps a clip in train, so a class whose clips all share
    one content stays out of validation. The choice depends on contents, classes and the seed, not on the rows' order.
    """
    by_content = _classes_by_content(frames)
    total = sum(by_content.values(), Counter[str]())
    goal = {name: min(max(1, round(VALIDATION_FRACTION * count)), count - 1) for name, count in total.items()}
    order = list(by_content)
    random.Random(seed).shuffle(order)
    chosen: set[str] = set()
    taken = Counter[str]()

    def fits(content: str, limit: dict[str, int]) -> bool:
        return content not in chosen and all(taken[c] + n <= limit[c] for c, n in by_content[content].items())

    def take(content: str) -> None:
        chosen.add(content)
        taken.update(by_content[content])

    # First each class is made present, the rarest first, even where that exceeds a goal; then the rest is filled up.
    most = {name: count - 1 for name, count in total.items()}
    for name in sorted(total, key=lambda name: (total[name], name)):
        candidates = [content for content in order if name in by_content[content] and fits(content, most)]
        if not taken[name] and candidates:
            take(min(candidates, key=lambda content: by_content[content].total()))
    for content in order:
        if fits(content, goal):
            take(content)
    return {frame.clip for frame in frames if frame.clip_sha256 in chosen}


def warn_of_missing_classes(splits: dict[str, list[Frame]]) -> None:
    """Name on stderr each source class of train that validation lacks."""
    train, validation = splits[TRAIN], splits.get(VALIDATION, [])
    missing = sorted({frame.source_class for frame in train} - {frame.source_class for frame in validation})
    for name in missing:
        print(
            f"warning: {name} stays in train whole and is not in validation: "
            "it has no two clips of different content that can part",
            file=sys.stderr,
        )
    if not validation:
        print("warning: there is no validation split: no class has a clip to spare; add clips", file=sys.stderr)


def split_frames(folder: Path, *, seed: int = 0) -> dict[str, list[Frame]]:
    """Read a data folder's frames as train, validation and test, in the order of its JSONL files.

    `validation` is left out where no class has a clip to spare. Raises InputError as `read_frames` does.
    """
    train = read_frames(folder, TRAIN)
    test = read_frames(folder, TEST)
    held_out = cut_validation(train, seed=seed)
    kept = [frame for frame in train if frame.clip not in held_out]
    validation = [frame for frame in train if frame.clip in held_out]
    splits = {TRAIN: kept, VALIDATION: validation, TEST: test}
    return {split: frames for split, frames in splits.items() if frames}
