"""Which frames are answered together, and when; no clock but the one that is told."""

import pytest
from PIL import Image

from recipes.serving.turns import Frame, Turns, batch_sizes, most_together


def frame(caller: str, came: float = 0.0, size: tuple[int, int] = (8, 8)) -> Frame:
    return Frame(Image.new("RGB", size), caller, came)


def waiting(most: int, frames: list[Frame], max_wait: float = 0.0) -> Turns:
    turns = Turns(most, max_wait)
    for each in frames:
        turns.add(each)
    return turns


def callers(turns: Turns) -> list[str]:
    """Return whose frames the next batch has."""
    return [str(each.caller) for each in turns.take()]


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12]), (16, [1, 2, 4, 8, 16])]
)
def test_batches_have_few_sizes(most: int, sizes: list[int]) -> None:
    assert batch_sizes(most) == sizes


@pytest.mark.parametrize(("waiting", "together"), [(0, 0), (1, 1), (3, 2), (7, 4), (11, 8), (12, 12), (40, 12)])
def test_as_many_go_together_as_a_size_has(waiting: int, together: int) -> None:
    assert most_together(waiting, 12) == together


def after(lately: int, most: int, frames: list[Frame]) -> Turns:
    """Return turns that wait for up to 5 seconds, after a batch was taken when `lately` waited."""
    turns = waiting(16, [frame("before") for _ in range(lately)], 5.0)
    while len(turns):
        turns.take()
    turns._lately, turns.most = lately, most
    for each in frames:
        turns.add(each)
    return turns


def test_nothing_that_waits_is_never_due() -> None:
    assert Turns(4, 1.0).due(100.0, 0.0) is None
    assert Turns(4, 1.0).take() == []


@pytest.mark.parametrize(
    ("now", "free_since", "due"),
    [(10.0, 0.0, 5.0), (12.0, 0.0, 3.0), (15.0, 0.0, 0.0), (99.0, 0.0, 0.0), (12.0, 11.5, 4.5), (16.5, 11.5, 0.0)],
)
def test_batch_is_due_once_any_has_waited_long_enough_for_others(now: float, free_since: float, due: float) -> None:
    assert after(3, 4, [frame("b", 11.0), frame("a", 10.0)]).due(now, free_since) == due


@pytest.mark.parametrize(("lately", "wait", "due"), [(1, 1, 0.0), (2, 1, 5.0), (3, 2, 5.0), (3, 3, 0.0), (2, 3, 0.0)])
def test_as_many_are_waited_for_as_there_were(lately: int, wait: int, due: float) -> None:
    assert after(lately, 8, [frame("a", 10.0) for _ in range(wait)]).due(10.0, 0.0) == due


def test_what_was_left_is_waited_for_too() -> None:
    turns = waiting(2, [frame("a") for _ in range(3)], 5.0)
    turns.take()
    turns.most = 4
    assert turns.due(0.0, 0.0) == 5.0
    turns.add(frame("b"))
    turns.add(frame("b"))
    assert turns.due(0.0, 0.0) == 0.0


def test_frame_that_comes_alone_is_due_at_once() -> None:
    assert waiting(4, [frame("a", 10.0)], 5.0).due(10.0, 10.0) == 0.0


def test_full_batch_is_due_at_once() -> None:
    assert after(3, 2, [frame("a", 10.0), frame("a", 10.0)]).due(10.0, 10.0) == 0.0


def test_frames_of_other_sizes_fill_no_batch() -> None:
    turns = after(3, 2, [frame("a", 10.0), frame("b", 10.0, (9, 9))])
    assert turns.due(10.0, 0.0) == 5.0
    assert callers(turns) == ["a"]
    assert callers(turns) == ["b"]


def test_callers_take_turns() -> None:
    turns = waiting(4, [frame("greedy", 0.0) for _ in range(6)] + [frame("b", 1.0), frame("b", 1.0), frame("c", 2.0)])
    assert callers(turns) == ["greedy", "b", "c", "greedy"]
    assert callers(turns) == ["b", "greedy", "greedy", "greedy"]
    assert callers(turns) == ["greedy"]


def test_one_who_asks_again_and_again_waits_for_one_frame_of_the_greedy() -> None:
    turns = waiting(1, [frame("greedy") for _ in range(20)])
    taken = []
    for second in range(10):
        turns.add(frame("polite", float(second)))
        taken.append([callers(turns)[0], callers(turns)[0]])
    assert taken == [["greedy", "polite"]] + [["greedy", "polite"]] * 9


def test_who_comes_late_neither_passes_nor_waits_for_all() -> None:
    turns = waiting(1, [frame("a"), frame("a"), frame("a"), frame("b")])
    assert [callers(turns), callers(turns)] == [["a"], ["b"]]
    turns.add(frame("late", 9.0))
    assert [callers(turns), callers(turns), callers(turns)] == [["late"], ["a"], ["a"]]


def test_callers_who_left_are_forgotten() -> None:
    turns = Turns(1, 0.0)
    for number in range(100):
        turns.add(frame(f"camera {number}"))
        turns.take()
    assert len(turns._last) <= 100
    turns.add(frame("a"))
    turns.add(frame("a"))
    turns.take()
    turns.take()
    assert set(turns._last) == {"a"}


def test_what_nobody_wants_any_more_costs_no_place_in_a_batch() -> None:
    frames = [frame("a"), frame("b"), frame("c")]
    turns = waiting(2, frames)
    assert frames[0].p_unsafe.cancel()
    assert turns.due(0.0, 0.0) == 0.0
    assert len(turns) == 2
    assert callers(turns) == ["b", "c"]


def test_all_cancelled_is_nothing() -> None:
    turns = waiting(2, [frame("a")])
    turns._waiting[0].p_unsafe.cancel()
    assert turns.due(0.0, 0.0) is None


def test_taken_frames_are_running() -> None:
    (taken,) = waiting(2, [frame("a")]).take()
    assert taken.p_unsafe.running() and not taken.p_unsafe.cancel()
