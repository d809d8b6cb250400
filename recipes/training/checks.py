"""What is wrong with a run, told before it costs anything, or before it passes for a finished one. Imports no torch."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_prep.errors import InputError
from recipes.adapter.safety_record import DTYPES
from recipes.layers.sizes import ALL
from recipes.machine.memory import predict_memory, shortages
from recipes.machine.plan import HOST_OPTIMIZERS, LEAVE_IT_TO_THE_MACHINE, STREAMED
from recipes.machine.schedule import updates_of
from recipes.ranks.place import here, is_alone
from recipes.ranks.shares import frames_a_process, frames_of

if TYPE_CHECKING:
    import torch
    from trl import SFTConfig


def check_settings(values: Mapping[str, Any]) -> None:
    """Raise InputError for settings that contradict each other, or would have no effect or a wrong one together.

    Where lines are left to the machine, check_placement looks at them once they are planned.
    """
    _check_precision(values)
    if values["frames_an_update"] is None:
        check_placement(values)
    elif values["dataloader_drop_last"]:
        raise InputError(
            "dataloader_drop_last drops other rows by how many are at once; remove it, or frames_an_update"
        )
    _check_judging(values)
    if not values["learning_rate"] > 0:
        raise InputError(f"learning_rate {values['learning_rate']:g} teaches nothing; set it above 0")
    if values["attn_implementation"] not in (None, "sdpa"):
        raise InputError(f"attn_implementation {values['attn_implementation']!r}: only 'sdpa' is used here; remove it")


def _check_precision(values: Mapping[str, Any]) -> None:
    if values["dtype"] not in DTYPES:
        raise InputError(f"dtype {values['dtype']!r} is not one of {', '.join(DTYPES)}")
    if values["bf16"] != (values["dtype"] == "bfloat16"):
        raise InputError(f"bf16 {values['bf16']} and dtype {values['dtype']!r} disagree; dtype decides")


def check_placement(values: Mapping[str, Any]) -> None:
    """Raise InputError for lines of what lies where, and how it is computed, that contradict each other."""
    if values["optimizer_on_host"] and values["optim"] not in HOST_OPTIMIZERS:
        raise InputError(f"optimizer_on_host runs AdamW: set optim to one of {', '.join(HOST_OPTIMIZERS)}")
    if values["optimizer_on_host"] and values["optim_args"]:
        raise InputError("optim_args has no effect with optimizer_on_host; remove it")
    if values["unpack_base"] and not values["load_in_4bit"]:
        raise InputError("unpack_base has no effect without load_in_4bit; remove it")
    if values["compile_layers"] and values["load_in_4bit"] and not values["unpack_base"]:
        raise InputError("compile_layers needs unpack_base for a base in 4 bits; set it to true")
    for name in ("compile_layers", "cuda_graphs"):
        if values[name] and values["use_cpu"]:
            raise InputError(f"{name} needs a GPU; set it to false")
    _check_streaming(values)
    if values["cuda_graphs"] and (values["head_on_host"] or values["activation_checkpointing"]):
        raise InputError("cuda_graphs needs head_on_host and activation_checkpointing set to false, or is false itself")


def _check_streaming(values: Mapping[str, Any]) -> None:
    for name in STREAMED:
        if values[name] in ("1", "2"):
            raise InputError(f"{name} {values[name]} spares nothing: two are on the card at any time; set 0, or more")
        for other in ("unpack_base", "compile_layers", "cuda_graphs"):
            if values[name] != "0" and values[other]:
                raise InputError(f"{name} and {other} exclude each other; set {name} to 0, or {other} to false")
    if values["recomputed_layers"] == "0":
        raise InputError("recomputed_layers 0 is what activation_checkpointing false says; set that")
    if values["recomputed_layers"] != ALL and not values["activation_checkpointing"]:
        raise InputError("recomputed_layers has no effect without activation_checkpointing; remove it")


def _check_judging(values: Mapping[str, Any]) -> None:
    figure = values["metric_for_best_model"] is not None or values["load_best_model_at_end"]  # the loss, then
    judged = values["eval_strategy"] != "no" and figure
    if values["early_stopping_patience"] is not None and not judged:
        raise InputError("early_stopping_patience needs eval_strategy and metric_for_best_model; set them, or null")
    if not (values["load_best_model_at_end"] and values["eval_strategy"] == values["save_strategy"] == "steps"):
        return
    judging, saving = values["eval_steps"] or values["logging_steps"], values["save_steps"]
    if judging != saving:
        raise InputError(
            f"eval_steps {judging:g} and save_steps {saving:g} differ, so that the best step could be one that isn't "
            "saved; set them alike"
        )


def check_device(values: Mapping[str, Any], training: "SFTConfig") -> None:
    """Raise InputError for settings that need another device, and where there are several."""
    for name in ("compile_layers", "cuda_graphs"):
        if values[name] and training.device.type == "cpu":
            raise InputError(f"{name} needs a GPU; set it to false")
    if training.n_gpu > 1:
        raise InputError(
            f"this one process sees {training.n_gpu} cards and trains on one; start accelerate launch --multi_gpu "
            f"--num_processes {training.n_gpu} for all of them, or set CUDA_VISIBLE_DEVICES=0"
        )


def check_room(values: Mapping[str, Any], config: Mapping[str, Any], device: "torch.device") -> None:
    """Raise InputError where a run on a base of that `config` can't fit card or host, unless it is to try."""
    if device.type == "cpu" or not values["fit_check"]:
        return
    from recipes.model.device import free_room
    from recipes.ranks.group import refuse_any

    room, short = free_room(device), None
    if missing := shortages(predict_memory(values, config), **room):
        short = f"{missing[0]}; {LEAVE_IT_TO_THE_MACHINE}; --fit_check false tries nevertheless"
    refuse_any(short)


def check_shares(values: Mapping[str, Any]) -> None:
    """Raise InputError for settings by which so many processes as there are can't share the rows of a run."""
    frames_a_process(values["frames_an_update"] or frames_of(values), here().ranks)
    if values["dataloader_drop_last"] and not is_alone():
        raise InputError("dataloader_drop_last drops other rows by how many processes there are; remove it")


def check_reporting(report_to: list[str]) -> None:
    """Raise InputError for a service to report to that is unknown, or whose package isn't installed."""
    from transformers.integrations import get_available_reporting_integrations

    found = get_available_reporting_integrations()
    if missing := [name for name in report_to if name not in found]:
        raise InputError(
            f"report_to {missing[0]!r} is not installed; install its package, or take one of none, {', '.join(found)}"
        )


def check_updates(values: Mapping[str, Any], rows: int) -> None:
    """Raise InputError where a run makes no update, or makes all of them while its learning rate still warms up from 0.

    The first update of a warm-up is made at a learning rate of 0.
    """
    updates, warmup = updates_of(values, rows), values["warmup_steps"]
    if updates < 1:
        raise InputError(f"{rows} rows make no update; set num_train_epochs or max_steps above 0")
    if (int(warmup) if warmup >= 1 else math.ceil(updates * warmup)) >= updates:
        raise InputError(
            f"warmup_steps {warmup:g} takes all of the {updates} update{'s' * (updates > 1)}; train longer, or set "
            "--warmup_steps 0"
        )


def check_learned(model: "torch.nn.Module", step: int | None) -> None:
    """Raise InputError where every B of a model's adapter is zero: it would answer as the base does.

    `step` is the update that the adapter was saved at.
    """
    learned = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    if not any(weight.count_nonzero() for weight in learned):
        raise InputError(
            f"the adapter of step {step} is as it began: every B is zero, so it answers as the base does; train "
            "longer, or with a higher learning_rate or a lower warmup_steps, into another output_dir"
        )
