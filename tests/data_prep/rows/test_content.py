import hashlib
import json
from pathlib import Path

import datasets
import pytest

from data_prep.rows import dataset
from data_prep.rows.content import content_hash, summary
from data_prep.rows.dataset import build_dataset

pytestmark = pytest.mark.usefixtures("own_cache")


def _one_row(**changes: object) -> datasets.DatasetDict:
    row: dict[str, object] = {"prompt": "p", "response": "SAFE", "clip": "4_tr1", "sample": 3}
    row |= {"source_class": "4_safe_walkway", "camera": None}
    image = {"bytes": b"not decoded here", "path": "0003.jpg"}
    table = {key: [value] for key, value in ({"image": image} | row | changes).items()}
    return datasets.DatasetDict({"train": datasets.Dataset.from_dict(table, features=dataset.dataset_columns())})


def test_content_hash_is_what_it_says() -> None:
    image = hashlib.sha256(b"not decoded here").hexdigest()
    row = json.dumps([image, "p", "SAFE", "4_tr1", 3, "4_safe_walkway"]) + "\n"
    expected = hashlib.sha256(f"train {hashlib.sha256(row.encode()).hexdigest()}\n".encode()).hexdigest()
    assert content_hash(_one_row()) == expected == "bcea473c619ec77484a2db0de5d3374862bb571732fb8b739c188c381bea11e9"


@pytest.mark.parametrize(
    "change",
    [
        {"image": {"bytes": b"other", "path": "0003.jpg"}},
        {"prompt": "q"},
        {"response": "UNSAFE"},
        {"clip": "4_tr2"},
        {"sample": 4},
        {"source_class": "5_authorized_intervention"},
        {"camera": "gate"},
    ],
)
def test_content_hash_covers_every_column(change: dict[str, object]) -> None:
    assert content_hash(_one_row(**change)) != content_hash(_one_row())


def test_content_hash_covers_split_and_order_but_not_the_file_name() -> None:
    one = _one_row()
    moved = datasets.DatasetDict({"test": one["train"]})
    assert content_hash(moved) != content_hash(one)
    two = datasets.concatenate_datasets([one["train"], _one_row(sample=4)["train"]])
    swapped = datasets.DatasetDict({"train": two.select([1, 0])})
    assert content_hash(swapped) != content_hash(datasets.DatasetDict({"train": two}))
    assert content_hash(_one_row(image={"bytes": b"not decoded here", "path": "x.jpg"})) == content_hash(one)


def test_summary_counts_frames_clips_and_labels(data: Path) -> None:
    assert summary(build_dataset(data)) == (
        "train 16 frames of 8 clips (SAFE 8, UNSAFE 8); validation 16 frames of 8 clips (SAFE 8, UNSAFE 8); "
        "test 16 frames of 8 clips (SAFE 8, UNSAFE 8)"
    )
