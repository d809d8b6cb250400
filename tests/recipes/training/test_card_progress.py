"""How far a card has got: what of it needs no GPU."""

from collections.abc import Iterator

import pytest
import torch

from recipes.training import card_progress
from recipes.training.card_progress import LAYERS_LEFT, CardProgress, CardStuckError


class Event:
    """Stands for a CUDA event of a card that is asked so many times until it is there."""

    def __init__(self) -> None:
        self.recorded = 0
        self.asked: Iterator[bool] = iter([])

    def record(self, *_stream: object) -> None:
        self.recorded += 1
        self.asked = iter([False, False, True])

    def query(self) -> bool:
        return next(self.asked)


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a graph is captured; a card there isn't."""
    captured = [False]
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captured[0])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    return captured


def progress_of_layers(count: int = 14) -> tuple[CardProgress, list[torch.Tensor], Event]:
    weights = [torch.ones(2, requires_grad=True) for _ in range(count)]
    progress = CardProgress(weights)
    event = progress._near_the_end
    assert isinstance(event, Event)
    return progress, weights, event


def test_card_is_near_the_end_once_a_layer_close_to_it_has_its_gradient(capturing: list[bool]) -> None:
    progress, weights, event = progress_of_layers()
    for number in reversed(range(len(weights))):  # a backward pass
        weights[number].sum().backward()
        assert event.recorded == (number <= len(weights) * LAYERS_LEFT)
    progress.wait(lambda: False)
    assert event.recorded == 1
    assert list(event.asked) == []


def test_end_itself_is_waited_for_where_no_backward_pass_tells(capturing: list[bool]) -> None:
    """A captured graph is replayed without hooks; a process may have no frames of an update."""
    progress, weights, event = progress_of_layers()
    capturing[0] = True
    torch.stack(weights).sum().backward()
    assert event.recorded == 0
    progress.wait(lambda: False)
    assert event.recorded == 1
    progress.wait(lambda: False)
    assert event.recorded == 2


def test_weights_that_were_let_go_of_tell_nothing_more(capturing: list[bool]) -> None:
    progress, weights, event = progress_of_layers()
    progress.close()
    torch.stack(weights).sum().backward()
    assert event.recorded == 0


def test_card_that_waits_for_one_that_is_gone_is_told_of(
    capturing: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, _, event = progress_of_layers()
    monkeypatch.setattr(card_progress, "LAUNCHER_SECONDS", 0.01)
    monkeypatch.setattr(event, "query", lambda: False)
    with pytest.raises(CardStuckError, match="the last checkpoint stays, go on with --resume"):
        progress.wait(lambda: True)
