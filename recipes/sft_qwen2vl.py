"""Fine-tune Qwen2-VL to answer SAFE or UNSAFE about one frame, by QLoRA, from one YAML.

    accelerate launch recipes/sft_qwen2vl.py [--config recipes/configs/qwen2vl_7b_8gb.yaml] [--learning_rate 1e-4 …]

Every line of the YAML may be overridden by a flag of the same name. Without --config it runs the 8 GB recipe.
"""

import math
import os
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from data_prep.errors import InputError, run_script
from data_prep.files import from_root, hold_lock, to_root, write_atomic, write_json
from data_prep.frames_source import FramesSource, check_dataset, open_dataset
from data_prep.labels import LABELS, UNSAFE
from recipes.base_model import BaseModel, find_base
from recipes.checkpoints import last_whole_checkpoint
from recipes.fit import predict
from recipes.library_messages import silence_known_messages
from recipes.model_card import model_card
from recipes.operating_point import choose_threshold, fixed_threshold
from recipes.room import base_config, best_recipe, shortages
from recipes.run_settings import (
    LOCK_NAME,
    Inputs,
    RecipeArguments,
    check_output_folder,
    read_inputs,
    record_settings,
    with_default_config,
)
from recipes.safety_record import DTYPES, SafetyRecord, is_finished
from recipes.signals import StopRequest, follow_launcher

if TYPE_CHECKING:
    import numpy as np
    from trl import ModelConfig, SFTConfig

    from recipes.collator import VisionCollator
    from recipes.trainer import SafetyTrainer
    from recipes.vision_cache import VisionCache

HOST_OPTIMIZERS = ("adamw_torch_fused", "adamw_torch")

# What of TRL's ModelConfig is used here; setting anything else must not pass for an effect.
USED_MODEL_SETTINGS = {
    "model_name_or_path",
    "model_revision",
    "dtype",
    "attn_implementation",
    "load_in_4bit",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "use_rslora",
}


@dataclass(frozen=True)
class Run:
    """Everything a run is determined by."""

    recipe: RecipeArguments
    training: "SFTConfig"
    model: "ModelConfig"
    base: BaseModel
    source: FramesSource
    prompt: str


def main(argv: list[str]) -> int:
    """Check the inputs, train, and leave the adapter, its processor and safety.json in the run's folder."""
    silence_known_messages()
    # Precision lives in the YAML alone: an accelerate config would override it through this variable.
    if os.environ.pop("ACCELERATE_MIXED_PRECISION", None) is not None:
        follow_launcher()
    if {"-h", "--help"} & set(argv):
        return show_help()
    argv = with_default_config(argv)
    inputs = read_inputs(argv)
    check_output_folder(inputs)
    check_dataset(inputs.dataset, revision=inputs.dataset_revision)
    base = find_base(inputs.model_name_or_path, inputs.model_revision)

    run = prepare_run(argv, base)
    check_room(run)
    print(run.source.describe(), file=sys.stderr)
    inputs.output_dir.mkdir(parents=True, exist_ok=True)
    with hold_lock(inputs.output_dir / LOCK_NAME, f"another run is training into {inputs.output_dir}; wait or end it"):
        record_settings(inputs.output_dir, run_record(run))
        if is_finished(inputs.output_dir):
            print(f"{inputs.output_dir.name}: this very run has finished already; nothing to do", file=sys.stderr)
            return 0
        return train(run, inputs)


def show_help() -> int:
    """Print all settings, this recipe's own first, with what they are for."""
    from trl import ModelConfig, SFTConfig, TrlParser

    parser = TrlParser((RecipeArguments, SFTConfig, ModelConfig), prog="sft_qwen2vl.py", description=__doc__)
    print(parser.format_help())
    return 0


def prepare_run(argv: list[str], base: BaseModel) -> Run:
    """Read the YAML and its overrides into the libraries' own dataclasses and ours, and open the data.

    Raises InputError for unknown names and unusable values.
    """
    from trl import ModelConfig, SFTConfig, TrlParser

    def refuse(message: str) -> NoReturn:
        raise InputError(f"settings: {message}")

    parser = TrlParser((RecipeArguments, SFTConfig, ModelConfig))
    parser.error = refuse  # argparse would print all of its usage
    try:
        recipe_args, training_args, model_args = parser.parse_args_and_config(argv)
    except (ValueError, TypeError) as error:
        raise InputError(f"settings: {error}") from None
    check_settings(recipe_args, training_args, model_args)
    have_an_update_ready(training_args)
    training_args.output_dir = str(from_root(training_args.output_dir))
    training_args.disable_tqdm = not sys.stderr.isatty()
    source = open_dataset(recipe_args.dataset, revision=recipe_args.dataset_revision)
    return Run(recipe_args, training_args, model_args, base, source, the_prompt(source))


def check_settings(recipe_args: RecipeArguments, training_args: "SFTConfig", model_args: "ModelConfig") -> None:
    """Raise InputError for settings that the libraries know and that have no effect, or a wrong one, here."""
    for field in fields(model_args):
        if field.name not in USED_MODEL_SETTINGS and getattr(model_args, field.name) != field.default:
            raise InputError(f"{field.name} has no effect in this recipe; remove it")
    if model_args.dtype not in DTYPES:
        raise InputError(f"dtype {model_args.dtype!r} is not one of {', '.join(DTYPES)}")
    if training_args.fp16:
        raise InputError("fp16 would need its losses scaled, which isn't done here; remove it and set dtype to float32")
    if training_args.bf16 != (model_args.dtype == "bfloat16"):
        raise InputError(f"bf16 {training_args.bf16} and dtype {model_args.dtype!r} disagree; dtype decides")
    if training_args.torch_compile:
        raise InputError("torch_compile has no effect in this recipe; set compile_layers instead")
    if model_args.attn_implementation not in (None, "sdpa"):
        raise InputError(f"attn_implementation {model_args.attn_implementation!r}: only 'sdpa' is used here; remove it")
    if training_args.resume_from_checkpoint is not None:
        raise InputError("resume_from_checkpoint is not used here; --resume goes on from the last whole checkpoint")
    if training_args.trust_remote_code:
        raise InputError("trust_remote_code is never used here; remove it")
    if recipe_args.optimizer_on_host and training_args.optim not in HOST_OPTIMIZERS:
        raise InputError(f"optimizer_on_host runs AdamW: set optim to one of {', '.join(HOST_OPTIMIZERS)}")
    if recipe_args.unpack_base and not model_args.load_in_4bit:
        raise InputError("unpack_base has no effect without load_in_4bit; remove it")
    if recipe_args.compile_layers and model_args.load_in_4bit and not recipe_args.unpack_base:
        raise InputError("compile_layers needs unpack_base for a base in 4 bits; set it to true")
    if recipe_args.compile_layers and training_args.device.type == "cpu":
        raise InputError("compile_layers needs a GPU; set it to false")
    if recipe_args.cuda_graphs and training_args.device.type == "cpu":
        raise InputError("cuda_graphs needs a GPU; set it to false")
    if recipe_args.cuda_graphs and (recipe_args.head_on_host or training_args.activation_checkpointing):
        raise InputError("cuda_graphs needs head_on_host and activation_checkpointing set to false, or is false itself")
    judged = training_args.eval_strategy != "no" and training_args.metric_for_best_model is not None
    if recipe_args.early_stopping_patience is not None and not judged:
        raise InputError("early_stopping_patience needs eval_strategy and metric_for_best_model; set them, or null")
    if training_args.world_size > 1 or training_args.n_gpu > 1:
        raise InputError("this recipe trains in one process on one GPU; set CUDA_VISIBLE_DEVICES=0")


def check_room(run: Run) -> None:
    """Raise InputError where the run can't fit the card or the host, unless the settings say to try."""
    if run.training.device.type == "cpu" or not run.recipe.fit_check:
        return
    from recipes.modeling import LLM_LINEARS, free_room

    config = base_config(run.base.folder)
    targets = run.model.lora_target_modules or LLM_LINEARS
    settings = {**run_record(run), "lora_target_modules": [targets] if isinstance(targets, str) else targets}
    room = free_room(run.training.device)
    if missing := shortages(predict(settings, config), **room):
        best = best_recipe(config, **room)
        hint = f"{best} would fit" if best else "take fewer frames at once or a lower max_pixels"
        raise InputError(f"{missing[0]}; {hint}; --fit_check false tries nevertheless")


def have_an_update_ready(training_args: "SFTConfig") -> None:
    """Have the loading processes prepare as many batches as an update takes at once, where nothing else is set."""
    workers = training_args.dataloader_num_workers
    if workers and training_args.dataloader_prefetch_factor is None:
        training_args.dataloader_prefetch_factor = max(
            2, math.ceil(training_args.gradient_accumulation_steps / workers)
        )


def the_prompt(source: FramesSource) -> str:
    """Return the one prompt that all training rows ask. Raises InputError where there are several."""
    prompts = sorted(set(source.dataset["train"]["prompt"]))
    if len(prompts) != 1:
        raise InputError(f"data set {source.id!r} asks {len(prompts)} different prompts; an adapter answers one")
    return prompts[0]


def run_record(run: Run) -> dict[str, Any]:
    """Collect what the run computes from: every effective setting, the base's revision and the data's hash."""
    # Absolute paths are left out: they name this machine, and a moved run is still the same run.
    settings = {name: value for name, value in run.training.to_dict().items() if not str(value).startswith("/")}
    identity = {"base_revision": run.base.revision, "dataset_hash": run.source.content_hash}
    return {**settings, **asdict(run.model), **asdict(run.recipe), **identity}


def train(run: Run, inputs: Inputs) -> int:
    """Train from the start or the last whole checkpoint, save the best adapter; return the exit status."""
    from transformers import EarlyStoppingCallback, set_seed

    from recipes.modeling import use_all_cores
    from recipes.trainer import StopOnRequest

    use_all_cores()
    fill_vision_cache(run)
    set_seed(run.training.seed)
    with StopRequest() as stop, redirect_stdout(sys.stderr):  # the trainer prints progress; stdout is for results
        trainer = build_trainer(run)
        trainer.add_callback(StopOnRequest(stop))
        if run.recipe.early_stopping_patience is not None:
            trainer.add_callback(EarlyStoppingCallback(run.recipe.early_stopping_patience))
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(inputs))
    step = trainer.state.global_step
    if stop.received and step < trainer.state.max_steps:
        print(f"stopped by {stop.received.name} at step {step}, checkpoint saved; go on with --resume", file=sys.stderr)
        return stop.exit_status
    write_json(inputs.output_dir / "training.json", training_summary(trainer))
    plot_training(trainer, inputs.output_dir)
    threshold, threshold_from = operating_point(run, trainer)
    fit_linear_probe(run, trainer, inputs.output_dir)
    save_adapter(trainer, safety_record(run, threshold, threshold_from), inputs.output_dir)
    print(to_root(inputs.output_dir))
    return 0


def checkpoint_to_resume(inputs: Inputs) -> str | None:
    """Return the last whole checkpoint where the run is to be resumed; torn ones are told of and removed."""
    if not inputs.resume:
        return None
    checkpoint, torn = last_whole_checkpoint(inputs.output_dir)
    for path in torn:
        print(f"{path.name} is torn, its save was cut off: passing it over and removing it", file=sys.stderr)
        shutil.rmtree(path)  # left there, it would count as the newest when older checkpoints are let go
    print(f"resuming from {checkpoint.name if checkpoint else 'the start'}", file=sys.stderr)
    return str(checkpoint) if checkpoint else None


def build_trainer(run: Run) -> "SafetyTrainer":
    """Load processor and base, and set up the trainer on the train and validation splits.

    Where vision features are kept, fill_vision_cache comes first.
    """
    import torch
    from transformers.integrations import TensorBoardCallback

    from recipes import modeling
    from recipes.trainer import SafetyTrainer

    recipe, dtype = run.recipe, getattr(torch, run.model.dtype)
    collator = build_collator(run)
    if recipe.cache_vision_features:
        collator.read_features = vision_cache_of(run).read
    model = modeling.load_base(
        run.base,
        dtype=dtype,
        load_in_4bit=run.model.load_in_4bit,
        device=run.training.device,
        placement=modeling.Placement(
            embedding_on_host=recipe.embedding_on_host,
            head_on_host=recipe.head_on_host,
            without_vision=recipe.cache_vision_features,
        ),
        attn_implementation=run.model.attn_implementation,
    )
    if recipe.unpack_base:
        modeling.unpack_quantized(model, dtype)
    if recipe.compile_layers:
        modeling.compile_layers(model)
    targets = run.model.lora_target_modules or modeling.LLM_LINEARS
    trainer = SafetyTrainer(
        model=model,
        optimizer_on_host=recipe.optimizer_on_host,
        cuda_graphs=recipe.cuda_graphs,
        args=run.training,
        train_dataset=run.source.rows("train"),
        eval_dataset=run.source.rows("validation"),
        processing_class=collator.processor,
        data_collator=collator,
        peft_config=modeling.lora_config(
            r=run.model.lora_r,
            alpha=run.model.lora_alpha,
            dropout=run.model.lora_dropout,
            target_modules=[targets] if isinstance(targets, str) else targets,
            use_rslora=run.model.use_rslora,
        ),
    )
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(Path(run.training.output_dir) / "tensorboard")
    return trainer


def vision_cache_of(run: Run) -> "VisionCache":
    """Return the folder in which the run's vision features are kept."""
    import torch

    from recipes.vision_cache import VisionCache

    folder, dtype = from_root(run.recipe.vision_cache), getattr(torch, run.model.dtype)
    return VisionCache(folder, run.base, max_pixels=run.recipe.max_pixels, dtype=dtype)


def fill_vision_cache(run: Run) -> None:
    """Compute the vision features that the run's frames lack, where it is to keep them; a second call finds them all.

    Whatever ends it leaves whole entries, so a run started again goes on where this one was.
    """
    if not run.recipe.cache_vision_features:
        return
    from recipes.vision_cache import EncodedFrames, fill

    computed = fill(
        vision_cache_of(run),
        EncodedFrames([run.source.rows("train"), run.source.rows("validation")]),
        build_collator(run),
        run.base,
        device=run.training.device,
        batch_size=run.training.per_device_eval_batch_size,
        num_workers=run.training.dataloader_num_workers,
    )
    print(f"vision features: {computed} computed, the others kept from before", file=sys.stderr)


def build_collator(run: Run) -> "VisionCollator":
    """Return the collator that the run's settings describe; it decodes frames."""
    import torch

    from recipes.collator import VisionCollator, balanced_label_weights
    from recipes.modeling import load_processor

    responses = run.source.rows("train")["response"]
    return VisionCollator(
        load_processor(run.base.folder),
        run.recipe.max_pixels,
        balanced_label_weights(responses) if run.recipe.balance_labels else None,
        dtype=getattr(torch, run.model.dtype),
    )


def training_summary(trainer: "SafetyTrainer") -> dict[str, Any]:
    """Return what this process did, and say it in a line: steps, seconds, best figure, peak memory on the card."""
    import torch

    state = trainer.state
    summary: dict[str, Any] = {
        "steps": state.global_step,
        "seconds": next(
            (entry["train_runtime"] for entry in reversed(state.log_history) if "train_runtime" in entry), None
        ),
        "best_step": state.best_global_step,
        "best_metric": state.best_metric,
        "log_history": state.log_history,
    }
    if torch.cuda.is_available():
        summary["peak_allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
        summary["peak_reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    summary = finite(summary)
    shown = {name: value for name, value in summary.items() if name != "log_history" and value is not None}
    print(", ".join(f"{name} {value:.4g}" for name, value in shown.items()), file=sys.stderr)
    return summary


def finite(value: Any) -> Any:
    """Return a JSON value with null in place of numbers that JSON lacks: a logged gradient norm may be infinite."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def operating_point(run: Run, trainer: "SafetyTrainer") -> tuple[float, str]:
    """Return the threshold that the settings name, or choose on the validation split, and how it came about."""
    rule = run.recipe.threshold
    fixed = fixed_threshold(rule)
    if fixed is not None:
        return fixed, "fixed"
    threshold, reason = choose_threshold(rule, *trainer.score(run.source.rows("validation")))
    print(f"threshold {threshold:.4g}: {reason}", file=sys.stderr)
    return threshold, reason


def training_prior(run: Run) -> float:
    """Return the share that UNSAFE has in the training loss."""
    responses = run.source.rows("train")["response"]
    return 0.5 if run.recipe.balance_labels else responses.count(UNSAFE) / len(responses)


def fit_linear_probe(run: Run, trainer: "SafetyTrainer", folder: Path) -> None:
    """Fit the linear probe that reports compare with, and save it beside the adapter, where the settings want one."""
    if not run.recipe.linear_probe:
        return
    from recipes.linear_probe import Features, fit_probe, pooled_features
    from recipes.metrics import class_ids

    def pooled(split: str) -> tuple[Features, "np.ndarray"]:
        rows = run.source.rows(split)
        features = pooled_features(
            trainer.model.get_base_model(),
            trainer.data_collator,
            rows,
            batch_size=run.training.per_device_eval_batch_size,
            folder=folder,
            num_workers=run.training.dataloader_num_workers,
        )
        return features, class_ids(rows["response"][:])

    probe, reason = fit_probe(pooled("train"), pooled("validation"), balance_labels=run.recipe.balance_labels)
    print(reason, file=sys.stderr)
    probe.write(folder)


def plot_training(trainer: "SafetyTrainer", folder: Path) -> None:
    """Leave a picture of the losses and the validation figures beside the adapter."""
    from recipes.training_plot import training_plot

    state = trainer.state
    write_atomic(folder / "training.png", training_plot(finite(state.log_history), state.best_global_step))


def safety_record(run: Run, threshold: float, threshold_from: str) -> SafetyRecord:
    """Describe how the adapter was trained and is to be asked."""
    return SafetyRecord(
        prompt=run.prompt,
        labels=LABELS,
        max_pixels=run.recipe.max_pixels,
        base_model=run.base.name,
        base_revision=run.base.revision,
        dtype=run.model.dtype,
        load_in_4bit=run.model.load_in_4bit,
        threshold=threshold,
        threshold_from=threshold_from,
        training_prior=training_prior(run),
        dataset=run.source.id,
        dataset_revision=run.source.revision,
        dataset_hash=run.source.content_hash,
        seed=run.training.seed,
    )


def save_adapter(trainer: "SafetyTrainer", record: SafetyRecord, folder: Path) -> None:
    """Save the best adapter and its processor into the run's folder; safety.json comes last and marks it finished."""
    unfinished = folder / ".adapter.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    trainer.model.save_pretrained(str(unfinished))
    trainer.processing_class.save_pretrained(unfinished)
    write_atomic(unfinished / "README.md", model_card(record, to_root(folder)).encode())
    for file in sorted(unfinished.iterdir()):
        file.replace(folder / file.name)
    unfinished.rmdir()
    record.write(folder)


if __name__ == "__main__":
    run_script(main)
