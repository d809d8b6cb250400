"""A plan as lines of text, and as figures. No torch."""

from typing import Any

from data_prep.disk.byte_counts import GIB
from recipes.machine.plan import HOW, STREAMED, TABLES, Plan

TIMES = {1: "once", 2: "twice"}
NAMES = {"unpack_base": "weights unpacked", "compile_layers": "compiled", "cuda_graphs": "replayed as CUDA graphs"}


def in_words(plan: Plan, *, frames: int, epochs: float, kept: int = 0) -> list[str]:
    """Return a plan for training on so many frames, and what it is predicted to need and to take, in a few lines.

    Vision features of `kept` frames are there already.
    """
    values, need = plan.values, plan.need
    host = [name.removesuffix("_on_host") for name in TABLES if values[name]]
    host += [
        f"{values[name]} {name.removesuffix('_on_host').replace('_', ' ')}" for name in STREAMED if values[name] != "0"
    ]
    layers = [NAMES[name] for name in HOW if values[name]]
    times = values["gradient_accumulation_steps"]
    recomputed = values["recomputed_layers"] if values["activation_checkpointing"] else "no"
    return [
        f"{values['per_device_train_batch_size']} frames on the card at once, "
        f"{TIMES.get(times, f'{times} times')} an update; {recomputed} layers recomputed"
        + "".join(f", {how}" for how in layers),
        f"in host memory {', '.join(host) or 'nothing'}; vision features "
        + ("computed once and kept on disk" if values["cache_vision_features"] else "computed at each use"),
        f"predicted {need.card_gib:.1f} GiB of the card, {need.host_gib:.1f} of the host, "
        f"{plan.time.frame:.2f} s a frame, {plan.time.run(frames, epochs, kept) / 3600:.1f} hours for {frames} frames, "
        f"{epochs:g} epochs",
    ]


def as_figures(plan: Plan, *, frames: int, epochs: float) -> dict[str, Any]:
    """Return a plan with what it is predicted to need, in GiB, and to take."""
    return {
        "card_gib": plan.need.card_gib,
        "host_gib": plan.need.host_gib,
        "disk_gib": plan.need.disk_bytes_a_frame * frames / GIB,
        "seconds_a_frame": plan.time.frame,
        "hours": plan.time.run(frames, epochs) / 3600,
        "frames": frames,
        "plan": plan.values,
    }
