"""A run's folder, and the only writer of it: from lock and run.json to adapter, record, card and picture. No torch."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.disk.disk_errors import named
from data_prep.errors import InputError
from data_prep.files import if_supported, portable_name, replace, sync, to_root, write_atomic, write_json
from data_prep.locks import HELD_SUFFIX, hold_lock
from recipes.adapter.export_card import export_card
from recipes.adapter.label_tokens import label_tokens
from recipes.adapter.model_card import CARD_FILE, is_own_card, model_card
from recipes.adapter.safety_record import RUN_FILE, SafetyRecord, is_finished
from recipes.layers.sizes import LLM_LINEARS
from recipes.machine.plan import PLANNED
from recipes.metrics.seen_rows import SeenRows
from recipes.training.checkpoints import checkpoint_of, has_checkpoints, last_whole_checkpoint, seal
from recipes.training.free_settings import FIXED_AT_THE_END, FREE_SETTINGS, KEPT_BY_A_RUN, MIRRORED

if TYPE_CHECKING:
    from recipes.metrics.linear_probe import LinearProbe

LOCK_NAME = ".lock"
_LOCKS = {LOCK_NAME, f"{LOCK_NAME}{HELD_SUFFIX}"}
SUMMARY_FILE = "training.json"
PLOT_FILE = "training.png"
STAGING = ".adapter.unfinished"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, unfinished or finished. Killed between any two writes, a run goes on to the same files.

    Whatever else writes into it, such as PEFT or transformers' trainer, is handed a path by a method here, which sees
    that what comes of it is whole.
    """

    path: Path

    @property
    def is_finished(self) -> bool:
        """Say whether the adapter stands there with its record, which is written after it."""
        return is_finished(self.path)

    @property
    def has_begun(self) -> bool:
        """Say whether it holds work: a setting refused before the first checkpoint must not lock it."""
        return self.is_finished or has_checkpoints(self.path)

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard's own writer keeps its log of the run, which nothing reads here."""
        return self.path / "tensorboard"

    def check_free(self, *, resume: bool) -> None:
        """Raise InputError where it is in use: by a finished run, or by an unfinished one that isn't to be resumed."""
        folder = self.path
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output_dir {folder} is a file; name another with --output_dir")
        found = {path.name for path in folder.iterdir()} - _LOCKS if folder.exists() else set()
        if found and RUN_FILE not in found:
            raise InputError(f"output_dir {folder} is not empty and holds no run; name another with --output_dir")
        if resume or not self.has_begun:
            return
        if self.is_finished:
            raise InputError(
                f"output_dir {folder} holds a finished run, which is never overwritten; name another output_dir"
            )
        raise InputError(f"output_dir {folder} holds an unfinished run; go on with --resume or name another output_dir")

    def locked(self) -> AbstractContextManager[None]:
        """Make the folder and hold it. Raises InputError where another process does."""
        self.path.mkdir(parents=True, exist_ok=True)
        return hold_lock(self.path / LOCK_NAME, f"another run is training into {self.path}; wait or end it")

    def begun(self) -> dict[str, Any]:
        """Return the settings that a run began with which holds work; of another there are none."""
        if not self.has_begun:
            return {}
        settings: dict[str, Any] = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
        return settings

    def record(self, settings: dict[str, Any]) -> None:
        """Write the run's settings as run.json, or compare with what stands there.

        Raises InputError where a continued run's settings or data differ from those it began with. What is free to
        differ is written anew, as long as the run isn't finished.
        """
        settings, file = json.loads(json.dumps(settings, default=str)), self.path / RUN_FILE
        if begun := self.begun():
            self._compare(begun, settings)
            if self.is_finished or begun == settings:
                return
        write_json(file, settings)

    def _compare(self, begun: dict[str, Any], settings: dict[str, Any]) -> None:
        free = FREE_SETTINGS - FIXED_AT_THE_END if self.is_finished else FREE_SETTINGS
        if settings.get("frames_an_update") is not None:
            free = free | {*PLANNED, *MIRRORED} - set(KEPT_BY_A_RUN)
            self._compare_updates(begun, settings)
        for name in sorted(set(begun) | set(settings)):
            was, now = _comparable(name, begun.get(name)), _comparable(name, settings.get(name))
            if name not in free and was != now:
                raise InputError(
                    f"--resume: {name} was {was!r} when {self.path.name} began and is {now!r} now; set it back, or "
                    "start anew with another output_dir"
                )

    def _compare_updates(self, begun: dict[str, Any], settings: dict[str, Any]) -> None:
        was, now = (
            each["per_device_train_batch_size"] * each["gradient_accumulation_steps"] for each in (begun, settings)
        )
        if was != now:
            raise InputError(
                f"--resume: an update was of {was} frames when {self.path.name} began and is of {now} now; set "
                f"frames_an_update to {was}, or start anew with another output_dir"
            )

    def last_checkpoint(self) -> Path | None:
        """Return the last whole checkpoint, if any; torn ones after it are told of and removed."""
        checkpoint, torn = last_whole_checkpoint(self.path)
        for path in torn:
            print(f"{path.name} is torn, its save was cut off: passing it over and removing it", file=sys.stderr)
            shutil.rmtree(path)  # left there, it would count as the newest when older checkpoints are let go
        return checkpoint

    def write_checkpoint(
        self, step: int, save: Callable[[], None], seen: SeenRows, *, kept: int | None, best: str | None
    ) -> None:
        """Have `save` write the checkpoint of a step, seal it with what was noted so far, and only then let others go.

        What a run that is killed noted after its last checkpoint goes with it, and is noted anew. The newest `kept`
        stay, all of them for None, and `best`, the path of one.
        """
        from transformers.trainer_utils import rotate_checkpoints

        checkpoint = checkpoint_of(self.path, step)
        with named(checkpoint):
            save()
        seen.write(checkpoint)
        seal(checkpoint)
        rotate_checkpoints(output_dir=str(self.path), save_total_limit=kept, best_model_checkpoint=best)

    def write_summary(self, summary: dict[str, Any], *, trained: bool) -> None:
        """Write training.json; where this process found nothing left to train, an earlier one's stays."""
        if trained or not (self.path / SUMMARY_FILE).is_file():
            write_json(self.path / SUMMARY_FILE, summary)

    def write_log_odds(self, seen: SeenRows) -> None:
        """Write what training noted of its rows."""
        seen.write(self.path)

    def write_adapter(self, save: Callable[[Path], None]) -> None:
        """Have `save` write adapter and processor into a folder, and put those files in place, each of them whole."""
        staging = self.path / STAGING
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
        with named(staging):
            save(staging)
        for file in sorted(staging.iterdir()):
            with if_supported():
                file.chmod(0o644)  # safetensors' are for their writer alone: root, where it was a container's
            sync(file)
            replace(file, self.path / file.name)
        staging.rmdir()
        sync(self.path)

    def write_card(self, record: SafetyRecord, report: dict[str, Any] | None = None) -> None:
        """Write the adapter's card, or an export's, with a report's figures; one that someone has changed stays."""
        card = self.path / CARD_FILE
        if self.is_finished and card.is_file() and not is_own_card(card.read_text(encoding="utf-8")):
            print(
                f"{CARD_FILE} was changed by hand and stays as it is; remove it to have it written anew",
                file=sys.stderr,
            )
            return
        if record.merged:
            text = export_card(record, portable_name(self.path), label_tokens(self.path), report)
        else:
            text = model_card(record, to_root(self.path), report)
        write_atomic(card, text.encode())

    def finish(self, record: SafetyRecord) -> None:
        """Write safety.json, which says that the adapter beside it is the run's."""
        record.write(self.path)
        sync(self.path)

    def write_plot(self) -> None:
        """Draw training.json's losses and validation figures."""
        from recipes.training.curves import training_plot

        summary = json.loads((self.path / SUMMARY_FILE).read_text(encoding="utf-8"))
        write_atomic(self.path / PLOT_FILE, training_plot(summary["log_history"], summary["best_step"]))

    def write_probe(self, probe: "LinearProbe") -> None:
        """Write the linear probe that reports compare the adapter with."""
        probe.write(self.path)

    @property
    def has_plot(self) -> bool:
        """Say whether the picture stands there."""
        return (self.path / PLOT_FILE).is_file()

    @property
    def has_probe(self) -> bool:
        """Say whether the linear probe does."""
        from recipes.metrics.linear_probe import FILE_NAME

        return (self.path / FILE_NAME).is_file()


def _comparable(name: str, value: Any) -> Any:
    """Return LoRA's targets as a list, which they weren't always recorded as, and of unsaid processes one."""
    if name == "processes":
        return value or 1
    if name == "lora_target_modules":
        return [value] if isinstance(value, str) else value or LLM_LINEARS
    return value
