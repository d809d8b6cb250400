"""What a run needs besides hardware, a check each: its base, its data, memory, disk, folders that it may write to."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants
from joblib import cpu_count

from data_prep.disk.byte_counts import GIB, size_in_words
from data_prep.disk.places import standing
from data_prep.errors import InputError
from data_prep.files import check_writable, from_root, to_root
from data_prep.hub.source import FramesSource, check_dataset, open_dataset
from data_prep.labels import TRAIN
from recipes.machine.finding import Skipped
from recipes.machine.host_system import MORE_MEMORY_IN_WSL, check_page_locking, in_wsl
from recipes.machine.memory import predict_memory, shortages
from recipes.machine.placed_weights import adapter_weights
from recipes.machine.plan import ASSUMED_FRAMES, LEAVE_IT_TO_THE_MACHINE, Plan, epochs_of, frames_on_cpu
from recipes.machine.plan_in_words import in_words
from recipes.machine.planner import plan_run
from recipes.machine.schedule import checkpoints_of
from recipes.model.base import BaseModel, find_base
from recipes.model.base_files import check_precision, weight_files
from recipes.ranks.shares import frames_a_process, frames_of, loaders_of

DOWNLOAD_BYTES = {"Qwen/Qwen2-VL-7B-Instruct": 16.6e9, "Qwen/Qwen2-VL-2B-Instruct": 4.4e9}
CHECKPOINT_BYTES = 16  # a weight of the adapter, its optimizer's moments included


class DiskNeed(NamedTuple):
    """What a run writes where, at most so many bytes."""

    what: str
    folder: Path
    size: float


@dataclass
class RunNeeds:
    """What a run with a YAML's `settings` needs; its base, data set and plan once their checks have found them.

    `pinned` are the lines of a plan that are given. Where there are several `cards`, a process trains on each, and all
    share an update's frames and the host.

    A check returns what it saw, in words. It raises InputError for what stands in the run's way, Skipped where there is
    nothing to look at. Nothing is downloaded, and nothing is left behind.
    """

    settings: Mapping[str, Any]
    base: BaseModel | None = None
    source: FramesSource | None = None
    pinned: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    unplanned: bool = False
    cards: int = 1

    @property
    def frames(self) -> int:
        """How many frames the data set has to train on and validate, ASSUMED_FRAMES where it isn't known."""
        return ASSUMED_FRAMES if self.source is None else self.source.frames_beside_test

    def check_base(self) -> str:
        """Look the base model up on this machine, all its weight files included."""
        name, revision = self.settings["model_name_or_path"], self.settings.get("model_revision")
        base = find_base(name, revision, download=False)
        check_precision(base.name, base.read_config(), load_in_4bit=self.settings.get("load_in_4bit", False))
        self.base = base
        size = sum((base.folder / file).stat().st_size for file in weight_files(base.folder))
        return f"{base.name}, revision {base.revision[:12]}, {size_in_words(size)} of weights"

    def check_data(self) -> str:
        """Check every byte of the data set, and say what it holds and what its audit found."""
        name, revision = self.settings["dataset"], self.settings.get("dataset_revision")
        check_dataset(name, revision=revision)
        self.source = source = open_dataset(name, revision=revision)
        audit = source.audit
        if audit is None:
            return f"{source.describe()}; no audit is known of it"
        return (
            f"{source.describe()}; {len(audit['identical_clips'])} groups of identical clips, "
            f"{len(audit['test_clips_with_twins'])} test clips with a twin, {len(audit['left_out_of_train'])} clips "
            "left out of train"
        )

    def check_plan(self, *, gpu_found: bool) -> str:
        """Plan what the YAML leaves to the machine, and go by that from here on."""
        update = self.settings["frames_an_update"]
        if update is None:
            raise Skipped("this YAML leaves nothing to the machine (frames_an_update isn't set)")
        if not gpu_found:
            self.settings = {**self.settings, **frames_on_cpu(update, self.pinned)}
            raise Skipped("made for a GPU alone")
        if self.base is None:
            raise Skipped("there is no base model to go by")
        from recipes.machine.this_machine import smallest_of_cards

        self.unplanned = True
        machine = smallest_of_cards(self.cards, from_root(self.settings["vision_cache"]))
        one = {**self.settings, "frames_an_update": frames_a_process(update, self.cards)}
        self.plan = plan_run(one, self.pinned, self.base.read_config(), machine, frames=self.frames)
        epochs = epochs_of(self.settings, self.frames)
        self.settings, self.unplanned = {**self.settings, **self.plan.values}, False
        said = in_words(self.plan, frames=self.frames // self.cards, epochs=epochs)
        return "; ".join(said + ([f"so much for each of {self.cards} processes"] if self.cards > 1 else []))

    def check_memory(self, *, gpu_found: bool) -> str:
        """Compare what training is predicted to take with what card and host have free."""
        if not gpu_found:
            raise Skipped("predicted for training on a GPU alone")
        if self.base is None:
            raise Skipped("there is no base model to go by")
        if self.unplanned:
            raise Skipped("there is no plan")
        from recipes.model.device import room_beside_others

        room = room_beside_others(self.cards)
        need = predict_memory(self.settings, self.base.read_config())
        if missing := shortages(need, **room):
            wsl = [MORE_MEMORY_IN_WSL] if in_wsl() else []
            raise InputError("; ".join([*missing, *wsl, LEAVE_IT_TO_THE_MACHINE]))
        each = f"for each of {self.cards} processes " if self.cards > 1 else ""
        found = (
            f"{each}about {need.card_gib:.1f} of {room['card_bytes'] / GIB:.1f} GiB on the card, "
            f"{need.host_gib:.1f} of {room['host_bytes'] / GIB:.1f} GiB on the host"
        )
        return "; ".join(said for said in (found, check_page_locking(need.host_gib * GIB)) if said)

    def check_cores(self, *, gpu_found: bool) -> str:
        """Count the processes that train and those that feed them, beside the cores there are; look at the shares."""
        import torch

        self.cards = torch.cuda.device_count() if gpu_found else 1
        cores, loaders = cpu_count(), self.settings["dataloader_num_workers"]
        update = self.settings["frames_an_update"]
        frames_a_process(update or frames_of(self.settings), self.cards)
        fed = loaders_of(loaders, cores, self.cards)
        return f"{cores} for {self.cards} training process{'es' * (self.cards > 1)} with {fed} loaders each"

    def check_disk(self) -> str:
        """Compare what a run writes with what the disks have free."""
        if self.unplanned:
            raise Skipped("there is no plan")
        said = []
        for need in self.disk_needs():
            free = shutil.disk_usage(standing(need.folder)).free
            if need.size > free:
                raise InputError(
                    f"{need.what}: {size_in_words(need.size)} needed in {to_root(need.folder)}, and "
                    f"{size_in_words(free)} are free"
                )
            said.append(f"{need.what} up to {size_in_words(need.size)} of {size_in_words(free)}")
        return ", ".join(said)

    def disk_needs(self) -> Iterator[DiskNeed]:
        """Yield what is written: the base where it isn't here, else the data set's kept features and checkpoints."""
        name = self.settings["model_name_or_path"]
        if self.base is None:
            if name not in DOWNLOAD_BYTES:
                raise Skipped(f"what base model {name!r} takes isn't known before it is here")
            yield DiskNeed("the base model", Path(constants.HF_HUB_CACHE), DOWNLOAD_BYTES[name])
            return
        config, splits = self.base.read_config(), self.source.dataset if self.source else {}
        if self.source and (features := predict_memory(self.settings, config).disk_bytes_a_frame):
            yield DiskNeed("vision features", from_root(self.settings["vision_cache"]), features * self.frames)
        saved = checkpoints_of(self.settings, len(splits.get(TRAIN, ())))
        size = CHECKPOINT_BYTES * adapter_weights(self.settings, config) * saved
        yield DiskNeed("checkpoints", from_root(self.settings["output_dir"]), size)

    def check_folders(self) -> str:
        """See that a run can write where it has to."""
        folders = [Path(constants.HF_HUB_CACHE), from_root(self.settings["output_dir"])]
        if self.settings["cache_vision_features"]:
            folders.append(from_root(self.settings["vision_cache"]))
        for folder in folders:
            check_writable(folder)
        return f"{', '.join(to_root(folder) for folder in folders)} can be written to"
