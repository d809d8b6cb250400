"""Rows to a `datasets.DatasetDict` of embedded frames, with a validation split cut from train by clip content.

`datasets` takes seconds to import, so it is imported where it is used: checking a data folder needs none of it.
"""

import hashlib
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import Clip
from data_prep.disk.disk_errors import named
from data_prep.disk.plain_paths import plain_path
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.labels import LABELS
from data_prep.media.frame_format import FrameFormat, common_format
from data_prep.media.images import check_image
from data_prep.rows.jsonl import Row, image_path, read_numbered_rows

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

TRAIN, VALIDATION, TEST = DATASET_SPLITS = ("train", "validation", "test")
VALIDATION_FRACTION = 0.1  # of train's clips


@dataclass(frozen=True)
class Frame:
    """One row of a JSONL joined with its clip. `where` is the row's file and line, `image` relative to the folder."""

    where: str
    image: str
    prompt: str
    response: str
    clip: str
    sample: int
    source_class: str
    clip_sha256: str


def _join(row: Row, where: str, split: str, clips: dict[str, Clip]) -> Frame:
    path = PurePosixPath(row.image)
    clip = clips.get(path.parent.as_posix())
    if clip is None or clip.sha256 is None or not path.stem.isdecimal() or not clip.has_sample(int(path.stem)):
        raise InputError(
            f"{where}: image {row.image!r} is no frame of a clip in {CLIPS_FILE}; expected frames/{split}/"
            "<safe|unsafe>/<video_id>/<sample>.jpg; run data_prep/extract_frames.py and build_jsonl.py again"
        )
    if clip.split != split:
        raise InputError(f"{where}: image {row.image!r} is of the {clip.split} split; run build_jsonl.py again")
    return Frame(
        where=where,
        image=row.image,
        prompt=row.prompt,
        response=row.response,
        clip=clip.video_id,
        sample=int(path.stem),
        source_class=clip.source_class,
        clip_sha256=clip.sha256,
    )


def read_frames(folder: Path, split: str) -> list[Frame]:
    """Read `<folder>/<split>.jsonl`, join each row with its clip and check that its image stands in the folder.

    No image is opened. Raises InputError, naming file and line, for a bad row, an image that is missing or lies
    outside the folder, a frame that no clip of clips.jsonl accounts for, and a second row of one frame.
    """
    jsonl = folder / f"{split}.jsonl"
    rows = read_numbered_rows(jsonl)
    clips = {clip.folder: clip for clip in read_clips(folder / CLIPS_FILE)}
    frames: dict[tuple[str, int], Frame] = {}
    for number, row in rows:
        where = f"{jsonl}:{number}"
        image_path(folder, row.image, where)
        frame = _join(row, where, split, clips)
        first = frames.setdefault((frame.clip, frame.sample), frame)
        if first is not frame:
            raise InputError(_second_row(frame, first))
    return list(frames.values())


def _second_row(frame: Frame, first: Frame) -> str:
    line = first.where.rpartition(":")[2]
    other = "" if frame.response == first.response else f", there as {first.response} and here as {frame.response}"
    return f"{frame.where}: image {frame.image!r} stands in line {line} already{other}; leave one row of a frame"


def read_frame_format(folder: Path) -> FrameFormat | None:
    """Return how the frames of a data folder were kept, None where its clips differ in it."""
    return common_format(clip.settings.frame_format for clip in read_clips(folder / CLIPS_FILE) if clip.has_frames)


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


def _warn_of_missing_classes(splits: dict[str, list[Frame]]) -> None:
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

    `validation` is left out where no class has a clip to spare. Raises InputError as
    `read_frames` does.
    """
    train = read_frames(folder, TRAIN)
    test = read_frames(folder, TEST)
    held_out = cut_validation(train, seed=seed)
    kept = [frame for frame in train if frame.clip not in held_out]
    validation = [frame for frame in train if frame.clip in held_out]
    splits = {TRAIN: kept, VALIDATION: validation, TEST: test}
    return {split: frames for split, frames in splits.items() if frames}


def frame_features() -> "Features":
    """Return the columns of every split: the frame, its prompt and response, and what clips.jsonl says of it."""
    from datasets import Features, Image, Value

    return Features(
        {
            "image": Image(),
            "prompt": Value("string"),
            "response": Value("string"),
            "clip": Value("string"),
            "sample": Value("int64"),
            "source_class": Value("string"),
        }
    )


def _examples(folder: str, frames: tuple[Frame, ...], digests: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for frame, digest in zip(frames, digests, strict=True):
        path = image_path(Path(folder), frame.image, frame.where)
        check_image(path, f"{frame.where}: image {frame.image!r}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{frame.where}: image {frame.image!r} changed while it was read; run the command again")
        yield {
            "image": {"bytes": content, "path": path.name},
            "prompt": frame.prompt,
            "response": frame.response,
            "clip": frame.clip,
            "sample": frame.sample,
            "source_class": frame.source_class,
        }


def _warn_of_both_answers(frames: Sequence[Frame], digests: Sequence[str]) -> None:
    """Say on stderr how many pictures stand under both answers, byte for byte: black frames may, and mistakes do."""
    by_picture: defaultdict[str, dict[str, Frame]] = defaultdict(dict)
    for frame, digest in zip(frames, digests, strict=True):
        by_picture[digest].setdefault(frame.response, frame)
    if both := [list(answers.values()) for answers in by_picture.values() if len(answers) > 1]:
        first, second = both[0]
        print(
            f"warning: {len(both)} pictures stand under both answers, byte for byte; the first {first.where} and "
            f"{second.where}",
            file=sys.stderr,
        )


def _build_split(folder: Path, split: str, frames: Sequence[Frame], cache: Path | None) -> "Dataset":
    from datasets import Dataset, NamedSplit, config
    from datasets.exceptions import DatasetGenerationError

    images = [image_path(folder, frame.image, frame.where) for frame in frames]
    digests = [sha256_of_file(image) for image in images]
    _warn_of_both_answers(frames, digests)
    # `datasets` keeps what a generator gave under a hash of gen_kwargs. All that a row holds is in there, its image
    # as a digest, so a changed row or image is generated anew. Tuples: a list would be taken for shards.
    source = {"folder": str(folder), "frames": tuple(frames), "digests": tuple(digests)}
    cache = plain_path(cache or Path(config.HF_DATASETS_CACHE).expanduser())
    try:
        with named(cache, sum(image.stat().st_size for image in images)):
            dataset = Dataset.from_generator(
                _examples, features=frame_features(), cache_dir=str(cache), gen_kwargs=source, split=NamedSplit(split)
            )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise
    if split_hash(dataset) != _rows_hash(_frame_rows(frames, digests)):
        arrow = dataset.cache_files[0]["filename"]
        raise InputError(f"{arrow}: not what was built from {folder}; the cached copy is damaged, delete its folder")
    return dataset


def build_dataset(folder: Path, *, seed: int = 0, cache: Path | None = None) -> "DatasetDict":
    """Build train, validation and test from a data folder's JSONL files, clips.jsonl and frames.

    The images' bytes are embedded; of their paths only the file name is kept. The result lies, memory-mapped, in the
    folder `cache`, by default that of `datasets`. A class that validation lacks is named on stderr. Raises InputError
    as `read_frames` does and for an image that `check_image` refuses.
    """
    from datasets import DatasetDict

    splits = split_frames(folder, seed=seed)
    _warn_of_missing_classes(splits)
    return DatasetDict({split: _build_split(folder, split, frames, cache) for split, frames in splits.items()})


def _frame_rows(frames: Sequence[Frame], digests: Sequence[str]) -> Iterator[list[str | int]]:
    for frame, digest in zip(frames, digests, strict=True):
        yield [digest, frame.prompt, frame.response, frame.clip, frame.sample, frame.source_class]


def _dataset_rows(dataset: "Dataset") -> Iterator[list[str | int]]:
    from datasets import Image

    for row in dataset.cast_column("image", Image(decode=False)):
        digest = hashlib.sha256(row["image"]["bytes"]).hexdigest()
        yield [digest, row["prompt"], row["response"], row["clip"], row["sample"], row["source_class"]]


def _rows_hash(rows: Iterator[list[str | int]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def split_hash(dataset: "Dataset") -> str:
    """Return the SHA-256 of one split: row by row its image's SHA-256, prompt, response, clip, sample, source class."""
    return _rows_hash(_dataset_rows(dataset))


def combine_split_hashes(hashes: dict[str, str]) -> str:
    """Return the SHA-256 that stands for a whole data set, from its splits' names and `split_hash`es."""
    lines = [f"{split} {hashes[split]}\n" for split in DATASET_SPLITS if split in hashes]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def content_hash(dataset: "DatasetDict") -> str:
    """Return the SHA-256 of all that a model sees and all that a report counts, split by split and row by row.

    It is the same for a data folder, for what was pushed from it and for any copy, whatever the files look like.
    """
    return combine_split_hashes({split: split_hash(dataset[split]) for split in dataset})


@dataclass(frozen=True)
class SplitCounts:
    """How much one split holds; `labels` counts its frames by answer."""

    frames: int
    clips: int
    labels: dict[str, int]


def count_splits(dataset: "DatasetDict") -> dict[str, SplitCounts]:
    """Count frames, clips and answers of each split."""
    counts = {}
    for split in dataset:
        answers = Counter(dataset[split]["response"][:])
        labels = {label: answers[label] for label in LABELS}
        counts[split] = SplitCounts(len(dataset[split]), len(dataset[split].unique("clip")), labels)
    return counts


def summary(dataset: "DatasetDict") -> str:
    """Say in one line what each split holds: `train 40 frames of 8 clips (SAFE 10, UNSAFE 30); validation …`."""
    parts = []
    for split, counts in count_splits(dataset).items():
        labels = ", ".join(f"{label} {count}" for label, count in counts.labels.items())
        parts.append(f"{split} {counts.frames} frames of {counts.clips} clips ({labels})")
    return "; ".join(parts)
