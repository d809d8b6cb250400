"""Everything that a run is determined by, in one record, and what follows from it. Imports neither torch nor TRL."""

import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data_prep.errors import InputError
from data_prep.files import from_root
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.labels import LABELS, UNSAFE
from recipes.adapter.safety_record import SafetyRecord
from recipes.machine.memory import predict
from recipes.machine.recipe_choice import best_recipe, shortages
from recipes.model.base import BaseModel
from recipes.training.checks import (
    check_device,
    check_reporting,
    check_updates,
)
from recipes.training.command_line import Settings, as_dataclasses
from recipes.training.settings import RecipeArguments

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig


@dataclass(frozen=True)
class Run:
    """Everything a run is determined by."""

    recipe: RecipeArguments
    training: "SFTConfig"
    model: "ModelConfig"
    base: BaseModel
    source: FramesSource
    prompt: str


def prepare_run(settings: Settings, base: BaseModel) -> Run:
    """Turn settings into the libraries' own dataclasses and ours, and open the data.

    Raises InputError for unusable values, and for a run that could learn nothing.
    """
    recipe_args, training_args, model_args = as_dataclasses(settings)
    check_device(settings.values, training_args)
    check_reporting(training_args.report_to)
    set_prefetch(training_args)
    training_args.output_dir = str(from_root(training_args.output_dir))
    training_args.disable_tqdm = training_args.disable_tqdm or not sys.stderr.isatty()
    source = open_dataset(recipe_args.dataset, revision=recipe_args.dataset_revision)
    check_updates(settings.values, len(source.dataset["train"]))
    return Run(recipe_args, training_args, model_args, base, source, only_prompt(source))


def set_prefetch(training_args: "SFTConfig") -> None:
    """Have the loading processes prepare as many batches as an update takes at once, where nothing else is set."""
    workers = training_args.dataloader_num_workers
    if workers and training_args.dataloader_prefetch_factor is None:
        training_args.dataloader_prefetch_factor = max(
            2, math.ceil(training_args.gradient_accumulation_steps / workers)
        )


def only_prompt(source: FramesSource) -> str:
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


def check_room(run: Run) -> None:
    """Raise InputError where the run can't fit the card or the host, unless the settings say to try."""
    if run.training.device.type == "cpu" or not run.recipe.fit_check:
        return
    from recipes.model.device import free_room

    config = run.base.read_config()
    room = free_room(run.training.device)
    if missing := shortages(predict(run_record(run), config), **room):
        best = best_recipe(config, **room)
        hint = f"{best} would fit" if best else "take fewer frames at once or a lower max_pixels"
        raise InputError(f"{missing[0]}; {hint}; --fit_check false tries nevertheless")
