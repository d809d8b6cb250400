"""Answers are the same whatever passes through the card, and what does follows from the room there is, or is named."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from recipes import eval_qwen2vl, infer
from recipes.adapter.folder import find_adapter
from recipes.answering import adapted_model
from recipes.answering.adapted_model import choose_placement, load_for_frames
from recipes.answering.card_options import OnHost
from recipes.machine.answering_memory import PIECES_BYTES, predict_answering
from recipes.machine.memory import RESERVED
from tests.conftest import Kept

CARD = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("frames") / "frame.jpg"
    Image.radial_gradient("L").convert("RGB").save(path)
    return str(path)


@pytest.mark.parametrize("named", [("all", "all"), ("3", "0"), ("0", "5")])
def test_streamed_answer_is_the_plain_one(
    kept: Kept, frame: str, capfd: pytest.CaptureFixture[str], named: tuple[str, str]
) -> None:
    asked = ["--adapter", str(kept.run), "--image", frame, "--json"]
    streamed = ["--layers-on-host", named[0], "--vision-blocks-on-host", named[1]]
    said = []
    for flags in ([], streamed):
        assert infer.main([*asked, *flags]) == 0
        said.append(capfd.readouterr().out.partition('"latency_ms"')[0])
    assert '"p_unsafe"' in said[0] and said[0] == said[1]


def test_report_is_the_plain_one(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The base without its adapter, which the report compares with, included."""
    run = tmp_path / "run"
    shutil.copytree(kept.run, run)
    asked = ["--adapter", str(run), "--dataset", str(kept.data)]
    tables = []
    for flags in ([], ["--layers-on-host", "all"]):
        assert eval_qwen2vl.main([*asked, *flags]) == 0
        tables.append([line for line in capsys.readouterr().out.splitlines() if "latency" not in line])
    assert tables[0] == tables[1]


def test_what_streams_follows_from_the_card_s_room(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = find_adapter(kept.run)
    config = adapter.base.read_config()
    whole, layers = (
        RESERVED * GIB * predict_answering(adapter.values(), config, layers_on_host=count).card_gib for count in (0, 4)
    )
    assert layers < whole
    for room, expected in ((whole, (0, 0)), (layers, (4, 0)), (0, (4, 6))):
        monkeypatch.setattr(adapted_model, "free_memory", lambda device, room=room: room)
        frames, placement = choose_placement(adapter, CARD, 1, OnHost())
        assert frames == 1
        assert (placement.layers_on_host, placement.vision_blocks_on_host) == expected
        assert placement.embedding_on_host and placement.head_on_host
        passing = f"{expected[0]} decoder layers and {expected[1]} vision blocks pass through it from host memory\n"
        assert capsys.readouterr().err.endswith(passing if expected[0] else "")
    _, named = choose_placement(adapter, CARD, 1, OnHost("0", None))
    assert (named.layers_on_host, named.vision_blocks_on_host) == (0, 6)
    frames, on_cpu = choose_placement(adapter, torch.device("cpu"), 4, OnHost())
    assert (frames, on_cpu) == (4, type(on_cpu)())


def test_several_at_once_have_no_more_on_the_host_than_one(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single frame must not wait for weights that stay away only so that more frames fit."""
    adapter = find_adapter(kept.run)
    config = adapter.base.read_config()
    two = RESERVED * GIB * predict_answering(adapter.values(), config, frames=2, layers_on_host=4).card_gib
    monkeypatch.setattr(adapted_model, "choose_device", lambda: CARD)
    monkeypatch.setattr(adapted_model, "has_room_to_merge", lambda base, device: False)
    monkeypatch.setattr(adapted_model, "free_memory", lambda device: two + PIECES_BYTES + 1)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(adapted_model, "load_for_batches", lambda adapter, **how: asked.update(how))
    assert choose_placement(adapter, CARD, 2, OnHost())[1].layers_on_host > 0
    load_for_frames(adapter, frames=2)
    assert (asked["on_host"], asked["frames"]) == (OnHost("0", "0"), 2)


def test_report_on_a_card_too_small_for_its_batches_takes_smaller_ones(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adapted_model, "free_memory", lambda device: 0.0)
    frames, placement = choose_placement(find_adapter(kept.run), CARD, 4, OnHost("all", "all"))
    assert (frames, placement.layers_on_host) == (1, 4)
    assert capsys.readouterr().err == "the card has 0.0 GiB free: 1 of 4 frames are answered at once\n"


def test_card_that_runs_short_is_told_in_a_line(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(kept.run, run)

    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 130.00 MiB.")

    monkeypatch.setattr("recipes.answering.scoring.add_image_features", full)
    with pytest.raises(InputError, match="no memory left for 4 frames at once: close other programs"):
        eval_qwen2vl.main(["--adapter", str(run), "--dataset", str(kept.data)])
    assert not (run / "eval").exists()


def test_what_streams_is_not_compiled(kept: Kept) -> None:
    with pytest.raises(InputError, match="--compile is for a model that lies on the card whole"):
        load_for_frames(find_adapter(kept.run), compiled=True, on_host=OnHost("all", "0"))


@pytest.mark.parametrize("count", ["-1", "some", "1.5", ""])
def test_count_that_is_none_is_refused(kept: Kept, frame: str, count: str) -> None:
    with pytest.raises(InputError, match=f"--layers-on-host '{count}' is neither a whole number nor 'all'"):
        infer.main(["--adapter", str(kept.run), "--image", frame, f"--layers-on-host={count}"])
