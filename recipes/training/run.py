"""What a run is determined by, in one record: its settings, base, data and prompt. Imports neither torch nor TRL."""

import atexit
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import cpu_count

from data_prep.errors import InputError
from data_prep.files import from_root
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.labels import LABELS, TRAIN, UNSAFE
from data_prep.prompt import check_plain
from recipes.adapter.safety_record import SafetyRecord
from recipes.model.base import BaseModel
from recipes.ranks.place import here, is_alone, is_first
from recipes.ranks.shares import at_once_of, frames_a_process, loaders_of
from recipes.training.checks import check_device, check_reporting, check_updates
from recipes.training.command_line import Settings
from recipes.training.run_folder import RunFolder
from recipes.training.settings import RecipeArguments

if TYPE_CHECKING:
    import torch
    from trl import ModelConfig, SFTConfig

# What processes of a job may have each their own, beside their places on their disks.
MAY_DIFFER = {
    "base_revision",
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "dataset",
    "disable_tqdm",
    "model_name_or_path",
    "report_to",
    "vision_cache",
}
OF_ALL = ("per_device_train_batch_size", "gradient_accumulation_steps", "dataloader_num_workers")


@dataclass(frozen=True)
class Run:
    """Everything that a run is determined by, and what follows from it alone.

    `recipe`, `training` and `model` are its effective settings, as this project's and TRL's dataclasses part them.
    Where several processes train, `training` is what each of them does, and `of_all` what they do together.
    """

    recipe: RecipeArguments
    training: "SFTConfig"
    model: "ModelConfig"
    base: BaseModel
    source: FramesSource
    prompt: str
    of_all: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> RunFolder:
        """The folder that all of it is written to; one that goes with the process where that isn't the first."""
        return RunFolder(Path(self.training.output_dir))

    @property
    def dtype(self) -> "torch.dtype":
        """The precision of what isn't packed into 4 bits."""
        import torch

        return getattr(torch, self.model.dtype)

    @property
    def responses(self) -> list[str]:
        """The labels of the training rows, in order."""
        return list(self.source.rows(TRAIN)["response"][:])

    @property
    def base_revision(self) -> str:
        """The base's revision, as the run began with it where the base has been written anew since, weights apart."""
        begun: str | None = self.folder.begun().get("base_revision") if is_first() else None
        return begun if begun is not None and self.base.is_at(begun) else self.base.revision

    @property
    def training_prior(self) -> float:
        """The share that UNSAFE has in the training loss."""
        if self.recipe.balance_labels:
            return 0.5
        responses = self.responses
        return responses.count(UNSAFE) / len(responses)

    def record(self) -> dict[str, Any]:
        """Collect what it computes from: every effective setting, the base's revision and the data's hash."""
        # Absolute paths are left out: they name this machine, and a moved run is still the same run.
        settings = {name: value for name, value in self.training.to_dict().items() if not str(value).startswith("/")}
        identity: dict[str, Any] = {"base_revision": self.base_revision, "dataset_hash": self.source.content_hash}
        if self.model.lora_dropout:  # each process drops out by random numbers of its own
            identity["processes"] = here().ranks
        return {**settings, **self.of_all, **asdict(self.model), **asdict(self.recipe), **identity}

    def safety_record(self, threshold: float, threshold_from: str) -> SafetyRecord:
        """Describe how its adapter was trained and is to be asked."""
        return SafetyRecord(
            prompt=self.prompt,
            labels=LABELS,
            max_pixels=self.recipe.max_pixels,
            base_model=self.base.name,
            base_revision=self.base_revision,
            dtype=self.model.dtype,
            load_in_4bit=self.model.load_in_4bit,
            threshold=threshold,
            threshold_from=threshold_from,
            training_prior=self.training_prior,
            dataset=self.source.id,
            dataset_revision=self.source.revision,
            dataset_hash=self.source.content_hash,
            seed=self.training.seed,
            frames=self.source.frames,
        )


def prepare_run(settings: Settings, base: BaseModel, source: FramesSource | None = None) -> Run:
    """Turn settings into the libraries' own dataclasses and ours, and open the data unless its `source` is given.

    Raises InputError for unusable values, and for a run that could learn nothing.
    """
    recipe, training, model = settings.as_dataclasses()
    check_device(settings.values, training)
    check_reporting(training.report_to)
    of_all = {name: getattr(training, name) for name in OF_ALL}
    share_work(training)
    set_prefetch(training)
    training.output_dir = str(from_root(training.output_dir))
    training.disable_tqdm = training.disable_tqdm or not sys.stderr.isatty()
    if not is_first():
        training.output_dir, training.report_to, training.disable_tqdm = _folder_for_a_while(), [], True
    source = source or open_dataset(recipe.dataset, revision=recipe.dataset_revision)
    check_updates(settings.values, len(source.dataset[TRAIN]))
    return Run(recipe, training, model, base, source, only_prompt(source), of_all)


def share_work(training: "SFTConfig") -> None:
    """Have this process take its share of an update's frames, and of its machine's cores.

    Raises InputError where so many processes can't take alike many.
    """
    frames = training.per_device_train_batch_size
    share = frames_a_process(frames * training.gradient_accumulation_steps, here().ranks)
    if is_alone():
        return
    training.per_device_train_batch_size, training.gradient_accumulation_steps = at_once_of(share, frames)
    loaders = loaders_of(training.dataloader_num_workers, cpu_count(), here().local_ranks)
    training.dataloader_num_workers = loaders


def _folder_for_a_while() -> str:
    folder = tempfile.mkdtemp(prefix="rank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def check_same_inputs(values: Mapping[str, Any], base: BaseModel, source: FramesSource) -> None:
    """Raise InputError, in all processes of a job, where one has another base, data or settings than the first."""
    if is_alone():
        return
    from recipes.model.device import choose_device
    from recipes.ranks.group import compare

    device = "cpu" if values["use_cpu"] else choose_device().type
    said = {name: str(value) for name, value in values.items() if name not in {*MAY_DIFFER, "output_dir"}}
    said = {name: value for name, value in said.items() if not value.startswith("/")}
    compare({"base_revision": base.revision, "dataset_hash": source.content_hash, "device": device, **said})


def check_same_run(run: Run) -> None:
    """Raise InputError, in all processes of a job, where one has other settings than the first."""
    if is_alone():
        return
    from recipes.ranks.group import compare

    compare({name: str(value) for name, value in run.record().items() if name not in MAY_DIFFER})


def set_prefetch(training: "SFTConfig") -> None:
    """Have the loading processes prepare as many batches as an update takes at once, where nothing else is set."""
    workers = training.dataloader_num_workers
    if workers and training.dataloader_prefetch_factor is None:
        training.dataloader_prefetch_factor = max(2, math.ceil(training.gradient_accumulation_steps / workers))


def only_prompt(source: FramesSource) -> str:
    """Return the one prompt that all training rows ask.

    Raises InputError where there are several, and for one that holds a special token of the chat template's.
    """
    prompts = source.dataset[TRAIN].unique("prompt")
    if len(prompts) != 1:
        raise InputError(f"data set {source.id!r} asks {len(prompts)} different prompts; an adapter answers one")
    check_plain(prompts[0], f"data set {source.id!r}")
    return prompts[0]
