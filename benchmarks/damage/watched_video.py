"""What `Video` makes of clips, asked of a process of its own, which may hang or crash."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.damage.watched_process import Fault, WatchedProcess
from data_prep.files import PROJECT_ROOT

SAMPLED, EVERY_FRAME = "1", "1000"  # a second; of the latter so many that each frame of any clip is a sample
SECONDS, MEMORY_GIB = 20, 3


@dataclass(frozen=True)
class Answer:
    """What became of a clip: samples by rate, number to hash of the pixels; what was said; or how it failed."""

    samples: dict[str, dict[int, str]] = field(default_factory=dict)
    reason: str | None = None
    refused: str | None = None
    fault: str | None = None

    @property
    def said(self) -> str | None:
        """What a user is told of damage."""
        return self.refused or self.reason

    @property
    def ending(self) -> str:
        """How it came out, in a word or some."""
        if self.fault is not None:
            return "fault"
        if self.refused is not None:
            return "refused"
        return "samples" if self.reason is None else "samples and a reason"

    @property
    def kind_of_fault(self) -> str | None:
        """The fault's last line and where it happened, so that alike ones can be counted."""
        if self.fault is None:
            return None
        *before, last = self.fault.strip().splitlines()
        places = [line.strip() for line in before if "File " in line]
        where = places[-1].rpartition("/")[2].replace('", line ', ":").replace(", in ", " ") if places else ""
        return f"{last[:100]} {where}".strip()


def video_process(root: Path = PROJECT_ROOT) -> WatchedProcess:
    """Return a process that `answer_of` can ask, by the version of the project in `root`."""
    return WatchedProcess("video_answers.py", "--memory-gib", str(MEMORY_GIB), root=root, seconds=SECONDS)


def answer_of(process: WatchedProcess, path: Path, *rates: str) -> Answer:
    """Return what becomes of a clip at each rate."""
    try:
        found = process.ask({"path": str(path), "rates": rates})
    except Fault as fault:
        return Answer(fault=str(fault))
    samples = {rate: dict(pairs) for rate, pairs in found["samples"].items()}
    return Answer(samples, found["reason"], found["refused"], found["traceback"] or _disorder(found["samples"]))


def _disorder(samples: dict[str, list[Any]]) -> str | None:
    for rate, pairs in samples.items():
        numbers = [number for number, _ in pairs]
        if numbers != sorted(set(numbers)):
            return f"at {rate} a second samples come in the order {numbers[:20]}"
    return None


def expected_samples(every_frame: dict[int, str]) -> dict[int, str]:
    """Return the samples at one a second, chosen from those at a thousand: the first of each second."""
    per_second = int(EVERY_FRAME) // int(SAMPLED)
    first: dict[int, str] = {}
    for number in sorted(every_frame):
        first.setdefault(number // per_second, every_frame[number])
    return first
