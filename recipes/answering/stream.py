"""Paths that come in as frames to be asked about, and answers that go out, one a line."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from data_prep.errors import InputError, one_line
from data_prep.files import PROJECT_ROOT
from data_prep.media.images import read_image

if TYPE_CHECKING:
    from PIL import Image

    from recipes.adapter.safety_record import SafetyRecord


class Answering(Protocol):
    """What answers: a model that is loaded here, or one that a server has."""

    @property
    def record(self) -> "SafetyRecord":
        """How it is to be asked."""

    def p_unsafe(self, images: "Sequence[Image.Image]") -> list[float]:
        """Return P(UNSAFE) of each RGB image."""


def paths_from(lines: Iterable[bytes]) -> Iterator[str]:
    """Return the paths that come in, one a line, as they come; empty lines are passed over.

    A file system takes any bytes for a name: those that aren't UTF-8 become what os.fsdecode makes of them.
    """
    return (os.fsdecode(line.rstrip(b"\r\n")) for line in lines if line.strip())


def file_of(path: str) -> Path:
    """Return where a frame lies. Names are taken as they are: whoever expands a `~` has done so already."""
    return PROJECT_ROOT / path


def printable(path: str) -> str:
    """Return a path with what isn't UTF-8 in it escaped, so that it can be printed and put into JSON."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def answer_all(
    paths: Iterable[str], adapted: Answering, results: IO[str], *, prior: float | None, as_json: bool
) -> tuple[int, int]:
    """Answer each frame into `results` at once; return how many were answered, and how many couldn't be read.

    A line is the label, or all there is to say `as_json`; what couldn't be read is said on stderr, or as JSON, too.
    """
    answered = failed = 0
    for path in paths:
        try:
            found = answer(path, adapted, prior)
        except InputError as error:
            failed += 1
            if as_json:
                said = {"image": printable(path), "error": one_line(error)}
                print(json.dumps(said, ensure_ascii=False), file=results, flush=True)
            else:
                print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
            continue
        answered += 1
        line = json.dumps(found, ensure_ascii=False, allow_nan=False) if as_json else found["label"]
        print(line, file=results, flush=True)
    return answered, failed


def answer(path: str, adapted: Answering, prior: float | None) -> dict[str, Any]:
    """Return what there is to say of one frame; latency is from the file to the label, in milliseconds."""
    record = adapted.record
    began = time.perf_counter()
    (scored,) = adapted.p_unsafe([read_image(file_of(path), printable(path))])
    p_unsafe = float(record.at_prior(scored, prior))
    label = record.label_of(p_unsafe, prior)
    latency = 1000 * (time.perf_counter() - began)
    return {
        "image": printable(path),
        "label": label,
        "p_unsafe": p_unsafe,
        "threshold": record.threshold_at(prior),
        "latency_ms": round(latency, 1),
    }
