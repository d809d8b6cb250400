"""A card that runs out of memory in the middle of a run: the same adapter by smaller steps, or a clear end."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes import sft_qwen2vl
from recipes.batches.parts import parts_of
from recipes.metrics.seen_rows import read_seen_rows
from recipes.model.device import memory_told
from recipes.training import trainer
from tests.tiny_data import many_clips, write_data

FULL = "CUDA out of memory. Tried to allocate 130.00 MiB."


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """The demo's YAML with two updates of two micro-batches of four tiny frames."""
    folder = tmp_path_factory.mktemp("fitting")
    demo = yaml.safe_load((PROJECT_ROOT / "recipes/configs/demo_cpu.yaml").read_text())
    lines = {
        "dataset": str(write_data(folder / "data", many_clips())),
        "model_name_or_path": str(small_base),
        "max_pixels": 12544,
        "max_steps": 2,
        "warmup_steps": 0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "eval_steps": 2,
        "save_steps": 2,
        "linear_probe": False,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**demo, **lines}))
    return path


@cache
def plain(config: Path, *flags: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return the adapter and the losses of a run whose card holds all."""
    run = config.parent / "-".join(["plain", *flags]).replace("-", "")
    return trained(config, run, *flags), losses(run)


def losses(run: Path) -> list[float]:
    log = json.loads((run / "training.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def trained(config: Path, run: Path, *flags: str) -> dict[str, torch.Tensor]:
    assert sft_qwen2vl.main(["--config", str(config), "--output_dir", str(run), *flags]) == 0
    return load_file(run / "adapter_model.safetensors")


def card_that_holds(rows: int, calls: list[int], monkeypatch: pytest.MonkeyPatch, *, backward: bool) -> None:
    """Have losses of more rows run out of memory from the third on, forward, or in the middle of going backward."""
    whole: Callable[..., tuple[torch.Tensor, torch.Tensor]] = trainer.answer_loss

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError(FULL)

    def limited(model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(inputs["labels"]))
        if len(calls) < 4 or calls[-1] <= rows:
            return whole(model, inputs)
        if not backward:
            full()
        hook = model.model.language_model.layers[1].register_forward_hook(
            lambda _module, _inputs, output: output.register_hook(full) and None
        )
        found = whole(model, inputs)
        hook.remove()
        return found

    monkeypatch.setattr(trainer, "answer_loss", limited)


@pytest.mark.parametrize(
    ("flags", "backward"),
    [((), False), ((), True), (("--optimizer_on_host",), True), (("--layers_on_host", "all"), True)],
)
def test_adapter_is_the_same_by_smaller_steps(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    backward: bool,
) -> None:
    expected, expected_losses = plain(config, *flags)
    capsys.readouterr()
    calls: list[int] = []
    card_that_holds(1, calls, monkeypatch, backward=backward)
    found = trained(config, tmp_path / "short", *flags)
    assert calls[:4] == [4] * 4 and calls[4:6] == [2, *calls[5:6]]
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-6)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("the card ran out")]
    assert said == [
        "the card ran out of memory at update 2, with 4 frames at once: doing it again with 2",
        "the card ran out of memory at update 2, with 2 frames at once: doing it again with 1",
    ]
    assert losses(tmp_path / "short") == pytest.approx(expected_losses, rel=1e-4)
    noted = read_seen_rows(tmp_path / "short")
    assert noted is not None and noted.update.tolist() == [1] * 8 + [2] * 8
    assert len(set(noted.row.tolist())) == 16, "each row once, though some were computed three times"


def test_card_that_holds_no_frame_ends_the_run_with_a_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = plain(config)
    run, calls = tmp_path / "short", list[int]()
    card_that_holds(0, calls, monkeypatch, backward=False)
    with pytest.raises(InputError) as error:
        trained(config, run)
    assert str(error.value) == (
        "the card ran out of memory at update 2, with 1 frames at once, as it did 2 times before: checkpoint-1 is "
        "saved; end what else uses the card, and go on with --resume"
    )
    assert (run / "checkpoint-1").is_dir() and not (run / "safety.json").exists()
    monkeypatch.undo()
    found = trained(config, run, "--resume")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-8)


def test_before_the_first_update_there_is_nothing_to_save(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card_that_holds(0, [0, 0, 0], monkeypatch, backward=False)
    with pytest.raises(
        InputError, match="at update 1, with 1 frames at once, as it did 2 times before: nothing was tr"
    ):
        trained(config, tmp_path / "run")


def test_validation_that_finds_the_card_full_leaves_a_checkpoint(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        with memory_told(16):
            raise torch.OutOfMemoryError(FULL)

    run = tmp_path / "run"
    monkeypatch.setattr(trainer, "score_rows", full)
    with pytest.raises(InputError, match=r"validation: the card has no memory left for 16 frames at once: .*; checkpo"):
        trained(config, run, "--eval_steps", "1", "--save_steps", "1")
    assert (run / "checkpoint-1").is_dir()
    monkeypatch.undo()
    trained(config, run, "--eval_steps", "1", "--save_steps", "1", "--resume")


def batch(rows: int) -> dict[str, torch.Tensor]:
    grids = torch.tensor([[1, 2, 4], [1, 4, 4], [1, 2, 2], [1, 4, 2], [1, 2, 2]])[:rows]
    patches = int(grids.prod(dim=1).sum())
    return {
        "labels": torch.arange(rows * 2).view(rows, 2),
        "input_ids": torch.arange(rows * 7).view(rows, 7),
        "position_ids": torch.arange(3 * rows * 7).view(3, rows, 7),
        "image_grid_thw": grids,
        "pixel_values": torch.arange(patches),
    }


def parts() -> Iterator[tuple[int, int, list[int]]]:
    yield 5, 2, [2, 2, 1]
    yield 5, 1, [1] * 5
    yield 4, 3, [3, 1]
    yield 4, 4, [4]
    yield 3, 8, [3]


@pytest.mark.parametrize(("rows", "at_once", "sizes"), parts())
def test_parts_are_the_whole(rows: int, at_once: int, sizes: list[int]) -> None:
    whole = batch(rows)
    found = parts_of(whole, at_once)
    assert [len(part["labels"]) for part in found] == sizes
    for name, tensor in whole.items():
        joined = torch.cat([part[name] for part in found], dim=1 if name == "position_ids" else 0)
        assert torch.equal(joined, tensor), name
    for part in found:
        assert len(part["pixel_values"]) == int(part["image_grid_thw"].prod(dim=1).sum())


def test_kept_features_go_with_their_frames() -> None:
    whole = batch(5)
    tokens = len(whole.pop("pixel_values")) // 4
    found = parts_of({**whole, "image_features": torch.arange(tokens)}, 2)
    assert [len(part["image_features"]) for part in found] == [6, 3, 1]
    assert torch.equal(torch.cat([part["image_features"] for part in found]), torch.arange(tokens))
