"""What training notes of its rows, as a file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_prep.errors import InputError
from recipes.metrics.seen_rows import SeenRows, file_name, read_seen_rows


def seen(row: list[int], update: list[int], log_odds: list[float]) -> SeenRows:
    return SeenRows(np.array(row), np.array(update), np.array(log_odds))


def values(of: SeenRows) -> list[tuple[int, int, float]]:
    return list(zip(of.row.tolist(), of.update.tolist(), of.log_odds.tolist(), strict=True))


ONE = seen([4, 0, 4], [1, 1, 3], [0.5, -1.0, 2.0])
OTHER = seen([2, 3, 1], [1, 2, 3], [7.0, 8.0, 9.0])


def test_what_several_processes_saw_is_read_as_one_in_the_order_of_the_updates(tmp_path: Path) -> None:
    assert read_seen_rows(tmp_path) is None
    SeenRows.joined([ONE]).write(tmp_path)
    found = read_seen_rows(tmp_path)
    assert found is not None and values(found) == values(ONE)
    SeenRows.joined([OTHER]).write(tmp_path, process=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log_odds.1.safetensors", "log_odds.safetensors"]
    both = read_seen_rows(tmp_path)
    assert both is not None and values(both) == [
        (4, 1, 0.5),
        (0, 1, -1.0),
        (2, 1, 7.0),
        (3, 2, 8.0),
        (4, 3, 2.0),
        (1, 3, 9.0),
    ]
    assert {both.row.dtype, both.update.dtype, both.log_odds.dtype} == {np.dtype("int32"), np.dtype("float32")}


def test_nothing_seen_is_a_file_too(tmp_path: Path) -> None:
    SeenRows.joined([]).write(tmp_path)
    found = read_seen_rows(tmp_path)
    assert found is not None and len(found) == 0


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{'row'"], ids=["empty", "torn"])
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / file_name()).write_bytes(content)
    with pytest.raises(InputError, match=r"log_odds\.safetensors: damaged"):
        read_seen_rows(tmp_path)


@pytest.mark.parametrize(
    ("columns", "metadata", "said"),
    [
        ({"row": [1]}, {"schema_version": "1"}, "damaged"),
        ({"row": [1], "update": [1, 2], "log_odds": [1]}, {"schema_version": "1"}, "damaged"),
        ({"row": [1], "update": [1], "log_odds": [1]}, {"schema_version": "2"}, "schema_version 2 is not 1"),
        ({"row": [1], "update": [1], "log_odds": [1]}, {}, "schema_version None is not 1"),
    ],
    ids=["columns missing", "columns of two lengths", "later", "no version"],
)
def test_other_content_is_refused(
    tmp_path: Path, columns: dict[str, list[int]], metadata: dict[str, str], said: str
) -> None:
    save_file({name: np.array(column) for name, column in columns.items()}, tmp_path / file_name(), metadata)
    with pytest.raises(InputError, match=rf"log_odds\.safetensors: {said}"):
        read_seen_rows(tmp_path)
