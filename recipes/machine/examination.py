"""All checks of a machine for a run, one after the other, whatever the ones before found."""

from collections.abc import Iterator, Mapping
from typing import Any

from recipes.machine.finding import FAILED, OK, Finding, checked
from recipes.machine.hardware import check_four_bits, check_gpu, check_packages
from recipes.machine.host_system import system_in_words
from recipes.machine.plan import epochs_of
from recipes.machine.plan_in_words import as_figures
from recipes.machine.run_needs import RunNeeds


class Examination:
    """The checks of a machine for a run with a YAML's `settings`, of which the `pinned` lines of a plan are given.

    Nothing is downloaded, and nothing is left behind.
    """

    def __init__(self, settings: Mapping[str, Any], pinned: Mapping[str, Any]) -> None:
        self._on_cpu = bool(settings["use_cpu"])
        self._needs = RunNeeds(settings, pinned=pinned)

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each thing that the run needs, as it is found."""
        needs = self._needs
        yield checked("system", system_in_words)
        yield checked("packages", check_packages)
        gpu = checked("GPU", lambda: check_gpu(needed=not self._on_cpu))
        yield gpu
        without_gpu = self._on_cpu or gpu.state == FAILED
        yield checked("4-bit product", lambda: check_four_bits(on_cpu=without_gpu))
        yield checked("cores", lambda: needs.check_cores(gpu_found=gpu.state == OK))
        yield checked("base model", needs.check_base)
        yield checked("data set", needs.check_data)
        yield checked("plan", lambda: needs.check_plan(gpu_found=gpu.state == OK))
        yield checked("memory", lambda: needs.check_memory(gpu_found=gpu.state == OK))
        yield checked("disk", needs.check_disk)
        yield checked("folders", needs.check_folders)

    def figures(self) -> dict[str, Any]:
        """Return the plan that was found with its figures; nothing where there is none."""
        needs = self._needs
        if needs.plan is None:
            return {}
        return as_figures(needs.plan, frames=needs.frames, epochs=epochs_of(needs.settings, needs.frames))
