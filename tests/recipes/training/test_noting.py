"""What a run notes of its rows: the loss's own log-odds, once a sighting, whatever interrupts it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from benchmarks.measuring.recipe_arguments import recipe_arguments
from data_prep.hub.source import open_dataset
from data_prep.labels import LABELS, TRAIN
from recipes.metrics.seen_rows import SeenRows, read_seen_rows
from recipes.training.checkpoints import seal
from recipes.training.noting import LogOddsNotes
from recipes.training.trainer import SafetyTrainer
from tests.recipes.training.test_trainer import (
    OF_THE_LOSS,
    OPTIONS,
    TOGETHER,
    batch_of,
    build,
    set_weights,
    train,
    with_graphs,
)
from tests.tiny_data import many_clips, write_data

ROWS = 32  # that training sees of many_clips, in updates of eight: six updates are an epoch and a half


@pytest.fixture(scope="module")
def settings(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The demo's YAML, shortened."""
    changed = {
        "model_name_or_path": small_base,
        "dataset": write_data(tmp_path_factory.mktemp("frames"), many_clips()),
        "max_steps": 6,
        "eval_steps": 2,
        "save_steps": 2,
        "save_total_limit": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "cache_vision_features": False,
        "linear_probe": False,
        "report_to": "none",
    }
    return recipe_arguments("recipes/configs/demo_cpu.yaml", changed)


@pytest.fixture(scope="module")
def finished(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert train(settings, folder) == 0
    return folder


def table(of: SeenRows | None) -> list[tuple[int, int, float]]:
    assert of is not None
    return sorted(zip(of.update.tolist(), of.row.tolist(), of.log_odds.tolist(), strict=True))


def test_notes_are_kept_in_order_and_those_after_a_checkpoint_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.training.noting._MOST_WAITING", 2)
    notes = LogOddsNotes()
    for update in range(1, 8):
        notes.note(torch.tensor([update, 9]), update, torch.tensor([0.5 * update, -1.0]))
        if update == 4:
            checkpoint = notes.collect()
    assert table(notes.collect()) == sorted(
        entry for update in range(1, 8) for entry in ((update, update, 0.5 * update), (update, 9, -1.0))
    )
    notes.note(torch.tensor([3]), 8, torch.tensor([2.0]))
    notes.go_on_from(checkpoint)
    notes.note(torch.tensor([7]), 5, torch.tensor([3.0]))
    assert table(notes.collect()) == [*table(checkpoint), (5, 7, 3.0)]
    notes.go_on_from(None)
    assert len(notes.collect()) == 0


@pytest.fixture(scope="module")
def expected(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The log-odds of a batch's labels, from transformers' own forward pass and every logit."""
    trainer = build(settings, tmp_path_factory.mktemp("plain"))
    set_weights(trainer)
    batch = batch_of(trainer)
    inputs = {name: tensor for name, tensor in batch.items() if name not in OF_THE_LOSS}
    with torch.no_grad():
        logits = trainer.model(**inputs, use_cache=False).logits.float()
    log_p = log_softmax(logits[:, -batch["labels"].shape[1] - 1], dim=-1)
    firsts = [trainer.data_collator.answer_ids[label][0] for label in LABELS]
    of_label = [LABELS.index(trainer.train_dataset[int(row)]["response"]) for row in batch["row"]]
    return np.array([float(p[firsts[label]] - p[firsts[1 - label]]) for p, label in zip(log_p, of_label, strict=True)])


def test_update_that_is_computed_again_is_noted_once() -> None:
    notes = LogOddsNotes()
    notes.note(torch.tensor([3, 1]), 1, torch.tensor([0.5, -0.5]))
    notes.note(torch.tensor([2]), 2, torch.tensor([7.0]))
    notes.forget(2)
    notes.forget(2)
    notes.note(torch.tensor([2, 0]), 2, torch.tensor([1.0, 2.0]))
    seen = notes.collect()
    assert (seen.row.tolist(), seen.update.tolist()) == ([3, 1, 2, 0], [1, 1, 2, 2])
    assert seen.log_odds.tolist() == [0.5, -0.5, 1.0, 2.0]
    notes.forget(3)
    assert len(notes.collect()) == 4


@pytest.mark.parametrize(
    "options",
    [[], OPTIONS["head_on_host"], TOGETHER, ["graphed"]],
    ids=["plain", "head on the host", "all together", "as a graph"],
)
def test_log_odds_are_those_of_every_logit(
    settings: list[str],
    tmp_path: Path,
    expected: np.ndarray,
    options: list[str],
) -> None:
    flags = [] if options == ["graphed"] else options
    trainer = build(settings, tmp_path / "run", "--vision_cache", str(tmp_path / "vision"), *flags)
    set_weights(trainer)
    if options == ["graphed"]:
        trainer.graphed = with_graphs(trainer)
    batch = batch_of(trainer)
    trainer.model.train()
    trainer.state.global_step = 6
    for _ in range(4):  # a graph's replays among them
        trainer.current_gradient_accumulation_steps = 1
        trainer.training_step(trainer.model, batch, len(batch["labels"]))
    seen = trainer.notes.collect()
    assert seen.row.tolist() == [0, len(trainer.train_dataset) - 1] * 4
    assert set(seen.update.tolist()) == {7}
    np.testing.assert_allclose(seen.log_odds.reshape(4, 2), np.tile(expected, (4, 1)), rtol=1e-3, atol=1e-4)
    assert (np.abs(expected) > 0.01).all() and len({*expected.round(3)}) == 2


@pytest.fixture(scope="module")
def noted(finished: Path) -> list[tuple[int, int, float]]:
    """What the uninterrupted run noted."""
    return table(read_seen_rows(finished))


def test_run_notes_each_row_once_an_epoch(finished: Path, noted: list[tuple[int, int, float]]) -> None:
    assert [update for update, _, _ in noted] == [update for update in range(1, 7) for _ in range(8)]
    assert {row for update, row, _ in noted if update <= 4} == set(range(ROWS))
    assert len({row for update, row, _ in noted if update > 4}) == 16
    assert table(read_seen_rows(finished / "checkpoint-4")) == noted[:ROWS]


class KilledError(BaseException):
    """What no code on the way out may catch."""


def test_run_that_is_killed_after_a_checkpoint_notes_nothing_twice(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: list[tuple[int, int, float]]
) -> None:
    """Killed in the fourth update, after the checkpoint of the second: the third and fourth are noted anew."""
    step = SafetyTrainer.training_step

    def killed(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 3 and len(trainer.notes.collect()) > 24:
            raise KilledError
        return step(trainer, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(SafetyTrainer, "training_step", killed)
        with pytest.raises(KilledError):
            train(settings, tmp_path / "run")
    assert read_seen_rows(tmp_path / "run") is None
    assert train(settings, tmp_path / "run", "--resume") == 0
    assert table(read_seen_rows(tmp_path / "run")) == noted


def test_run_that_an_earlier_version_began_notes_from_there_on(
    settings: list[str], tmp_path: Path, finished: Path, noted: list[tuple[int, int, float]]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    for path in run.iterdir():
        if path.is_file() and path.name != "run.json":
            path.unlink()
    shutil.rmtree(run / "checkpoint-6")
    (run / "checkpoint-4" / "log_odds.safetensors").unlink()
    seal(run / "checkpoint-4")
    assert train(settings, run, "--resume") == 0
    assert table(read_seen_rows(run)) == noted[ROWS:]


def test_numbers_are_those_of_the_data_set_s_rows(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path)
    dataset = settings[settings.index("--dataset") + 1]
    rows = open_dataset(dataset).rows(TRAIN)
    numbered = trainer.train_dataset
    assert numbered["row"][:] == list(range(len(rows))) == list(range(ROWS))
    for name in ("clip", "sample", "response"):
        assert numbered[name][:] == rows[name][:]
    assert numbered[5]["image"] == rows[5]["image"]
