"""The thread that runs the model, with a model that waits to be let go on."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from queue import Queue

import pytest
from PIL import Image

from data_prep.errors import InputError
from recipes.answering.scoring import NoProbabilityError
from recipes.model.device import CardFullError
from recipes.serving.model_thread import ModelThread
from recipes.serving.turns import Frame, Turns

PATIENCE = 30


@dataclass
class Held:
    """A model that answers with a frame's red, once it is let go on; what it is given stands in `batches`."""

    batches: "Queue[list[int]]" = field(default_factory=Queue)
    go_on: "Queue[Exception | None]" = field(default_factory=Queue)
    threads: set[str] = field(default_factory=set)

    def __call__(self, images: Sequence[Image.Image]) -> list[float]:
        reds = [image.getpixel((0, 0))[0] for image in images]  # type: ignore[index]
        self.threads.add(threading.current_thread().name)
        self.batches.put(reds)
        if (error := self.go_on.get(timeout=PATIENCE)) is not None:
            raise error
        return [red / 100 for red in reds]


@dataclass
class Running:
    """A thread with such a model, whose clock stands still."""

    model: Held
    thread: ModelThread
    turns: Turns
    told: list[int]

    def ask(self, *reds: int) -> list[Frame]:
        frames = [Frame(Image.new("RGB", (4, 4), (red, 0, 0)), "caller", 0.0) for red in reds]
        for frame in frames:
            self.thread.ask(frame)
        return frames

    def batch(self) -> list[int]:
        return self.model.batches.get(timeout=PATIENCE)


@pytest.fixture
def running() -> Iterator[Running]:
    model, told, turns = Held(), list[int](), Turns(4, 0.0)
    thread = ModelThread(turns, lambda frames, seconds: told.append(frames), clock=lambda: 0.0)
    thread.start(lambda: model)
    yield Running(model, thread, turns, told)
    for _ in range(100):
        model.go_on.put(None)
    thread.close()


def test_what_comes_while_the_model_works_is_answered_together(running: Running) -> None:
    frames = running.ask(1)
    assert running.batch() == [1]
    frames += running.ask(2, 3, 4, 5, 6)
    running.model.go_on.put(None)
    assert running.batch() == [2, 3, 4, 5]
    running.model.go_on.put(None)
    assert running.batch() == [6]
    running.model.go_on.put(None)
    assert [frame.p_unsafe.result(PATIENCE) for frame in frames] == [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert running.model.threads == {"model"}
    assert running.told == [1, 4, 1]


def test_frame_that_nobody_waits_for_costs_no_call(running: Running) -> None:
    running.ask(1)
    assert running.batch() == [1]
    gone, wanted = running.ask(2, 3)
    assert gone.p_unsafe.cancel()
    running.model.go_on.put(None)
    assert running.batch() == [3]
    running.model.go_on.put(None)
    assert wanted.p_unsafe.result(PATIENCE) == 0.03
    with pytest.raises(CancelledError):
        gone.p_unsafe.result(PATIENCE)


def test_frame_without_a_probability_costs_the_others_nothing(running: Running) -> None:
    running.ask(0)
    assert running.batch() == [0]
    frames = running.ask(1, 2, 3, 4)
    running.model.go_on.put(None)
    said = {4: NoProbabilityError("none"), 2: NoProbabilityError("none"), 1: NoProbabilityError("of the second")}
    for reds in ([1, 2, 3, 4], [1, 2], [1], [2], [3, 4]):
        assert running.batch() == reds
        running.model.go_on.put(said[len(reds)] if 2 in reds else None)
    assert [frames[place].p_unsafe.result(PATIENCE) for place in (0, 2, 3)] == [0.01, 0.03, 0.04]
    with pytest.raises(NoProbabilityError, match="of the second"):
        frames[1].p_unsafe.result(PATIENCE)
    assert running.turns.most == 4 and not running.thread.failing


def test_card_that_is_full_gets_fewer_at_once_from_then_on(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    running.ask(0)
    assert running.batch() == [0]
    frames = running.ask(1, 2, 3, 4)
    running.model.go_on.put(None)
    assert running.batch() == [1, 2, 3, 4]
    running.model.go_on.put(CardFullError("full"))
    for reds in ([1, 2], [3, 4]):
        assert running.batch() == reds
        running.model.go_on.put(None)
    assert [frame.p_unsafe.result(PATIENCE) for frame in frames] == [0.01, 0.02, 0.03, 0.04]
    assert running.turns.most == 2
    assert capsys.readouterr().err == "the card has no memory for 4 frames at once: 2 from here on\n"


def test_batch_that_fails_is_told_and_the_next_one_is_answered(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    (frame,) = running.ask(1)
    assert running.batch() == [1]
    running.model.go_on.put(RuntimeError("a fault\nof two lines"))
    with pytest.raises(RuntimeError):
        frame.p_unsafe.result(PATIENCE)
    assert running.thread.failing
    assert capsys.readouterr().err == "error: the model failed (RuntimeError: a fault\\nof two lines)\n"
    (again,) = running.ask(2)
    running.model.go_on.put(None)
    assert again.p_unsafe.result(PATIENCE) == 0.02
    assert not running.thread.failing


def test_closing_answers_what_waits_first(running: Running) -> None:
    frames = running.ask(1)
    assert running.batch() == [1]
    frames += running.ask(2, 3, 4)
    closing = threading.Thread(target=running.thread.close)
    closing.start()
    for _ in range(3):
        running.model.go_on.put(None)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert [frame.p_unsafe.result(0) for frame in frames] == [0.01, 0.02, 0.03, 0.04]


def test_waiting_for_others_ends_when_the_time_is_over() -> None:
    """A frame alone, where there were two before, waits until the clock says that it has waited long enough."""
    now = [0.0]
    model, turns = Held(), Turns(2, 60.0)
    thread = ModelThread(turns, lambda frames, seconds: None, clock=lambda: now[0])
    turns._lately = 2
    thread.start(lambda: model)
    thread.ask(Frame(Image.new("RGB", (4, 4), (7, 0, 0)), "caller", 0.0))
    assert model.batches.empty()
    now[0] = 60.0
    with thread._changed:
        thread._changed.notify()
    assert model.batches.get(timeout=PATIENCE) == [7]
    model.go_on.put(None)
    thread.close()


def test_what_can_not_be_loaded_is_told_to_who_started_it() -> None:
    def load() -> Held:
        raise InputError("the adapter is damaged")

    with pytest.raises(InputError, match="the adapter is damaged"):
        ModelThread(Turns(1, 0.0), lambda frames, seconds: None).start(load)
