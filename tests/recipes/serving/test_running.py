"""How the service loads a model on a card, with a stand-in for both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from PIL import Image

from recipes.answering import adapted_model
from recipes.answering.card_options import AS_MANY_AS_MUST
from recipes.model import device
from recipes.model.device import CardFullError
from recipes.serving import running
from recipes.serving.turns import Turns


@dataclass
class OnACard:
    """A model that has room for so many frames, where a plan says `frames`."""

    room: int
    frames: int
    tried: list[int] = field(default_factory=list)

    def p_unsafe(self, images: Sequence[Image.Image]) -> list[float]:
        self.tried.append(len(images))
        if len(images) > self.room:
            raise CardFullError("full")
        return [0.5] * len(images)


def load(
    monkeypatch: pytest.MonkeyPatch, model: OnACard, most: int, kind: str = "cuda"
) -> tuple[Turns, dict[str, Any]]:
    """Load the stand-in for up to `most` frames at once; return what limits batches, and how it was loaded."""
    asked: dict[str, Any] = {}

    def load_for_frames(adapter: object, **how: Any) -> OnACard:
        asked.update(how)
        return model

    monkeypatch.setattr(adapted_model, "load_for_frames", load_for_frames)
    monkeypatch.setattr(device, "choose_device", lambda: torch.device(kind))
    turns = Turns(most, 0.0)
    adapter: Any = None
    score = running._load(adapter, turns, compiled=True, on_host=AS_MANY_AS_MUST)
    assert score([Image.new("RGB", (4, 4))]) == [0.5]
    return turns, asked


def test_each_size_of_batch_is_tried_before_the_service_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnACard(room=99, frames=12)
    turns, asked = load(monkeypatch, model, 12)
    assert model.tried == [1, 2, 4, 8, 12, 1]
    assert (turns.most, asked["frames"], asked["compiled"]) == (12, 12, True)


def test_plan_of_fewer_frames_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnACard(room=99, frames=2)
    turns, _ = load(monkeypatch, model, 8)
    assert (turns.most, model.tried) == (2, [1, 2, 1])


def test_batches_that_do_not_fit_are_not_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns, _ = load(monkeypatch, OnACard(room=5, frames=8), 8)
    assert turns.most == 4
    assert capsys.readouterr().err == "the card has no memory for 8 frames at once: 4 are answered\n"


def test_card_without_room_for_one_frame_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CardFullError):
        load(monkeypatch, OnACard(room=0, frames=8), 8)


def test_cpu_tries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnACard(room=99, frames=8)
    assert load(monkeypatch, model, 8, "cpu")[0].most == 8
    assert model.tried == [1]
