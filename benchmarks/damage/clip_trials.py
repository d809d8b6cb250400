"""One clip tried: made by its number, read by a process of its own, and judged."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.damage.damaged_clips import (
    CODECS,
    DamagedClip,
    clip_with_damaged_header,
    clip_with_damaged_packets,
    packets_to_damage,
)
from benchmarks.damage.watched_process import Fault, WatchedProcess
from benchmarks.damage.watched_video import EVERY_FRAME, SAMPLED, Answer, answer_of, expected_samples, video_process

ENCODER_SECONDS, ENCODER_TRIES = 60, 30
# What can't be known without a reference: bits that decode to another picture, what nothing comes after that leans on
# it or counts on from it, slices of HEVC where pictures aren't known to be cut alike, AV1's picture shown once more.
MAY_PASS = {"bit flipped", "zeros", "random bytes", "last lost, hole", "group's end lost, closed up"}
MAY_PASS_OF = {("HEVC", "slice lost"), ("AV1", "twice, the rest later")}


def may_pass(codec: str, kind: str) -> bool:
    """Say whether a kind of damage may alter samples unnoticed; where it is, the better."""
    return kind in MAY_PASS or (codec, kind) in MAY_PASS_OF


@dataclass(frozen=True)
class Outcome:
    """What became of one clip: how it ended, its `failure`, if it is one, in a few words, and whether it is altered."""

    phase: str
    number: int
    codec: str
    kind: str
    recipe: str
    ending: str
    failure: str | None
    altered: bool = False
    said: str | None = None
    trace: str | None = None


class Trials:
    """Tries clips one after the other, in a folder of its own; a context manager, for one thread."""

    def __init__(self, seed: int, folder: Path, *, keep: bool = False) -> None:
        self._seed, self._folder, self._keep = seed, folder, keep
        self._video, self._encoder = video_process(), WatchedProcess("sound_recipes.py", seconds=ENCODER_SECONDS)
        self._expected: dict[tuple[str, str], dict[int, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._video.close()
        self._encoder.close()

    def attempt(self, phase: str, number: int) -> Outcome:
        """Return the outcome of a phase's clip."""
        path = self._folder / f"{phase}_{number}.mp4"
        outcome = {"headers": self._header, "packets": self._packet, "sound": self._sound}[phase](path, number)
        if not self._keep:
            path.unlink(missing_ok=True)
        return outcome

    def _header(self, path: Path, number: int) -> Outcome:
        clip = clip_with_damaged_header(self._seed, number)
        answer = self._answer(path, clip.content)
        return _outcome("headers", number, clip, answer, answer.kind_of_fault)

    def _packet(self, path: Path, number: int) -> Outcome:
        clip = clip_with_damaged_packets(self._seed, number)
        expected = self._samples_of(path, clip)
        answer = self._answer(path, clip.content)
        altered = answer.samples.get(SAMPLED) != expected
        silent = altered and not answer.said and not may_pass(CODECS[clip.codec], clip.damage)
        failure = answer.kind_of_fault or ("other samples, and nothing said" if silent else None)
        return _outcome("packets", number, clip, answer, failure, altered=altered)

    def _sound(self, path: Path, number: int) -> Outcome:
        recipe = self._encoded(path, number)
        answer = answer_of(self._video, path, SAMPLED, EVERY_FRAME)
        altered = answer.samples.get(SAMPLED) != expected_samples(answer.samples.get(EVERY_FRAME, {}))
        said = f"false alarm: {answer.said}" if answer.said else None
        failure = answer.kind_of_fault or said or ("samples are no full decode's" if altered else None)
        clip = DamagedClip(b"", recipe.partition(" ")[0], recipe, "sound")
        return _outcome("sound", number, clip, answer, failure, altered=altered)

    def _answer(self, path: Path, content: bytes, rate: str = SAMPLED) -> Answer:
        path.write_bytes(content)
        return answer_of(self._video, path, rate)

    def _samples_of(self, path: Path, clip: DamagedClip) -> dict[int, str]:
        """Return the samples of the clip before it was damaged, of a full decode."""
        base = clip.codec, clip.recipe
        if base not in self._expected:
            answer = self._answer(path, packets_to_damage(*base).written(), EVERY_FRAME)
            self._expected[base] = expected_samples(answer.samples.get(EVERY_FRAME, {}))
        return self._expected[base]

    def _encoded(self, path: Path, number: int) -> str:
        """Write a sound clip and return its recipe; what an encoder refuses, crashes at or botches is drawn anew."""
        for tried in range(ENCODER_TRIES):
            try:
                answer = self._encoder.ask({"seed": self._seed, "number": number, "try": tried, "path": str(path)})
            except Fault:
                continue
            if answer["refused"] is None:
                return str(answer["recipe"])
        raise RuntimeError(f"sound:{number} can't be encoded in {ENCODER_TRIES} tries")


def _outcome(
    phase: str, number: int, clip: DamagedClip, answer: Answer, failure: str | None, *, altered: bool = False
) -> Outcome:
    codec, recipe = CODECS.get(clip.codec, clip.codec), clip.recipe
    return Outcome(
        phase, number, codec, clip.damage, recipe, answer.ending, failure, altered, answer.said, answer.fault
    )
