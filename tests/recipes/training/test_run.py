from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

from data_prep.errors import InputError
from data_prep.hub.source import FramesSource
from recipes.model.base import find_base
from recipes.training.command_line import read_settings
from recipes.training.run import Run, only_prompt, prepare_run
from tests.tiny_data import many_clips, write_data


@pytest.fixture(scope="module")
def flags(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("run")
    changed = {
        "model_name_or_path": small_base,
        "dataset": write_data(folder / "data", many_clips()),
        "output_dir": folder / "run",
    }
    named = [part for name, value in changed.items() for part in (f"--{name}", str(value))]
    return ["--config", "recipes/configs/demo_cpu.yaml", *named]


def prepare(flags: list[str]) -> Run:
    settings = read_settings(flags)
    return prepare_run(settings, find_base(settings.values["model_name_or_path"]))


def test_record_holds_what_is_computed_from_and_no_path_of_this_machine(flags: list[str]) -> None:
    run = prepare(flags)
    record = run.record()
    assert (record["base_revision"], record["dataset_hash"]) == (run.base.revision, run.source.content_hash)
    assert (record["learning_rate"], record["lora_r"], record["threshold"]) == (1e-3, run.model.lora_r, "0.5")
    assert "output_dir" not in record
    assert (run.folder.path, run.dtype) == (Path(flags[-1]), torch.float32)


@pytest.mark.parametrize(("balanced", "prior"), [(True, 0.5), (False, 0.75)])
def test_unsafe_s_share_of_the_loss_is_half_or_that_of_the_rows(flags: list[str], balanced: bool, prior: float) -> None:
    rows = {"response": ["UNSAFE", "UNSAFE", "SAFE", "UNSAFE"]}
    source: Any = SimpleNamespace(rows=lambda split: rows)
    run = replace(prepare([*flags, "--balance_labels", str(balanced)]), source=source)
    assert run.training_prior == prior


@pytest.mark.parametrize(
    ("more", "batches"),
    [
        (["--dataloader_num_workers", "4", "--gradient_accumulation_steps", "16"], 4),
        (["--dataloader_num_workers", "4", "--gradient_accumulation_steps", "1"], 2),
        (["--dataloader_num_workers", "1", "--dataloader_prefetch_factor", "3"], 3),
        (["--dataloader_num_workers", "0"], None),
    ],
)
def test_loading_processes_have_an_update_s_batches_ready(
    flags: list[str], more: list[str], batches: int | None
) -> None:
    assert prepare([*flags, *more]).training.dataloader_prefetch_factor == batches


def test_rows_that_ask_several_things_are_refused() -> None:
    def asking(*prompts: str) -> FramesSource:
        rows = Dataset.from_dict({"prompt": prompts})
        return FramesSource(DatasetDict({"train": rows}), "local/tiny", None, "ab")

    assert only_prompt(asking("SAFE?", "SAFE?")) == "SAFE?"
    with pytest.raises(InputError, match="'local/tiny' asks 2 different prompts; an adapter answers one"):
        only_prompt(asking("SAFE?", "UNSAFE?"))
    with pytest.raises(InputError, match=r"data set 'local/tiny': the prompt holds '<\|image_pad\|>'"):
        only_prompt(asking("SAFE? <|image_pad|>"))
    assert only_prompt(asking("SAFE? " * 500)), "however long what was pushed before is"
