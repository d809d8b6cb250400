"""Count what is noticed of damage to a clip's packets, by codec and kind, by this version and an earlier one.

    python benchmarks/bench_damage.py --out outputs/bench_damage --before FOLDER

It encodes small clips in which every picture leans on others, damages copies of them, and takes one frame a second by
the version of the project in each folder, in turns on the same files. A clip is altered where this version's samples
aren't those of a full decode of the sound clip: missing, of another time, or with pixels that no frame of the sound
clip has. Noticed is one of which anything is said.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.damage.clip_threads import in_threads
from benchmarks.damage.damaged_clips import CODECS, DamagedClip, by_codec_and_kind, damaged, packets_to_damage
from benchmarks.damage.packet_damage import KINDS
from benchmarks.damage.watched_video import EVERY_FRAME, SAMPLED, Answer, answer_of, expected_samples, video_process
from benchmarks.measuring.checkouts import checkouts
from benchmarks.measuring.machine import machine_with
from data_prep.console import run_script
from data_prep.files import from_root, write_json


@dataclass(frozen=True)
class Seen:
    """One damaged clip: what this version and the earlier one made of it, and every frame of the sound clip."""

    codec: str
    kind: str
    sound: dict[int, str]
    answers: dict[str, Answer]

    @property
    def altered(self) -> bool:
        """Whether samples are others, fewer or more."""
        return self._samples != expected_samples(self.sound)

    @property
    def made_up(self) -> bool:
        """Whether a sample's pixels are no frame's of the sound clip."""
        return not set(self._samples.values()) <= set(self.sound.values())

    @property
    def _samples(self) -> dict[int, str]:
        return self.answers["now"].samples.get(SAMPLED, {})


def main(argv: list[str]) -> int:
    """Damage the clips, take their samples, write bench_damage.json, print a table, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_damage", help="folder to write (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=40, help="of each codec and kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of an earlier version")
    args = parser.parse_args(argv)
    versions = checkouts(args.before, measured_by="data_prep")
    out = from_root(args.out)
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "schema_version": 1,
        "machine": machine_with("av", "pillow"),
        "before": Path(args.before).name if args.before else None,
        "seed": args.seed,
        "rows": rows(see_all(args.seed, args.clips, versions)),
    }
    write_json(out / "bench_damage.json", results)
    print(as_table(results))
    print(json.dumps(results))
    return 0


class Readers:
    """The versions of the project that take one clip after the other's samples; a context manager, for one thread."""

    def __init__(self, versions: dict[str, Path], folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._videos = {name: video_process(root) for name, root in versions.items()}
        self._sound: dict[tuple[str, str], dict[int, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for video in self._videos.values():
            video.close()

    def see(self, place: tuple[int, int, int]) -> Seen | None:
        """Return what each version makes of a clip, by the numbers of codec, kind and clip; None if there is none."""
        codec, kind = list(CODECS)[place[0]], list(KINDS)[place[1]]
        clip = damaged(codec, kind, np.random.default_rng([self._seed, *place]))
        if clip is None:
            return None
        path = self._folder / f"{'_'.join(map(str, place))}.mp4"
        sound = self._frames_of_sound_clip(clip, path)
        path.write_bytes(clip.content)
        answers = {name: answer_of(video, path, SAMPLED) for name, video in self._videos.items()}
        path.unlink()
        return Seen(CODECS[clip.codec], clip.damage, sound, answers)

    def _frames_of_sound_clip(self, clip: DamagedClip, path: Path) -> dict[int, str]:
        base = clip.codec, clip.recipe
        if base not in self._sound:
            path.write_bytes(packets_to_damage(*base).written())
            self._sound[base] = answer_of(self._videos["now"], path, EVERY_FRAME).samples[EVERY_FRAME]
        return self._sound[base]


def see_all(seed: int, clips: int, versions: dict[str, Path]) -> list[Seen]:
    """Return what each version makes of `clips` of every codec and kind of damage."""
    places = np.ndindex(len(CODECS), len(KINDS), clips)
    found = in_threads(places, lambda folder: Readers(versions, folder, seed), Readers.see)
    return [each for each in found if each]


def rows(found: list[Seen]) -> list[dict[str, Any]]:
    """Count by codec and kind; what is said of clips that aren't altered is counted, too."""
    return [
        {
            "codec": codec,
            "kind": kind,
            "clips": len(group),
            "altered": sum(each.altered for each in group),
            "made_up": sum(each.made_up for each in group),
            "noticed": {
                name: {
                    "altered": sum(bool(each.answers[name].said) for each in group if each.altered),
                    "made_up": sum(bool(each.answers[name].said) for each in group if each.made_up),
                    "all": sum(bool(each.answers[name].said) for each in group),
                }
                for name in group[0].answers
            },
            "faults": {name: sum(bool(each.answers[name].fault) for each in group) for name in group[0].answers},
        }
        for (codec, kind), group in by_codec_and_kind(found).items()
    ]


def as_table(results: dict[str, Any]) -> str:
    """Lay the counts out as Markdown; a false picture is one that no frame of the sound clip is."""
    names = [name for name in ("before", "now") if name in results["rows"][0]["noticed"]]
    noticed = [f"noticed {name}" for name in names]
    heads = ["codec", "damage", "clips", "altered", *noticed, "with false pictures", *noticed]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for row in results["rows"]:
        cells = [row["codec"], row["kind"], row["clips"]]
        for what in ("altered", "made_up"):
            cells += [row[what], *(row["noticed"][name][what] for name in names)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
