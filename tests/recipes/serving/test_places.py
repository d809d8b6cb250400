"""How much may wait at once."""

from contextlib import ExitStack

import pytest
from PIL import Image

from recipes.serving.places import PIXELS_A_PLACE, Places
from recipes.serving.refusals import Refused
from recipes.serving.turns import Frame


def fill(places: Places, caller: str, requests: ExitStack) -> int:
    """Take places for a caller until one is refused; return how many there were."""
    for number in range(1000):
        try:
            requests.enter_context(places.taken(caller))
        except Refused as refused:
            assert refused.status == 503
            return number
    raise AssertionError("there is no end of places")


@pytest.mark.parametrize(("most", "first", "others"), [(1, 1, 0), (7, 7, 0), (8, 7, 1), (64, 56, 8)])
def test_an_eighth_is_kept_for_who_has_none(most: int, first: int, others: int) -> None:
    places = Places(most, lambda: 0.0)
    with ExitStack() as requests:
        assert fill(places, "greedy", requests) == first
        for number in range(others):
            requests.enter_context(places.taken(f"caller {number}"))
        with pytest.raises(Refused):
            requests.enter_context(places.taken("one more"))
        assert places.waiting() == most
    assert places.waiting() == 0


def test_request_of_several_frames_has_all_its_places_or_none() -> None:
    places = Places(4, lambda: 0.0)
    with places.taken("a") as place:
        place.add(3)
        with pytest.raises(Refused):
            place.add(1)
        assert places.waiting() == 4
    with places.taken("b"), places.taken("a") as place:
        with pytest.raises(Refused):
            place.add(3)
        assert places.waiting() == 2


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.2, "1"), (0.7, "3"), (10.0, "40")])
def test_refusal_says_when_to_ask_again(seconds: float, told: str) -> None:
    places = Places(4, lambda: seconds)
    with ExitStack() as requests:
        fill(places, "a", requests)
        with pytest.raises(Refused) as refusal:
            requests.enter_context(places.taken("a"))
    assert refusal.value.headers == {"Retry-After": told}
    assert refusal.value.line == f"too many frames wait; ask again in {told} s"


def test_frame_in_the_model_waits_no_longer() -> None:
    places = Places(1, lambda: 0.0)
    with places.taken("a") as place:
        frame = Frame(Image.new("RGB", (4, 4)), "a", 0.0)
        place.put(frame)
        assert places.waiting() == 1
        frame.p_unsafe.set_running_or_notify_cancel()
        assert places.waiting() == 0
        with places.taken("a"):
            assert places.waiting() == 1
        frame.p_unsafe.set_result(0.5)
        assert places.waiting() == 0
    assert places.waiting() == 0


class Large:
    """As many pixels as there may be, without the memory that they would take."""

    width, height = 8, 5_000_000


def test_large_frames_take_more_than_their_places() -> None:
    places = Places(6, lambda: 0.0)
    assert 40_000_000 < 6 * PIXELS_A_PLACE < 80_000_000
    with places.taken("a") as first, places.taken("b") as second:
        first.put(Frame(Large(), "a", 0.0))  # type: ignore[arg-type]
        with pytest.raises(Refused):
            second.put(Frame(Large(), "b", 0.0))  # type: ignore[arg-type]
    with places.taken("b") as alone:
        alone.put(Frame(Large(), "b", 0.0))  # type: ignore[arg-type]
