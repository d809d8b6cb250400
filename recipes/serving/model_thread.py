"""The one thread that runs the model, and answers what waits in batches."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread

from PIL import Image

from data_prep.errors import InputError, printable
from recipes.model.device import CardFullError
from recipes.serving.turns import Frame, Turns

Score = Callable[[Sequence[Image.Image]], list[float]]
Clock = Callable[[], float]


class ModelThread:
    """Loads a model and answers frames with it, in a thread of its own.

    No other thread may enter a maths library: each that does gets a team of threads, and the teams spin for each
    other. `batch_done` is told of each batch's frames and seconds, in that thread. `seconds_a_frame` is the last
    batch's; `failing` says that it ended in an error that no frame explains.
    """

    def __init__(
        self, turns: Turns, batch_done: Callable[[int, float], None], *, clock: Clock = time.monotonic
    ) -> None:
        self.seconds_a_frame = 0.0
        self.failing = False
        self._turns = turns
        self._batch_done = batch_done
        self._clock = clock
        self._changed = Condition()
        self._closing = False
        self._free_since = 0.0
        self._thread: Thread | None = None

    def start(self, load: Callable[[], Score]) -> None:
        """Start the thread and wait until the model is loaded. Raises what `load` raises."""
        loaded: Future[None] = Future()
        self._thread = Thread(target=self._work, args=(load, loaded), name="model", daemon=True)
        self._thread.start()
        loaded.result()

    def ask(self, frame: Frame) -> None:
        """Have a frame answered; its future gets P(UNSAFE), or the exception there is instead."""
        with self._changed:
            self._turns.add(frame)
            self._changed.notify()

    def close(self) -> None:
        """Answer all that waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def _work(self, load: Callable[[], Score], loaded: "Future[None]") -> None:
        try:
            score = load()
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(None)
        while (frames := self._next()) is not None:
            if frames:
                self._answer(score, frames)

    def _next(self) -> list[Frame] | None:
        """Return the next batch, which may be empty, once it is due; None where nothing will come any more."""
        with self._changed:
            while (due := self._turns.due(self._clock(), self._free_since)) != 0:
                if due is None and self._closing:
                    return None
                if self._closing:
                    break
                self._changed.wait(due)
            return self._turns.take()

    def _answer(self, score: Score, frames: list[Frame]) -> None:
        began = self._clock()
        try:
            outcomes = self._scored(score, [frame.image for frame in frames])
            self.failing = False
        except Exception as error:  # whatever it is, those who wait are told, and the next batch may do better
            self.failing = True
            print(f"error: the model failed ({type(error).__name__}: {printable(str(error))})", file=sys.stderr)
            outcomes = [error] * len(frames)
        self._free_since = self._clock()
        seconds = self._free_since - began
        self.seconds_a_frame = seconds / len(frames)
        self._batch_done(len(frames), seconds)
        for frame, outcome in zip(frames, outcomes, strict=True):
            if isinstance(outcome, Exception):
                frame.p_unsafe.set_exception(outcome)
            else:
                frame.p_unsafe.set_result(outcome)

    def _scored(self, score: Score, images: Sequence[Image.Image]) -> list[float | Exception]:
        """Return P(UNSAFE) of each image, or the InputError in its place, which costs no other frame its answer.

        Where a card's memory is too short for so many at once, half as many are taken from here on.
        """
        try:
            return [*score(images)]
        except InputError as error:
            if len(images) == 1:
                return [error]
            half = len(images) // 2
            if isinstance(error, CardFullError) and half < self._turns.most:
                self._turns.most = half
                print(f"the card has no memory for {len(images)} frames at once: {half} from here on", file=sys.stderr)
            return self._scored(score, images[:half]) + self._scored(score, images[half:])
