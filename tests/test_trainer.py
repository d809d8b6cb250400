"""Training runs in one process, on frames of 16 x 12 pixels: importing TRL alone takes as long as all of them."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import log_softmax
from transformers import TrainerCallback

from data_prep.errors import InputError
from data_prep.hub_cache import open_dataset
from recipes import sft_qwen2vl
from recipes.checkpoints import is_whole
from recipes.metrics import class_ids, compute_figures
from recipes.safety_record import read_record
from recipes.scoring import score_rows
from recipes.sigterm import EXIT_STATUS
from tests.tiny_data import many_clips, write_data

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("frames"), many_clips())


@pytest.fixture(scope="module")
def settings(data: Path, small_base: Path) -> list[str]:
    """The demo's YAML, shortened, with dropout, so that a run resumed with the wrong random state would show."""
    changed = {
        "model_name_or_path": small_base,
        "dataset": data,
        "max_steps": STEPS,
        "eval_steps": 2,
        "save_steps": 2,
        "save_total_limit": 3,
        "logging_steps": 1,
        "lora_dropout": 0.1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
    }
    flags = [part for name, value in changed.items() for part in (f"--{name}", str(value))]
    return ["--config", "recipes/configs/demo_cpu.yaml", *flags]


def train(settings: list[str], folder: Path, *more: str) -> int:
    return sft_qwen2vl.main([*settings, "--output_dir", str(folder), *more])


@pytest.fixture(scope="module")
def finished(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert train(settings, folder) == 0
    return folder


class SignalAfter(TrainerCallback):
    """Send this very process a signal at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def interrupt(monkeypatch: pytest.MonkeyPatch, after_step: int) -> None:
    build = sft_qwen2vl.build_trainer

    def build_interrupted(run: Any) -> Any:
        trainer = build(run)
        trainer.add_callback(SignalAfter(after_step))
        return trainer

    monkeypatch.setattr(sft_qwen2vl, "build_trainer", build_interrupted)


def test_finished_run_holds_adapter_processor_and_record(finished: Path, data: Path, small_base: Path) -> None:
    record = read_record(finished)
    assert record.dataset_hash == open_dataset(str(data)).content_hash
    assert (record.max_pixels, record.threshold, record.load_in_4bit) == (100352, 0.5, True)
    adapter = load_file(finished / "adapter_model.safetensors")
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert all(weight.abs().max() > 0 for weight in adapter.values()), "lora_B starts at zero; all must have moved"
    assert not list(finished.glob("*.bin"))
    assert (finished / "tokenizer.json").is_file()
    assert json.loads((finished / "training.json").read_text())["steps"] == STEPS


def test_best_checkpoint_is_the_one_saved(finished: Path) -> None:
    summary = json.loads((finished / "training.json").read_text())
    logged = {entry["step"]: entry["eval_macro_f1"] for entry in summary["log_history"] if "eval_macro_f1" in entry}
    assert sorted(logged) == [2, 4, 6]
    assert summary["best_metric"] == max(logged.values())
    best = finished / f"checkpoint-{summary['best_step']}"
    saved = (finished / "adapter_model.safetensors").read_bytes()
    assert (best / "adapter_model.safetensors").read_bytes() == saved


def test_logged_figures_are_those_of_scoring(finished: Path, data: Path) -> None:
    from recipes.adapted_model import load_adapted
    from recipes.safety_record import find_base_of

    summary = json.loads((finished / "training.json").read_text())
    logged = next(
        entry for entry in summary["log_history"] if entry["step"] == summary["best_step"] and "eval_macro_f1" in entry
    )
    record = read_record(finished)
    adapted = load_adapted(finished, record, find_base_of(finished, record))
    rows = open_dataset(str(data)).rows("validation")
    p_unsafe = score_rows(adapted.model, adapted.collator, rows, batch_size=3)
    figures = compute_figures(p_unsafe, class_ids(rows["response"]), threshold=0.5)
    assert {name: logged[f"eval_{name}"] for name in figures} == pytest.approx(figures, abs=1e-5)


def test_sigterm_saves_and_a_resumed_run_reaches_the_same_weights(
    settings: list[str],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        interrupt(patched, after_step=2)
        assert train(settings, run) == EXIT_STATUS == 143
    assert "stopped by SIGTERM at step 3, checkpoint saved; go on with --resume" in capsys.readouterr().err
    assert is_whole(run / "checkpoint-3")
    assert not (run / "safety.json").exists()

    (run / "checkpoint-4").mkdir()  # what a save that was cut off leaves
    (run / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4')
    assert train(settings, run, "--resume") == 0
    said = capsys.readouterr().err
    assert "checkpoint-4 is torn: its save was cut off; passing it over" in said
    assert "resuming from checkpoint-3" in said
    expected, resumed = (load_file(folder / "checkpoint-6" / "adapter_model.safetensors") for folder in (finished, run))
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)

    # Killed after the last checkpoint and before the adapter stood beside it: nothing is left to train.
    adapter = (run / "adapter_model.safetensors").read_bytes()
    for name in ("safety.json", "adapter_model.safetensors"):
        (run / name).unlink()
    assert train(settings, run, "--resume") == 0
    assert "resuming from checkpoint-6" in capsys.readouterr().err
    assert (run / "adapter_model.safetensors").read_bytes() == adapter
    assert read_record(run) == read_record(finished)


def test_resuming_a_finished_run_changes_nothing(
    settings: list[str], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert train(settings, finished, "--resume") == 0
    assert "finished already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_resuming_with_other_settings_or_data_is_refused(settings: list[str], finished: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=re.escape("--resume: learning_rate was 0.001 when finished began and is 0.01")
    ):
        train(settings, finished, "--resume", "--learning_rate", "0.01")
    other = write_data(tmp_path / "other", many_clips(train_per_class=4))
    with pytest.raises(InputError, match="--resume: dataset"):
        train(settings, finished, "--resume", "--dataset", str(other))


def test_misspelt_setting_is_refused(settings: list[str], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model_name_or_path: x\noutput_dir: y\nbf16: false\nuse_cpu: true\nlearning_rat: 1\n")
    with pytest.raises(InputError, match="learning_rat"):
        sft_qwen2vl.prepare_run(["--config", str(config)], None)  # type: ignore[arg-type]


def test_every_adapter_matrix_gets_a_gradient_with_all_memory_savers_on(settings: list[str], tmp_path: Path) -> None:
    savers = ["--activation_checkpointing", "true", "--embedding_on_host", "true"]
    trainer = build(settings, tmp_path, *savers)
    assert gradients(trainer, batch_of(trainer)).keys() == {
        name for name, weight in trainer.model.named_parameters() if weight.requires_grad
    }
    assert len(gradients(trainer, batch_of(trainer))) == 2 * 7 * 2


def test_memory_savers_change_no_gradient(settings: list[str], tmp_path: Path) -> None:
    plain = build(settings, tmp_path / "plain")
    saving = build(settings, tmp_path / "saving", "--activation_checkpointing", "true", "--embedding_on_host", "true")
    expected, found = (gradients(trainer, batch_of(trainer)) for trainer in (plain, saving))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-7)


def test_evaluating_changes_no_gradient(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path)
    expected = gradients(trainer, batch_of(trainer))
    trainer.evaluate()
    found = gradients(trainer, batch_of(trainer))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_loss_is_the_weighted_mean_over_rows_of_all_positions(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path)
    trainer.model.eval()
    batch = batch_of(trainer)
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "loss_weights")}
    with torch.no_grad():
        log_p = log_softmax(trainer.model(**inputs).logits.float(), dim=-1)
        loss = trainer.compute_loss(trainer.model, batch)
    expected = 0.0
    for row in range(len(batch["labels"])):
        for position in (batch["loss_weights"][row] > 0).nonzero().flatten().tolist():
            token = batch["labels"][row, position]
            expected -= float(batch["loss_weights"][row, position] * log_p[row, position - 1, token])
    assert float(loss) == pytest.approx(expected / len(batch["labels"]), rel=1e-5)


def test_gradient_into_the_vision_tower_is_an_error(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path)
    visual = trainer.model.get_base_model().model.visual
    visual.patch_embed.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))
    with pytest.raises(RuntimeError, match="the vision tower is frozen"):
        trainer.compute_loss(trainer.model, batch_of(trainer))


def build(settings: list[str], folder: Path, *more: str) -> Any:
    """Set a trainer up without training, with activation checkpointing switched on as train() would."""
    from recipes.base_model import find_base
    from recipes.run_settings import read_inputs, with_default_config

    argv = with_default_config([*settings, "--lora_dropout", "0", "--output_dir", str(folder), *more])
    trainer = sft_qwen2vl.build_trainer(sft_qwen2vl.prepare_run(argv, find_base(read_inputs(argv).model_name_or_path)))
    if trainer.args.activation_checkpointing:
        trainer.model.activation_checkpointing_enable(trainer.args.activation_checkpointing_kwargs)
    return trainer


def batch_of(trainer: Any) -> dict[str, torch.Tensor]:
    rows = [trainer.train_dataset[index] for index in (0, len(trainer.train_dataset) - 1)]
    assert {row["response"] for row in rows} == {"SAFE", "UNSAFE"}
    return trainer.data_collator(rows)


def gradients(trainer: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the gradients of one batch. lora_B is set off zero first, or lora_A's would all be zero."""
    generator = torch.Generator().manual_seed(0)
    trainer.model.train()
    trainer.model.zero_grad()
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    trainer.compute_loss(trainer.model, batch).backward()
    found = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    assert all(np.isfinite(float(gradient.norm())) and gradient.norm() > 0 for gradient in found.values())
    return found
