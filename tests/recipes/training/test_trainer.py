"""Training runs in one process, on frames of 16 x 12 pixels: importing TRL alone takes as long as all of them."""

import json
import os
import re
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from safetensors.torch import load_file
from torch.nn.functional import log_softmax
from transformers import TrainerCallback
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2MLP,
    Qwen2VLAttention,
    Qwen2VLDecoderLayer,
    Qwen2VLRMSNorm,
    VisionAttention,
)

from data_prep.errors import InputError
from data_prep.hub.source import open_dataset
from data_prep.locks import hold_lock
from recipes import sft_qwen2vl
from recipes.adapter.safety_record import read_record
from recipes.answering.scoring import Scorer, score_rows
from recipes.layers.fused_lora import FusedLinear, FusedLinear4bit, FusedMlp
from recipes.layers.fused_modules import FrameAttention, FusedRMSNorm, LastDecoderLayer
from recipes.layers.joined_lora import JoinedLoraAttention, JoinedLoraMlp
from recipes.machine.schedule import updates_of
from recipes.metrics.class_ids import class_ids
from recipes.metrics.linear_probe import read_probe
from recipes.metrics.safety_metric import compute_figures
from recipes.metrics.threshold import choose_threshold
from recipes.model.base import find_base
from recipes.training import session
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.checkpoints import is_whole
from recipes.training.command_line import read_settings
from recipes.training.graphed_step import GraphedStep
from recipes.training.run import Run, prepare_run
from tests.recipes.model.test_cuda_graphs import Graphs
from tests.tiny_data import many_clips, write_data

STEPS = 6
PLAIN_CLASSES = {
    FusedLinear: PeftLinear,
    FusedLinear4bit: PeftLinear4bit,
    FusedMlp: Qwen2MLP,
    JoinedLoraMlp: Qwen2MLP,
    JoinedLoraAttention: Qwen2VLAttention,
    FusedRMSNorm: Qwen2VLRMSNorm,
    FrameAttention: VisionAttention,
    LastDecoderLayer: Qwen2VLDecoderLayer,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("frames"), many_clips())


@pytest.fixture(scope="module")
def settings(data: Path, small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The demo's YAML, shortened, with dropout, so that a run resumed with the wrong random state would show."""
    changed = {
        "model_name_or_path": small_base,
        "dataset": data,
        "max_steps": STEPS,
        "eval_steps": 2,
        "save_steps": 2,
        "save_total_limit": 2,
        "logging_steps": 1,
        "lora_dropout": 0.1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "cache_vision_features": False,
        "vision_cache": tmp_path_factory.mktemp("vision"),
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

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


def interrupt(monkeypatch: pytest.MonkeyPatch, after_step: int, number: signal.Signals = signal.SIGTERM) -> None:
    build = session.build_trainer

    def build_interrupted(run: Any) -> Any:
        trainer = build(run)
        trainer.add_callback(SignalAfter(after_step, number))
        return trainer

    monkeypatch.setattr(session, "build_trainer", build_interrupted)


def test_finished_run_holds_adapter_processor_and_record(finished: Path, data: Path, small_base: Path) -> None:
    record = read_record(finished)
    assert record.dataset_hash == open_dataset(str(data)).content_hash
    assert (record.max_pixels, record.threshold, record.load_in_4bit) == (100352, 0.5, True)
    adapter = load_file(finished / "adapter_model.safetensors")
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert all(weight.abs().max() > 0 for weight in adapter.values()), "lora_B starts at zero; all must have moved"
    assert not list(finished.glob("*.bin"))
    card = (finished / "README.md").read_text()
    assert record.dataset_hash in card
    assert "More Information Needed" not in card
    assert (finished / "tokenizer.json").is_file()
    assert read_probe(finished) is not None
    assert (finished / "training.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished / "tensorboard").iterdir())
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
    from recipes.adapter.folder import find_adapter
    from recipes.answering.adapted_model import load_for_batches

    summary = json.loads((finished / "training.json").read_text())
    logged = next(
        entry for entry in summary["log_history"] if entry["step"] == summary["best_step"] and "eval_macro_f1" in entry
    )
    adapted = load_for_batches(find_adapter(finished))
    rows = open_dataset(str(data)).rows("validation")
    p_unsafe = score_rows(adapted.model, adapted.collator, rows, batch_size=3)
    figures = compute_figures(p_unsafe, class_ids(rows["response"]), threshold=0.5)
    assert {name: logged[f"eval_{name}"] for name in figures} == pytest.approx(figures, abs=1e-5)


def test_run_that_no_longer_improves_ends_early_where_that_is_asked_for(settings: list[str], tmp_path: Path) -> None:
    """With a learning rate that changes next to nothing, the second validation can't be better than the first."""
    flags = ["--learning_rate", "1e-12", "--early_stopping_patience", "1", "--linear_probe", "false"]
    assert train(settings, tmp_path / "run", *flags) == 0
    summary = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (summary["steps"], summary["best_step"]) == (4, 2)
    assert read_record(tmp_path / "run").training_prior == 0.5
    assert not (tmp_path / "run" / "linear_probe.safetensors").exists()


def test_threshold_is_chosen_on_the_validation_frames(
    settings: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from recipes.adapter.folder import find_adapter
    from recipes.answering.adapted_model import load_for_batches

    run = tmp_path / "run"
    assert train(settings, run, "--threshold", "recall>=0.9") == 0
    record = read_record(run)
    assert f"threshold {record.threshold:.4g}: {record.threshold_from}" in capsys.readouterr().err
    adapted = load_for_batches(find_adapter(run))
    rows = open_dataset(str(data)).rows("validation")
    p_unsafe, truth = score_rows(adapted.model, adapted.collator, rows, batch_size=3), class_ids(rows["response"])
    threshold, reason = choose_threshold("recall>=0.9", p_unsafe, truth)
    assert (record.threshold, record.threshold_from) == (pytest.approx(threshold, abs=1e-4), reason)
    assert (p_unsafe[truth == 1] >= record.threshold).mean() >= 0.9


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
        assert train(settings, run) == 143
    assert "stopped by SIGTERM at step 3, checkpoint saved; go on with --resume" in capsys.readouterr().err
    assert is_whole(run / "checkpoint-3")
    assert not (run / "safety.json").exists()
    assert not (run / "README.md").exists(), "TRL's card would pass for the adapter's"

    torn = run / "checkpoint-99"  # what a save that was cut off leaves; counted as newest, it would displace whole ones
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    assert train(settings, run, "--resume") == 0
    said = capsys.readouterr().err
    assert "checkpoint-99 is torn, its save was cut off: passing it over and removing it" in said
    assert "resuming from checkpoint-3" in said
    assert not torn.exists()
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


def test_adapter_in_16_bits_goes_on_training_when_resumed(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the small cards' recipes have it: PEFT loads an adapter in 16 bits as new weights in fp32."""
    in_16_bits = ["--dtype", "bfloat16", "--bf16", "true", "--optimizer_on_host", "true", "--lora_dropout", "0"]
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        interrupt(patched, after_step=2)
        assert train(settings, run, *in_16_bits) == 143
    assert train(settings, run, *in_16_bits, "--resume") == 0
    history = json.loads((run / "training.json").read_text())["log_history"]
    norms = {entry["step"]: entry["grad_norm"] for entry in history if "grad_norm" in entry}
    assert sorted(norms) == [1, 2, 3, 4, 5, 6]
    assert min(norms.values()) > 0
    before, after = (load_file(run / f"checkpoint-{step}" / "adapter_model.safetensors") for step in (4, 6))
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
    assert any(not torch.equal(before[name], after[name]) for name in after)


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 1", "'learning_rat' is no setting; did you mean learning_rate?"),
        ("learning_rate: 0", "learning_rate 0 teaches nothing"),
        ("learning_rate: null", "learning_rate is null; give it a value"),
        ("learning_rate: fast", "learning_rate 'fast' is not a number"),
        (
            "max_steps: 1\nwarmup_steps: 0.05",
            "warmup_steps 0.05 takes all of the 1 update; train longer, or set --warmup_steps 0",
        ),
        ("max_steps: 0\nnum_train_epochs: 0", "32 rows make no update"),
        ("report_to: wandb", "report_to 'wandb' is not installed; install its package, or take one of none, "),
        ("eval_strategy: steps\nload_best_model_at_end: true\nsave_steps: 4", "eval_steps 2 and save_steps 4 differ"),
        ("lr_scheduler_type: sideways", "sideways"),
        ("dtype: bf16", "dtype 'bf16' is not one of bfloat16, float32"),
        ("dtype: bfloat16", "bf16 False and dtype 'bfloat16' disagree; dtype decides"),
        ("fp16: true", "fp16 would need its losses scaled"),
        ("torch_compile: true", "set compile_layers instead"),
        ("attn_implementation: eager", "only 'sdpa' is used here"),
        ("max_pixels: 3135", "max_pixels 3135 is below 3136"),
        ("use_dora: true", "use_dora has no effect in this recipe; remove it"),
        ("bnb_4bit_quant_type: fp4", "bnb_4bit_quant_type has no effect"),
        ("resume_from_checkpoint: outputs/x", "--resume goes on from the last whole checkpoint"),
        ("trust_remote_code: true", "trust_remote_code is never used here"),
        ("lora_target_modules: [qkv]", "lora_target_modules: qkv not among"),
        ("load_in_4bit: false\nunpack_base: true", "unpack_base has no effect without load_in_4bit"),
        ("load_in_4bit: true\ncompile_layers: true", "compile_layers needs unpack_base"),
        ("load_in_4bit: true\nunpack_base: true\ncompile_layers: true", "compile_layers needs a GPU"),
        ("cuda_graphs: true", "cuda_graphs needs a GPU"),
        ("early_stopping_patience: 0", "early_stopping_patience 0 must be 1 or more, or null"),
        ("early_stopping_patience: 2", "early_stopping_patience needs eval_strategy and metric_for_best_model"),
        ("optimizer_on_host: true\noptim: adamw_8bit", "set optim to one of adamw_torch_fused, adamw_torch"),
    ],
)
def test_setting_that_is_wrong_or_has_no_effect_is_refused(
    settings: list[str], tmp_path: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    lines = dict(zip(settings[2::2], settings[3::2], strict=True))
    written = "".join(f"{name[2:]}: {value}\n" for name, value in lines.items())
    config.write_text(f"{written}max_pixels: 100352\nbf16: false\nuse_cpu: true\ndtype: float32\n{line}\n")
    with pytest.raises(InputError) as refused:
        sft_qwen2vl.main(["--config", str(config), "--output_dir", str(tmp_path / "run")])
    assert message in str(refused.value)
    assert "usage:" not in capsys.readouterr().err


def test_run_whose_settings_were_refused_can_be_started_again(settings: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match="not among"):
        train(settings, run, "--lora_target_modules", "qkv", "v_proj")
    assert train(settings, run, "--lora_target_modules", "q_proj", "--max_steps", "2") == 0
    assert all("q_proj" in name for name in load_file(run / "adapter_model.safetensors"))


def test_help_needs_neither_data_nor_a_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert sft_qwen2vl.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "--early_stopping_patience" in said and "--learning_rate" in said and "accelerate launch" in said


def test_two_runs_cannot_train_into_one_folder(settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with hold_lock(tmp_path / "run" / ".lock", "busy"), pytest.raises(InputError, match="another run is training into"):
        train(settings, tmp_path / "run")


def test_ctrl_c_saves_too(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt(monkeypatch, after_step=0, number=signal.SIGINT)
    assert train(settings, tmp_path / "run") == 130
    assert is_whole(tmp_path / "run" / "checkpoint-1")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_accumulated_micro_batches_make_the_same_update(settings: list[str], tmp_path: Path) -> None:
    first = []
    for micro_batch, accumulated in ((8, 1), (4, 2), (2, 4)):
        run = tmp_path / str(micro_batch)
        sizes = ["--per_device_train_batch_size", str(micro_batch), "--gradient_accumulation_steps", str(accumulated)]
        flags = [
            "--max_steps",
            "1",
            "--eval_steps",
            "1",
            "--save_steps",
            "1",
            "--lora_dropout",
            "0",
            "--warmup_steps",
            "0",
        ]
        assert train(settings, run, *sizes, *flags) == 0
        first.append(json.loads((run / "training.json").read_text())["log_history"][0])
    for logged in first[1:]:
        assert (logged["loss"], logged["grad_norm"]) == pytest.approx(
            (first[0]["loss"], first[0]["grad_norm"]), rel=1e-4
        )


def test_diverged_training_ends_in_one_line(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_is_no_number(scorer: Scorer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor([0.5] * (len(batch["input_ids"]) - 1) + [torch.nan])

    monkeypatch.setattr(Scorer, "on_device", one_is_no_number)
    with pytest.raises(InputError, match="training diverged: at step 2"):
        train(settings, tmp_path / "run")


def test_checkpoints_name_their_base_as_the_yaml_does(finished: Path) -> None:
    for folder in (finished, finished / "checkpoint-6"):
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "./tiny_base/weights"


# What lets the 7B fit a small card or hurry on a large one, by the name of its line in the YAML.
OPTIONS = {
    "activation_checkpointing": ["--activation_checkpointing", "true"],
    "embedding_on_host": ["--embedding_on_host", "true"],
    "head_on_host": ["--head_on_host", "true"],
    "optimizer_on_host": ["--optimizer_on_host", "true"],
    "cache_vision_features": ["--cache_vision_features", "true"],
    "layers_on_host": ["--layers_on_host", "all"],
    "vision_blocks_on_host": ["--vision_blocks_on_host", "all"],
    "unpack_base": ["--unpack_base", "true"],
}
OF_THE_LOSS = ("labels", "loss_weights", "rivals", "row")
STREAMING = ("layers_on_host", "vision_blocks_on_host")
TOGETHER = [flag for name, flags in OPTIONS.items() if name not in STREAMING for flag in flags]
ALL_STREAMED = [flag for name, flags in OPTIONS.items() if name != "unpack_base" for flag in flags]
SOME_STREAMED = [*ALL_STREAMED, "--layers_on_host", "3", "--recomputed_layers", "2"]


@pytest.fixture(scope="module")
def plain(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients the plain way: PEFT's own modules, transformers' own forward, every logit."""
    trainer = build(settings, tmp_path_factory.mktemp("plain"))
    for module in trainer.model.modules():
        for fused, own in PLAIN_CLASSES.items():
            if type(module) is fused:
                module.__class__ = own
    trainer.compute_loss = lambda model, batch: plain_loss(model, batch)
    return gradients(trainer, batch_of(trainer))


def plain_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {name: tensor for name, tensor in batch.items() if name not in OF_THE_LOSS}
    log_p = log_softmax(model(**inputs, use_cache=False).logits.float(), dim=-1)
    positions = log_p[:, -batch["labels"].shape[1] - 1 : -1]
    losses = -positions.gather(2, batch["labels"].clamp(min=0)[..., None]).squeeze(2)
    return (losses * batch["loss_weights"]).sum() / len(losses)


@pytest.mark.parametrize(
    "options",
    [*OPTIONS.values(), TOGETHER, ALL_STREAMED, SOME_STREAMED],
    ids=[*OPTIONS, "all together", "all that goes with streaming", "some layers streamed, some recomputed"],
)
def test_no_option_changes_loss_or_gradients(
    settings: list[str], tmp_path: Path, plain: tuple[float, dict[str, torch.Tensor]], options: list[str]
) -> None:
    trainer = build(settings, tmp_path / "run", "--vision_cache", str(tmp_path / "vision"), *options)
    loss, found = gradients(trainer, batch_of(trainer))
    expected_loss, expected = plain
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert found.keys() == expected.keys()
    assert len(found) == 2 * 7 * 4
    for name in expected:
        error = (found[name] - expected[name]).norm() / expected[name].norm()
        assert error <= 1e-4, f"{name}: {error}"


@pytest.mark.parametrize("in_4_bits", ["true", "false"])
@pytest.mark.parametrize("linears", [["q_proj", "v_proj"], ["down_proj"]], ids=" ".join)
def test_adapter_on_some_linears_trains_the_same_where_layers_stream(
    settings: list[str], tmp_path: Path, linears: list[str], in_4_bits: str
) -> None:
    """The others are bitsandbytes' or torch's own modules, which keep weights for the backward pass their own way."""
    flags = ["--load_in_4bit", in_4_bits, "--lora_target_modules", *linears]
    ways: tuple[list[str], ...] = (
        [],
        ["--layers_on_host", "all"],
        ["--layers_on_host", "3", "--activation_checkpointing", "true"],
    )
    found = []
    for number, way in enumerate(ways):
        trainer = build(settings, tmp_path / str(number), *flags, *way)
        found.append(gradients(trainer, batch_of(trainer)))
    loss, expected = found[0]
    assert len(expected) == 2 * 4 * len(linears)
    for each, gradient in found[1:]:
        assert each == pytest.approx(loss, rel=1e-5)
        assert all((gradient[name] - expected[name]).norm() <= 1e-4 * expected[name].norm() for name in expected)


def test_tied_base_gives_the_same_loss_and_gradients_wherever_its_table_lies(
    settings: list[str], tied_base: Path, tmp_path: Path
) -> None:
    found = []
    for number, places in enumerate(
        ([], ["embedding_on_host"], ["head_on_host"], ["embedding_on_host", "head_on_host"])
    ):
        flags = [flag for place in places for flag in OPTIONS[place]]
        base = ["--model_name_or_path", str(tied_base), "--load_in_4bit", "false"]
        trainer = build(settings, tmp_path / str(number), *base, *flags)
        found.append(gradients(trainer, batch_of(trainer)))
    expected_loss, expected = found[0]
    for loss, each in found[1:]:
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert all((each[name] - expected[name]).norm() <= 1e-4 * expected[name].norm() for name in expected)


@pytest.mark.parametrize(("kind", "in_4_bits"), [("tied_base", False), ("packed_base", True)])
def test_other_base_trains_and_answers(
    settings: list[str],
    small_base: Path,
    tmp_path: Path,
    kind: str,
    in_4_bits: bool,
    request: pytest.FixtureRequest,
    data: Path,
) -> None:
    """With all that small cards' recipes switch on; merged or not, and on the same bits packed here."""
    from recipes.adapter.folder import find_adapter
    from recipes.answering.adapted_model import load_for_batches

    folder, run = request.getfixturevalue(kind), tmp_path / "run"
    short = [
        "--max_steps",
        "1",
        "--warmup_steps",
        "0",
        "--eval_steps",
        "1",
        "--save_steps",
        "1",
        "--vision_cache",
        str(tmp_path / "vision"),
    ]
    options = [flag for name in OPTIONS if name != "unpack_base" for flag in OPTIONS[name]]
    base_flags = ["--model_name_or_path", str(folder), "--load_in_4bit", str(in_4_bits)]
    assert train(settings, run, *base_flags, "--lora_dropout", "0", *short, *options) == 0
    adapter = find_adapter(run)
    record, base = adapter.record, adapter.base
    assert (record.base_model, record.load_in_4bit) == (str(folder), in_4_bits)
    assert any(weight.abs().max() > 0 for weight in load_file(run / "adapter_model.safetensors").values())
    bases = [base, find_base(str(small_base))] if kind == "packed_base" else [base]
    rows = open_dataset(str(data)).rows("validation").select(range(4))
    p_unsafe = [
        score_rows(adapted.model, adapted.collator, rows, batch_size=4)
        for each in bases
        for merge in (False, True)
        for adapted in [load_for_batches(replace(adapter, base=each), merge=merge)]
    ]
    assert np.ptp(p_unsafe[0]) > 0
    for other in p_unsafe[1:]:
        np.testing.assert_allclose(other, p_unsafe[0], atol=1e-5)


def test_all_options_together_train_as_none_does(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole runs, dropout off in both: losses, validation figures and weights; interrupted once and resumed."""
    alike = ["--lora_dropout", "0", "--vision_cache", str(tmp_path / "vision")]
    assert train(settings, tmp_path / "plain", *alike) == 0
    with pytest.MonkeyPatch.context() as patched:
        interrupt(patched, after_step=2)
        assert train(settings, tmp_path / "run", *alike, *TOGETHER) == 143
    assert "vision features: 48 computed" in capsys.readouterr().err
    assert train(settings, tmp_path / "run", *alike, *TOGETHER, "--resume") == 0
    assert "vision features: 0 computed" in capsys.readouterr().err
    histories = [
        json.loads((tmp_path / name / "training.json").read_text())["log_history"] for name in ("plain", "run")
    ]
    for one, other in zip(*histories, strict=True):
        for figure in {"loss", "grad_norm", "eval_loss"} & one.keys():
            assert one[figure] == pytest.approx(other[figure], rel=1e-3)
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "run")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-2, atol=1e-4)


def test_graphed_micro_batches_train_as_others_do(settings: list[str], tmp_path: Path) -> None:
    """All that is around the graphs: gradients that stay where they are, their share of an update, the replays."""
    weights = []
    for graphed in (False, True):
        trainer = build(settings, tmp_path / str(graphed), "--gradient_accumulation_steps", "3")
        if graphed:
            trainer.graphed = with_graphs(trainer)
        trainer.train()
        weights.append([weight.detach().clone() for weight in trainer.model.parameters() if weight.requires_grad])
    assert trainer.graphed.function.replayed > STEPS
    torch.testing.assert_close(weights[1], weights[0])


def test_updates_are_counted_as_the_trainer_does(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path)
    for changed in (
        {"max_steps": 5},
        {"max_steps": -1, "num_train_epochs": 1.3},
        {"max_steps": -1, "num_train_epochs": 2.0, "gradient_accumulation_steps": 3},
        {"max_steps": -1, "num_train_epochs": 1.0, "gradient_accumulation_steps": 3, "dataloader_drop_last": True},
    ):
        vars(trainer.args).update({"gradient_accumulation_steps": 1, **changed})
        values = {**read_settings(settings).values, "gradient_accumulation_steps": 1, **changed}
        rows = len(trainer.train_dataset)
        counted = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]
        assert updates_of(values, rows) == counted


@pytest.mark.parametrize("graphed", [False, True], ids=["called", "graphed"])
def test_row_weighs_the_same_however_rows_fall_into_micro_batches(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphed: bool
) -> None:
    monkeypatch.setattr("recipes.model.cuda_graphs.ORDINARY_CALLS", 0)
    trainer = build(settings, tmp_path, "--load_in_4bit", "false")
    set_weights(trainer)
    if graphed:
        trainer.graphed = with_graphs(trainer)
    loss, expected = one_update(trainer, [5])
    for sizes in ([4, 1], [2, 2, 1], [1, 1, 1, 1, 1], [3, 2]):
        found_loss, found = one_update(trainer, sizes)
        assert found_loss == pytest.approx(loss, rel=1e-5)
        for gradient, other in zip(found, expected, strict=True):
            assert (gradient - other).norm() <= 1e-5 * other.norm()


IN_16_BITS = ["--dtype", "bfloat16", "--bf16", "true", "--optimizer_on_host", "true", "--load_in_4bit", "false"]


@pytest.mark.parametrize("graphed", [False, True], ids=["called", "graphed"])
def test_gradients_of_16_bits_are_summed_in_fp32_clipped_and_told(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphed: bool
) -> None:
    """Against fp64, at the place where AdamW reads the sum; summed in bf16, eight micro-batches err by 0.3 %."""
    trainer = build(settings, tmp_path, *IN_16_BITS)
    set_weights(trainer)
    for weight in trainer.trained.weights:
        weight.data = weight.data.bfloat16()
    batches = [trainer.data_collator([trainer.train_dataset[number]]) for number in range(0, 32, 4)]
    expected = torch.zeros(sum(weight.numel() for weight in trainer.trained.weights), dtype=torch.float64)
    for batch in batches:
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=len(batches)).backward()
        expected += torch.cat([weight.grad.double().flatten() for weight in trainer.trained.weights])
        trainer.model.zero_grad()

    read: list[torch.Tensor] = []

    def note(optimizer: Any) -> None:
        read.append(optimizer.param_groups[0]["params"][0].grad.double())

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    monkeypatch.setattr("recipes.model.cuda_graphs.ORDINARY_CALLS", 0)
    trainer.graphed = with_graphs(trainer) if graphed else None
    trainer.create_optimizer()
    for limit in (0.0, 0.5 * float(expected.norm())):
        trainer.args.max_grad_norm = limit
        for batch in batches:
            trainer.training_step(trainer.model, batch, len(batches))
        norm = trainer._get_grad_norm(trainer.model, trainer._clip_grad_norm(trainer.model) if limit else None)
        assert float(norm) == pytest.approx(float(expected.norm()), rel=1e-5)
        trainer.optimizer.step()
    for found, share in zip(read, (1, 0.5), strict=True):
        assert (found - share * expected).norm() <= 1e-5 * expected.norm()


def one_update(trainer: Any, sizes: list[int]) -> tuple[float, list[torch.Tensor]]:
    """Return what is logged as an update's loss, and its gradients, its rows in micro-batches of `sizes`."""
    rows = iter([trainer.train_dataset[number] for number in (0, 1, 12, 30, 31)])
    batches = iter([trainer.data_collator(list(islice(rows, size))) for size in sizes])
    # As in transformers' Trainer, which may ask for more and gets fewer at an epoch's end.
    samples, count = trainer.get_batch_samples(batches, 8, trainer.args.device)
    trainer.current_gradient_accumulation_steps = len(samples)
    loss = sum(float(trainer.training_step(trainer.model, batch, count)) for batch in samples)
    found = [weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None]
    trainer.model.zero_grad()
    return loss, found


def test_evaluating_changes_no_gradient(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path)
    _, expected = gradients(trainer, batch_of(trainer))
    trainer.evaluate()
    _, found = gradients(trainer, batch_of(trainer))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_vision_features_carry_no_gradient(settings: list[str], tmp_path: Path) -> None:
    trainer = build(settings, tmp_path, "--activation_checkpointing", "true")
    seen = []
    tower = trainer.model.get_base_model().model.visual
    tower.merger.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch_of(trainer)).backward()
    assert seen
    assert not any(features.requires_grad for features in seen)
    assert all(weight.grad is None for weight in tower.parameters())


def prepare(argv: list[str]) -> Run:
    found = read_settings(argv)
    return prepare_run(found, find_base(found.values["model_name_or_path"]))


def build(settings: list[str], folder: Path, *more: str) -> Any:
    """Set a trainer up without training, with activation checkpointing switched on as train() would."""
    run = prepare([*settings, "--lora_dropout", "0", "--output_dir", str(folder), *more])
    fill_vision_cache(run)
    trainer = build_trainer(run)
    if trainer.args.activation_checkpointing:
        trainer.model.activation_checkpointing_enable(trainer.args.activation_checkpointing_kwargs)
    trainer.control = trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
    return trainer


def with_graphs(trainer: Any) -> GraphedStep:
    """Return micro-batches as graphs of a stand-in for the GPU's."""
    step = GraphedStep(trainer.model.get_base_model())
    step.function = Graphs(step.loss_and_gradients)
    return step


def batch_of(trainer: Any) -> dict[str, torch.Tensor]:
    rows = [trainer.train_dataset[index] for index in (0, len(trainer.train_dataset) - 1)]
    assert {row["response"] for row in rows} == {"SAFE", "UNSAFE"}
    return trainer.data_collator(rows)


def gradients(trainer: Any, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of one batch."""
    trainer.model.train()
    trainer.model.zero_grad()
    set_weights(trainer)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    found = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    assert all(np.isfinite(float(gradient.norm())) and gradient.norm() > 0 for gradient in found.values())
    return float(loss.detach()), found


def set_weights(trainer: Any) -> None:
    """Give the adapter random weights: with lora_B at zero lora_A's gradients would all be zero."""
    generator = torch.Generator().manual_seed(0)
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
