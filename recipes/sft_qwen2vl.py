"""Fine-tune Qwen2-VL to answer SAFE or UNSAFE about one frame, by QLoRA, from one YAML.

    accelerate launch recipes/sft_qwen2vl.py [--config recipes/configs/qwen2vl_7b_8gb.yaml] [--learning_rate 1e-4 …]

Every line of the YAML may be overridden by a flag of the same name. Without --config it runs the 8 GB recipe.
"""

import math
import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from data_prep.console import run_script, silence_known_messages
from data_prep.errors import InputError
from data_prep.files import from_root, to_root, write_atomic
from data_prep.hub.source import FramesSource, check_dataset, open_dataset
from data_prep.labels import LABELS, UNSAFE
from recipes.adapter.model_card import model_card
from recipes.adapter.safety_record import SafetyRecord
from recipes.machine.memory import predict_memory, shortages
from recipes.machine.recipe_choice import best_recipe
from recipes.metrics.threshold import choose_threshold, fixed_threshold
from recipes.model.base import BaseModel, find_base
from recipes.model.base_files import check_precision
from recipes.training.checkpoints import is_trained_out
from recipes.training.checks import check_device, check_learned, check_reporting, check_settings, check_updates
from recipes.training.command_line import Settings, read_settings
from recipes.training.finishing import (
    PLOT_FILE,
    attempt,
    fit_linear_probe,
    plot_training,
    save_adapter,
    training_summary,
)
from recipes.training.library_settings import ALWAYS
from recipes.training.run_folder import RunFolder
from recipes.training.settings import RecipeArguments
from recipes.training.stopping import StopRequest, follow_launcher

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

    from recipes.batches.collator import VisionCollator
    from recipes.batches.vision_cache import VisionCache
    from recipes.training.trainer import SafetyTrainer


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
    settings = read_settings(argv)
    check_settings(settings.values)
    folder = RunFolder(from_root(settings.values["output_dir"]))
    folder.check_free(resume=settings.values["resume"])
    check_dataset(settings.values["dataset"], revision=settings.values["dataset_revision"])
    base = find_base(settings.values["model_name_or_path"], settings.values["model_revision"])
    check_precision(base.name, base.read_config(), load_in_4bit=settings.values["load_in_4bit"])

    run = prepare_run(settings, base)
    check_room(run)
    print(run.source.describe(), file=sys.stderr)
    with folder.locked():
        folder.record(run_record(run))
        return complete(run, folder) if folder.is_finished else train(run, folder)


def show_help() -> int:
    """Print all settings, this recipe's own first, with what they are for."""
    from trl import ModelConfig, SFTConfig, TrlParser

    parser = TrlParser((RecipeArguments, SFTConfig, ModelConfig), prog="sft_qwen2vl.py", description=__doc__)
    print(parser.format_help())
    return 0


def prepare_run(settings: Settings, base: BaseModel) -> Run:
    """Turn settings into the libraries' own dataclasses and ours, and open the data.

    Raises InputError for unusable values, and for a run that could learn nothing.
    """
    recipe_args, training_args, model_args = as_dataclasses(settings)
    check_device(settings.values, training_args)
    check_reporting(training_args.report_to)
    have_an_update_ready(training_args)
    training_args.output_dir = str(from_root(training_args.output_dir))
    training_args.disable_tqdm = training_args.disable_tqdm or not sys.stderr.isatty()
    source = open_dataset(recipe_args.dataset, revision=recipe_args.dataset_revision)
    check_updates(settings.values, len(source.dataset["train"]))
    return Run(recipe_args, training_args, model_args, base, source, the_prompt(source))


def as_dataclasses(settings: Settings) -> "tuple[RecipeArguments, SFTConfig, ModelConfig]":
    """Have TRL's parser make dataclasses of the settings, which were read before it was loaded.

    Raises InputError for values that the libraries refuse.
    """
    from trl import ModelConfig, SFTConfig, TrlParser

    def refuse(message: str) -> NoReturn:
        raise InputError(f"settings: {message}")

    parser = TrlParser((RecipeArguments, SFTConfig, ModelConfig))
    parser.error = refuse  # argparse would print all of its usage
    parser.set_defaults_with_config(**{**settings.given, **ALWAYS})
    try:
        recipe_args, training_args, model_args = parser.parse_args_into_dataclasses([], look_for_args_file=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"settings: {error}") from None
    model_args.lora_target_modules = settings.values["lora_target_modules"]
    return recipe_args, training_args, model_args


def check_room(run: Run) -> None:
    """Raise InputError where the run can't fit the card or the host, unless the settings say to try."""
    if run.training.device.type == "cpu" or not run.recipe.fit_check:
        return
    from recipes.model.device import free_room

    config = run.base.read_config()
    room = free_room(run.training.device)
    if missing := shortages(predict_memory(run_record(run), config), **room):
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
    prompts = source.dataset["train"].unique("prompt")
    if len(prompts) != 1:
        raise InputError(f"data set {source.id!r} asks {len(prompts)} different prompts; an adapter answers one")
    return prompts[0]


def run_record(run: Run) -> dict[str, Any]:
    """Collect what the run computes from: every effective setting, the base's revision and the data's hash."""
    # Absolute paths are left out: they name this machine, and a moved run is still the same run.
    settings = {name: value for name, value in run.training.to_dict().items() if not str(value).startswith("/")}
    identity = {"base_revision": run.base.revision, "dataset_hash": run.source.content_hash}
    return {**settings, **asdict(run.model), **asdict(run.recipe), **identity}


def train(run: Run, folder: RunFolder) -> int:
    """Train from the start or the last whole checkpoint, save the best adapter; return the exit status."""
    from transformers import EarlyStoppingCallback, set_seed

    from recipes.model.device import use_all_cores
    from recipes.training.trainer import StopOnRequest

    use_all_cores()
    fill_vision_cache(run)
    set_seed(run.training.seed)
    with StopRequest() as stop, redirect_stdout(sys.stderr):  # the trainer prints progress; stdout is for results
        trainer = build_trainer(run)
        trainer.add_callback(StopOnRequest(stop))
        if run.recipe.early_stopping_patience is not None:
            trainer.add_callback(EarlyStoppingCallback(run.recipe.early_stopping_patience))
        trained = resume(trainer, folder) if run.recipe.resume else bool(trainer.train())
        trainer.watch.check()
    step = trainer.state.global_step
    if trained and stop.received and step < trainer.state.max_steps:
        print(f"stopped by {stop.received.name} at step {step}, checkpoint saved; go on with --resume", file=sys.stderr)
        return stop.exit_status
    finish(run, trainer, folder, trained=trained)
    return 0


def resume(trainer: "SafetyTrainer", folder: RunFolder) -> bool:
    """Go on from the last whole checkpoint, or begin where there is none; say whether there was anything to train."""
    checkpoint = folder.last_checkpoint()
    print(f"resuming from {checkpoint.name if checkpoint else 'the start'}", file=sys.stderr)
    if checkpoint and is_trained_out(checkpoint):
        trainer.take_up(checkpoint)
        return False
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return True


def finish(run: Run, trainer: "SafetyTrainer", folder: RunFolder, *, trained: bool) -> None:
    """Leave what a finished run holds: the adapter first, then its record, then what may be missing."""
    state = trainer.state
    check_learned(trainer.model, state.best_global_step if run.training.load_best_model_at_end else state.global_step)
    folder.write_summary(training_summary(trainer), trained=trained)
    folder.write_adapter(lambda place: save_adapter(trainer, place))
    record = safety_record(run, *operating_point(run, trainer))
    write_atomic(folder.path / "README.md", model_card(record, to_root(folder.path)).encode())
    folder.finish(record)
    attempt(PLOT_FILE, lambda: plot_training(folder.path))
    add_linear_probe(run, trainer, folder)
    print(to_root(folder.path))


def complete(run: Run, folder: RunFolder) -> int:
    """Make what a finished run is to have and lacks, its picture or its linear probe; return the exit status."""
    from recipes.metrics.linear_probe import FILE_NAME
    from recipes.model.device import use_all_cores

    has_plot = (folder.path / PLOT_FILE).is_file()
    lacks_probe = run.recipe.linear_probe and not (folder.path / FILE_NAME).is_file()
    lacking = [what for what, lacks in ((PLOT_FILE, not has_plot), ("its linear probe", lacks_probe)) if lacks]
    rest = f", but for {' and '.join(lacking)}" if lacking else "; nothing to do"
    print(f"{folder.path.name}: this very run has finished already{rest}", file=sys.stderr)
    if not has_plot:
        attempt(PLOT_FILE, lambda: plot_training(folder.path))
    if lacks_probe:
        use_all_cores()
        fill_vision_cache(run)
        with redirect_stdout(sys.stderr):
            add_linear_probe(run, build_trainer(run), folder)
    return 0


def add_linear_probe(run: Run, trainer: "SafetyTrainer", folder: RunFolder) -> None:
    """Fit the linear probe where the settings want one; without it the run is whole, and --resume tries again."""
    if run.recipe.linear_probe:
        attempt(
            "the linear probe",
            lambda: fit_linear_probe(
                trainer,
                {split: run.source.rows(split) for split in ("train", "validation")},
                balance_labels=run.recipe.balance_labels,
                folder=folder.path,
            ),
        )


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
    responses = run.source.rows("train")["response"][:]
    return 0.5 if run.recipe.balance_labels else responses.count(UNSAFE) / len(responses)


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
        frames=run.source.frames,
    )


def build_trainer(run: Run) -> "SafetyTrainer":
    """Load processor and base, and set up the trainer on the train and validation splits.

    Where vision features are kept, fill_vision_cache comes first.
    """
    import torch
    from transformers.integrations import TensorBoardCallback

    from recipes.adapter.lora import lora_config
    from recipes.model import loading
    from recipes.model.device import compile_layers
    from recipes.model.quantized import unpack_quantized
    from recipes.training.trainer import SafetyTrainer

    recipe, dtype = run.recipe, getattr(torch, run.model.dtype)
    collator = build_collator(run)
    if recipe.cache_vision_features:
        collator.read_features = vision_cache_of(run).read
    model = loading.load_base(
        run.base,
        dtype=dtype,
        load_in_4bit=run.model.load_in_4bit,
        device=run.training.device,
        placement=loading.Placement(
            embedding_on_host=recipe.embedding_on_host,
            head_on_host=recipe.head_on_host,
            without_vision=recipe.cache_vision_features,
        ),
    )
    if recipe.unpack_base:
        unpack_quantized(model, dtype)
    if recipe.compile_layers:
        compile_layers(model)
    trainer = SafetyTrainer(
        model=model,
        optimizer_on_host=recipe.optimizer_on_host,
        cuda_graphs=recipe.cuda_graphs,
        args=run.training,
        train_dataset=run.source.rows("train"),
        eval_dataset=run.source.rows("validation"),
        processing_class=collator.processor,
        data_collator=collator,
        peft_config=lora_config(
            r=run.model.lora_r,
            alpha=run.model.lora_alpha,
            dropout=run.model.lora_dropout,
            target_modules=run.model.lora_target_modules,
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

    from recipes.batches.vision_cache import VisionCache

    folder, dtype = from_root(run.recipe.vision_cache), getattr(torch, run.model.dtype)
    return VisionCache(folder, run.base, max_pixels=run.recipe.max_pixels, max_side=run.source.max_side, dtype=dtype)


def fill_vision_cache(run: Run) -> None:
    """Compute the vision features that the run's frames lack, where it is to keep them; a second call finds them all.

    Whatever ends it leaves whole entries, so a run started again goes on where this one was.
    """
    if not run.recipe.cache_vision_features:
        return
    from recipes.batches.vision_cache import EncodedFrames, fill_cache

    computed = fill_cache(
        vision_cache_of(run),
        EncodedFrames(run.source, ("train", "validation")),
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

    from recipes.batches.collator import VisionCollator, balanced_label_weights
    from recipes.model.loading import load_processor

    responses = run.source.rows("train")["response"][:]
    return VisionCollator(
        load_processor(run.base.folder),
        run.recipe.max_pixels,
        balanced_label_weights(responses) if run.recipe.balance_labels else None,
        max_side=run.source.max_side,
        dtype=getattr(torch, run.model.dtype),
    )


if __name__ == "__main__":
    run_script(main)
