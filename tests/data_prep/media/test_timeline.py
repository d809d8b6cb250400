"""Times are in ticks of a twenty-fourth of a second, and a sound clip shows a frame a tick, unless said otherwise."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from data_prep.media.timeline import BACK, FORWARD, MISSING, STANDING, WILD, Timeline

SECOND = 24
LONG = list(range(240))


def laid(times: Sequence[int | None], ticks_a_second: int = SECOND) -> tuple[dict[int, int], dict[str, int]]:
    """Return the first frame of each sample's time, at a sample a second from the first believed time, and faults."""
    timeline = Timeline(times, Fraction(ticks_a_second))
    origin = timeline.believed[0][1] if timeline.believed else 0
    firsts: dict[int, int] = {}
    for place, sample in enumerate(timeline.samples(origin, Fraction(1, ticks_a_second))):
        if sample is not None:
            firsts.setdefault(sample, place)
    return firsts, dict(+timeline.faults)


EVERY_SECOND = {second: SECOND * second for second in range(10)}


def test_sound_times_have_a_sample_a_second_and_no_fault() -> None:
    assert laid(LONG) == (EVERY_SECOND, {})


@pytest.mark.parametrize("late", [5, SECOND, 5 * SECOND, 300 * SECOND, 10**9, -3, -5 * SECOND, -300 * SECOND, -(10**9)])
@pytest.mark.parametrize("place", [1, 73, 120, 238, 239])
def test_one_wild_time_costs_that_frame(place: int, late: int) -> None:
    times = LONG.copy()
    times[place] += late
    expected = {second: first + (first == place) for second, first in EVERY_SECOND.items()}
    faults = {WILD: 1}
    if place == 239 and 0 < late < SECOND:  # as well the last frame after a hole
        expected, faults = {**EVERY_SECOND, 10: 239}, {MISSING: late}
    assert laid(times) == (expected, faults)


@pytest.mark.parametrize("late", [5 * SECOND, 300 * SECOND, 10**9, -5, -300 * SECOND])
def test_a_wild_first_time_does_not_count(late: int) -> None:
    times = LONG.copy()
    times[0] += late
    firsts, faults = laid(times)
    if late == -5:  # as well a hole after the first frame
        assert (firsts[0], faults) == (0, {MISSING: 5})
    else:
        assert (firsts, faults) == ({second: first + 1 for second, first in EVERY_SECOND.items()}, {WILD: 1})


@pytest.mark.parametrize("late", [(7200, -960), (-960, 7200), (7200, 7224)])
def test_two_wild_times_in_a_row_cost_those_two(late: tuple[int, int]) -> None:
    times = LONG.copy()
    times[72], times[73] = times[72] + late[0], times[73] + late[1]
    assert laid(times) == ({**EVERY_SECOND, 3: 74}, {WILD: 2})


def test_many_wild_times_far_apart_cost_each_its_frame() -> None:
    times = [at + 1000 * (at % 12 == 5) for at in LONG]
    assert laid(times) == (EVERY_SECOND, {WILD: 20})


@pytest.mark.parametrize("pause", [2, 30, 590, 700, 86_400, 10**9])
@pytest.mark.parametrize("after", [2, 72])
def test_a_jump_forward_that_lasts_keeps_its_time(pause: int, after: int) -> None:
    times = [*range(SECOND), *range(SECOND * (1 + pause), SECOND * (1 + pause) + after)]
    firsts, faults = laid(times)
    expected = {0: 0, **{1 + pause + second: SECOND * (1 + second) for second in range(-(-after // SECOND))}}
    assert (firsts, faults) == (expected, {FORWARD: 1})


@pytest.mark.parametrize("back", [1, 24, 100, 10**9])
def test_after_a_lasting_jump_back_numbering_goes_on_at_the_next_sample(back: int) -> None:
    times = [*range(60), *range(60 - back, 60 - back + 60)]
    firsts, faults = laid(times)
    if back == 1:  # two frames at one time, as rounded times may be
        assert (firsts, faults) == ({0: 0, 1: 24, 2: 48, 3: 73, 4: 97}, {})
    else:
        assert (firsts, faults) == ({0: 0, 1: 24, 2: 48, 3: 60, 4: 84, 5: 108}, {BACK: 1})


def test_jumps_there_and_back() -> None:
    times = [*range(48), *range(4800, 4848), *range(48, 96)]
    assert laid(times) == ({0: 0, 1: 24, 200: 48, 201: 72, 202: 96, 203: 120}, {FORWARD: 1, BACK: 1})


def test_a_pause_that_the_container_states_is_no_fault() -> None:
    times = [*range(24), *range(24 * 701, 24 * 704)]
    timeline = Timeline(times, Fraction(SECOND), lambda earlier, later: 24 * 700 * (earlier < 24 * 701 <= later))
    assert +timeline.faults == {}
    assert timeline.longest_jump == 0
    assert timeline.samples(0, Fraction(1, SECOND))[24] == 701


def test_of_a_pause_only_what_is_stated_is_no_fault() -> None:
    timeline = Timeline([*range(24), *range(24 * 701, 24 * 704)], Fraction(SECOND), lambda earlier, later: 24 * 300)
    assert timeline.faults[FORWARD] == 1
    assert timeline.longest_jump == pytest.approx(400, abs=0.1)


@pytest.mark.parametrize("early", [1, 5, 100])
def test_a_first_time_that_was_moved_to_the_start_is_put_right(early: int) -> None:
    timeline = Timeline([-early, *LONG[1:]], Fraction(SECOND), first_is_moved=True)
    assert +timeline.faults == {}
    assert timeline.believed[0] == (0, 0)
    assert timeline.samples(0, Fraction(1, SECOND))[::24] == list(range(10))
    late = Timeline([early, *LONG[1:]], Fraction(SECOND), first_is_moved=True)
    assert late.faults[WILD] == (early > 1)


def test_the_longest_jump_is_told_in_seconds() -> None:
    times = [*range(24), *range(48 + 24, 96), *range(24 * 700, 24 * 702)]
    timeline = Timeline(times, Fraction(SECOND))
    assert timeline.faults[FORWARD] == 2
    assert timeline.longest_jump == pytest.approx((24 * 700 - 95) / 24)


@pytest.mark.parametrize("step", [1, 2, 48, 24 * 60])
def test_slow_clips_are_no_jumps(step: int) -> None:
    times = [step * number for number in range(20)]
    assert laid(times) == ({at // SECOND: at // step for at in times if step >= SECOND or at % SECOND == 0}, {})


def test_holes_in_even_times_are_counted_by_frames() -> None:
    times = [at for at in LONG if at not in (30, 31, 32, 100, 239)]
    assert laid(times) == (
        {second: place - 3 * (place > 32) - (place > 100) for second, place in EVERY_SECOND.items()},
        {MISSING: 4},
    )


@pytest.mark.parametrize(
    ("times", "ticks_a_second"),
    [
        ([round(number * 1001 / 30) for number in range(300)], 1000),  # 29.97 a second in milliseconds
        ([round(number * 100 / 240) for number in range(2400)], 100),  # 240 a second in hundredths: times stand still
        ([512 * (number + number // 2) for number in range(300)], 12800),  # every third frame was left out
        ([number * 40 + (7 * number) % 13 for number in range(300)], 1000),  # a jittering clock
        ([0, 300, 900, 1100, 1200, 3700, 4000, 4100], 1000),
        ([0, 5000], 1000),
        ([0], 1000),
        ([], 1000),
        ([*range(0, 1000, 40), 10_000, 20_000, *range(30_000, 30_400, 200), 60_000], 1_000_000),
    ],
)
def test_sound_times_of_every_kind_are_no_fault(times: list[int | None], ticks_a_second: int) -> None:
    assert laid(times, ticks_a_second)[1] == {}


def test_a_frame_alone_between_two_pauses_is_kept() -> None:
    times = [*range(24), 240, *range(480, 504)]
    assert laid(times) == ({0: 0, 10: 24, 20: 25}, {FORWARD: 2})


def test_frames_without_a_time_are_left_out() -> None:
    times: list[int | None] = list(LONG)
    times[24] = times[50] = None
    assert laid(times) == ({**EVERY_SECOND, 1: 25}, {WILD: 2})


def test_a_clock_that_stands_still_is_told() -> None:
    times = [*(at * 10 for at in range(40)), *[390] * 3, *(at * 10 for at in range(40, 100))]
    assert laid(times, 240)[1] == {STANDING: 3}
