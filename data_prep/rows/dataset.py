"""A data folder's frames as a `datasets.DatasetDict`, their bytes embedded.

`datasets` takes seconds to import, so it is imported where it is used: checking a data folder needs none of it.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.disk.disk_errors import named
from data_prep.disk.plain_paths import plain_path
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.media.images import check_image
from data_prep.rows.content import frames_hash, split_hash
from data_prep.rows.frames import Frame
from data_prep.rows.jsonl import image_path
from data_prep.rows.validation import split_frames, warn_of_missing_classes

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features


def dataset_columns() -> "Features":
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
            "camera": Value("string"),
        }
    )


def _examples(frames: tuple[Frame, ...], digests: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for frame, digest in zip(frames, digests, strict=True):
        path = image_path(Path(frame.folder), frame.image, frame.where)
        check_image(path, f"{frame.where}: image {frame.image!r}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{frame.where}: image {frame.image!r} changed while it was read; run the command again")
        yield {"image": {"bytes": content, "path": path.name}, **frame.columns}


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


def _build_split(split: str, frames: Sequence[Frame], cache: Path | None) -> "Dataset":
    from datasets import Dataset, NamedSplit, config
    from datasets.exceptions import DatasetGenerationError

    images = [image_path(Path(frame.folder), frame.image, frame.where) for frame in frames]
    digests = [sha256_of_file(image) for image in images]
    _warn_of_both_answers(frames, digests)
    # `datasets` keeps what a generator gave under a hash of gen_kwargs. All that a row holds is in there, its image
    # as a digest, so a changed row or image is generated anew. Tuples: a list would be taken for shards.
    source = {"frames": tuple(frames), "digests": tuple(digests)}
    cache = plain_path(cache or Path(config.HF_DATASETS_CACHE).expanduser())
    try:
        with named(cache, sum(image.stat().st_size for image in images)):
            dataset = Dataset.from_generator(
                _examples, features=dataset_columns(), cache_dir=str(cache), gen_kwargs=source, split=NamedSplit(split)
            )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise
    if split_hash(dataset) != frames_hash(frames, digests):
        arrow = dataset.cache_files[0]["filename"]
        raise InputError(
            f"{arrow}: not what was built from {frames[0].folder}; the cached copy is damaged, delete its folder"
        )
    return dataset


def build_dataset(folder: Path, *, seed: int = 0, cache: Path | None = None) -> "DatasetDict":
    """Build train, validation and test from a data folder's JSONL files, clips.jsonl and frames.

    A class that validation lacks is named on stderr. `cache` is dataset_of's. Raises InputError as `read_frames` and
    dataset_of do.
    """
    splits = split_frames(folder, seed=seed)
    warn_of_missing_classes(splits)
    return dataset_of(splits, cache=cache)


def dataset_of(splits: Mapping[str, Sequence[Frame]], *, cache: Path | None = None) -> "DatasetDict":
    """Build a data set of frames, split by split.

    The images' bytes are embedded; of their paths only the file name is kept. The result lies, memory-mapped, in the
    folder `cache`, by default that of `datasets`. Raises InputError for an image that `check_image` refuses.
    """
    from datasets import DatasetDict

    return DatasetDict({split: _build_split(split, frames, cache) for split, frames in splits.items()})
