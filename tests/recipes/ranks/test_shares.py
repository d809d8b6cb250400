"""Each row once, in order, whatever the number of processes."""

from collections.abc import Iterator

import pytest

from data_prep.errors import InputError
from recipes.ranks.shares import SharedSampler, UpdateShares, at_once_of, frames_a_process, loaders_of, whole_batches


class Backwards:
    """An epoch's order that can be told from that of rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.epoch = rows, 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows - 1, -1, -1))

    def __len__(self) -> int:
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 8, 11, 12, 32])
@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_processes_share_each_update_without_repeating_or_dropping_a_row(rows: int, ranks: int) -> None:
    shares = UpdateShares(rows, 6, ranks)
    samplers = [SharedSampler(Backwards(rows), shares, rank) for rank in range(ranks)]
    given = [list(sampler) for sampler in samplers]
    assert {len(sampler) for sampler in samplers} == {len(given[0])}
    order = list(Backwards(rows))
    for update in range(shares.updates):
        whole = order[6 * update : 6 * update + 6]
        assert shares.rows_of(update) == shares.rows_of(update + shares.updates) == len(whole)
        sizes = [len(whole[shares.part_of(rank, len(whole))]) for rank in range(ranks)]
        assert [row for rank in range(ranks) for row in given[rank][: sizes[rank]]] == whole
        given = [part[size:] for part, size in zip(given, sizes, strict=True)]
    assert given == [[]] * ranks


def test_epoch_reaches_the_order_that_is_shared() -> None:
    order = Backwards(4)
    SharedSampler(order, UpdateShares(4, 2, 2), 1).set_epoch(3)
    assert order.epoch == 3


@pytest.mark.parametrize(
    ("rows", "batch", "ranks", "parts"),
    [
        (16, 3, 2, [range(9), range(9, 16)]),
        (16, 3, 3, [range(6), range(6, 12), range(12, 16)]),
        (2, 4, 2, [range(0), range(2)]),
    ],
)
def test_scored_batches_are_those_of_one_process(rows: int, batch: int, ranks: int, parts: list[range]) -> None:
    assert [whole_batches(rows, batch, rank, ranks) for rank in range(ranks)] == parts


def test_processes_that_do_not_divide_an_update_are_refused_with_those_that_do() -> None:
    assert frames_a_process(16, 4) == 4
    with pytest.raises(
        InputError, match=r"3 processes can't share an update of 16 frames alike; start one of 1, 2, 4, 8, 16, or set"
    ):
        frames_a_process(16, 3)


@pytest.mark.parametrize(("share", "most", "found"), [(8, 4, (4, 2)), (6, 4, (3, 2)), (2, 4, (2, 1)), (7, 4, (1, 7))])
def test_frames_at_once_are_no_more_than_one_process_had(share: int, most: int, found: tuple[int, int]) -> None:
    assert at_once_of(share, most) == found


@pytest.mark.parametrize(
    ("wanted", "cores", "processes", "found"), [(4, 2, 1, 4), (4, 16, 2, 4), (4, 8, 4, 2), (4, 2, 4, 1)]
)
def test_loaders_fit_the_cores_of_a_machine(wanted: int, cores: int, processes: int, found: int) -> None:
    assert loaders_of(wanted, cores, processes) == found
