"""Draw the demo's synthetic clips in the layout of the published data set, with its prior shift and its byte-copies.

python data_prep/make_demo_clips.py [--out data/demo] [--seed 0] [--train-clips N] [--test-clips N]
"""

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from data_prep.clips.records import DATASET_FOLDER
from data_prep.console import run_script
from data_prep.demo import renderer, scenes
from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import HEIGHT, WIDTH, Scene, draw_scene
from data_prep.disk.litter import without_litter
from data_prep.errors import InputError
from data_prep.files import from_root, sha256_of_file, write_atomic, write_json
from data_prep.labels import SAFE, SOURCE_CLASSES, SPLITS, UNSAFE, SourceClass

RECORD_FILE = "demo_clips.json"
FRAMES_PER_SECOND = 24
MIN_SECONDS, MAX_SECONDS = 3.0, 8.0
MAX_SEED = 2**31 - 1  # the small base is pretrained on scenes from the seeds above
UNSAFE_SHARE = {"train": 0.8, "test": 0.5}  # the published data: 0.799 and 0.512
ENCODER_OPTIONS = {"preset": "ultrafast", "threads": "1"}  # more threads change the bytes with the machine
QUALITIES = range(24, 33)  # x264's crf: higher is coarser

# Byte-copies and what they copy, each across classes as in the published data: within a split and across them, under
# one label and under both. Every source shows an open panel, so each is what its folders say it is.
COPIES = {
    "train/2_opened_panel cover/2_tr2.mp4": "train/1_unauthorized_intervention/1_tr1.mp4",
    "train/2_opened_panel cover/2_tr3.mp4": "train/5_authorized_intervention/5_tr1.mp4",
    "test/2_opened_panel cover/2_te2.mp4": "train/1_unauthorized_intervention/1_tr2.mp4",
    "test/2_opened_panel cover/2_te3.mp4": "train/5_authorized_intervention/5_tr2.mp4",
}


@dataclass(frozen=True)
class Settings:
    """Everything that the clips depend on: two runs with equal settings write equal files."""

    seed: int
    train_clips: int
    test_clips: int
    generator: str  # SHA-256 of the sources that draw and encode, so that an old set is never taken for a new one


@dataclass(frozen=True)
class PlannedClip:
    """One clip to draw: `number` counts from 1 within its split and class. A copy is drawn as what it copies."""

    split: str
    source_class: SourceClass
    number: int
    copy_of: "PlannedClip | None" = None

    @property
    def path(self) -> str:
        """The clip's path below the data set's folder, spelled as published."""
        name = f"{self.source_class.digit}_{self.split[:2]}{self.number}.mp4"
        return f"{self.split}/{published_folder(self.source_class)}/{name}"


def main(argv: list[str]) -> int:
    """Draw the clips that aren't there yet and print how many there are."""
    arguments = _parse(argv)
    out = from_root(arguments.out)
    started = time.monotonic()
    settings = Settings(arguments.seed, arguments.train_clips, arguments.test_clips, _generator())
    plan = with_copies(plan_clips("train", settings.train_clips) + plan_clips("test", settings.test_clips))
    missing = _prepare(out, settings, plan)
    _draw_clips(out / DATASET_FOLDER, missing, settings.seed, arguments.workers)
    hashes = {clip.path: sha256_of_file(out / DATASET_FOLDER / clip.path) for clip in plan}
    _write_record(out, settings, plan, hashes)
    _report(plan, len(missing), time.monotonic() - started)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="data/demo", help=f"folder that gets {DATASET_FOLDER!r} (default: data/demo)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other clips (default: 0)")
    parser.add_argument("--train-clips", type=int, default=120, help="at least 8; 80%% are UNSAFE (default: 120)")
    parser.add_argument("--test-clips", type=int, default=60, help="at least 8; half are UNSAFE (default: 60)")
    parser.add_argument("--workers", type=int, default=cpu_count(), help="processes (default: one a core)")
    arguments = parser.parse_args(argv)
    for flag in ("train_clips", "test_clips"):
        if getattr(arguments, flag) < len(SOURCE_CLASSES):
            name = flag.replace("_", "-")
            raise InputError(f"--{name} {getattr(arguments, flag)}: at least {len(SOURCE_CLASSES)}, one a class")
    if not 0 <= arguments.seed <= MAX_SEED:
        raise InputError(f"--seed {arguments.seed}: a whole number from 0 to {MAX_SEED} is needed")
    if arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: at least 1 is needed")
    return arguments


def published_folder(source_class: SourceClass) -> str:
    """Return the class folder's name as the published data set spells it: class 2 holds a space."""
    return source_class.folder.replace("panel_cover", "panel cover") if source_class.digit == 2 else source_class.folder


def plan_clips(split: str, count: int) -> list[PlannedClip]:
    """Share `count` clips among the eight classes: the split's prior between the labels, evenly within a label.

    Every class gets at least one clip; `count` is at least eight.
    """
    unsafe_classes = [each for each in SOURCE_CLASSES if each.label == UNSAFE]
    safe_classes = [each for each in SOURCE_CLASSES if each.label == SAFE]
    unsafe = min(round(count * UNSAFE_SHARE[split]), count - len(safe_classes))
    shares = ((unsafe_classes, max(unsafe, len(unsafe_classes))), (safe_classes, count - unsafe))
    return [
        PlannedClip(split, source_class, number)
        for classes, total in shares
        for position, source_class in enumerate(classes)
        for number in range(1, 1 + len(range(position, total, len(classes))))
    ]


def with_copies(plan: list[PlannedClip]) -> list[PlannedClip]:
    """Return the plan with its byte-copies marked, as far as it holds both the copy and what it copies."""
    by_path = {clip.path: clip for clip in plan}
    return [replace(clip, copy_of=by_path.get(COPIES.get(clip.path, ""))) for clip in plan]


def _generator() -> str:
    sources = (Path(scenes.__file__), Path(renderer.__file__), Path(__file__))
    return " ".join(sha256_of_file(source)[:16] for source in sources)


def _prepare(out: Path, settings: Settings, plan: list[PlannedClip]) -> list[PlannedClip]:
    """Return the clips that are to be drawn, after removing what other settings left.

    The record is on disk before any clip, with null for a hash that isn't known yet: whatever an interrupted run
    leaves is known to be this script's, and of which settings. A clip is renamed into place, so one that is there
    is whole.
    """
    root = out / DATASET_FOLDER
    recorded = _read_record(out)
    _refuse_foreign(root, set(recorded["clips"]) if recorded else None)
    _remove_temporaries(root)
    hashes: dict[str, str | None] = {}
    if recorded and recorded["settings"] == asdict(settings):
        known = {path: clip["sha256"] for path, clip in recorded["clips"].items()}
        hashes = {path: sha256 for path, sha256 in known.items() if _is_kept(root / path, sha256)}
    elif recorded:
        for path in recorded["clips"]:
            (root / path).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    _write_record(out, settings, plan, hashes)
    for clip in plan:
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
    return [clip for clip in plan if clip.path not in hashes]


def _is_kept(path: Path, sha256: str | None) -> bool:
    return path.is_file() and sha256 in (None, sha256_of_file(path))


def _read_record(out: Path) -> dict[str, Any] | None:
    path = out / RECORD_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        clips = {path: {"sha256": clip["sha256"]} for path, clip in record["clips"].items()}
        return {"settings": dict(record["settings"]), "clips": clips}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not this script's record; remove it and {DATASET_FOLDER!r} beside it") from None


def _write_record(out: Path, settings: Settings, plan: list[PlannedClip], hashes: Mapping[str, str | None]) -> None:
    """Write what is known of each clip: its hash, what it copies, and how many first samples don't show its behaviour.

    Samples are counted at one frame a second.
    """
    clips = {
        clip.path: {
            "sha256": hashes.get(clip.path),
            "hidden_samples": math.ceil(scene_of(clip, settings.seed)[0].behaviour_from_seconds),
            "copy_of": clip.copy_of.path if clip.copy_of else None,
        }
        for clip in plan
    }
    write_json(out / RECORD_FILE, {"settings": asdict(settings), "clips": clips})


def _refuse_foreign(root: Path, known: set[str] | None) -> None:
    """Raise InputError if the data set's folder holds anything that this script didn't draw there, but litter."""
    foreign = sorted(path for path in _files_below(root) if path.relative_to(root).as_posix() not in (known or ()))
    if foreign:
        raise InputError(
            f"{foreign[0]}: not drawn by this script ({len(foreign)} such files); "
            "give another folder with --out, or move them away"
        )


def _files_below(folder: Path) -> Iterator[Path]:
    for path in without_litter(folder) if folder.is_dir() else ():
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _files_below(path)


def _remove_temporaries(root: Path) -> None:
    for path in root.glob("*/*/.*.mp4.*.tmp"):
        path.unlink()


def _draw_clips(root: Path, clips: list[PlannedClip], seed: int, workers: int) -> None:
    drawn = Parallel(n_jobs=workers, return_as="generator_unordered")(
        delayed(_draw_clip)(root / clip.path, clip, seed) for clip in clips
    )
    for _ in tqdm(drawn, total=len(clips), desc="drawing", unit="clip", disable=not sys.stderr.isatty()):
        pass


def _draw_clip(path: Path, clip: PlannedClip, seed: int) -> None:
    write_atomic(path, encode_clip(clip, seed))


def scene_of(clip: PlannedClip, seed: int) -> tuple[Scene, np.random.Generator]:
    """Return what a clip shows, which `seed` and its split, class and number decide alone, and what goes on drawing."""
    drawn = clip.copy_of or clip
    rng = np.random.default_rng([seed, SPLITS.index(drawn.split), drawn.source_class.digit, drawn.number])
    panel_open = True if drawn.path in COPIES.values() else None
    return draw_scene(drawn.source_class.digit, rng, panel_open=panel_open, load=drawn.number - 1), rng


def encode_clip(clip: PlannedClip, seed: int) -> bytes:
    """Return the mp4 file of one clip."""
    scene, rng = scene_of(clip, seed)
    renderer = Renderer(scene)
    frames = round(rng.uniform(MIN_SECONDS, MAX_SECONDS) * FRAMES_PER_SECOND)
    options = {**ENCODER_OPTIONS, "crf": str(rng.choice(QUALITIES))}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 2 * FRAMES_PER_SECOND
        for index in range(frames):
            picture = av.VideoFrame.from_numpy_buffer(renderer.pixels(index / FRAMES_PER_SECOND), format="rgba")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


def _report(plan: list[PlannedClip], drawn: int, seconds: float) -> None:
    counts = []
    for split in SPLITS:
        labels = [clip.source_class.label for clip in plan if clip.split == split]
        counts.append(f"{len(labels)} {split} ({labels.count(UNSAFE)} UNSAFE, {labels.count(SAFE)} SAFE)")
    print(f"clips: {', '.join(counts)}; drawn {drawn}, kept {len(plan) - drawn}; {seconds:.1f} s")


if __name__ == "__main__":
    run_script(main)
