"""All checks of a machine for a run, one after the other, whatever the ones before found."""

from collections.abc import Iterator, Mapping
from typing import Any

from recipes.machine.finding import FAILED, OK, Finding, checked
from recipes.machine.hardware import check_four_bits, check_gpu, check_packages
from recipes.machine.host_system import system_in_words
from recipes.machine.run_needs import RunNeeds


def examine(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each thing that a run with a YAML's `settings` needs, as it is found.

    Nothing is downloaded, and nothing is left behind.
    """
    yield checked("system", system_in_words)
    yield checked("packages", check_packages)
    on_cpu = bool(settings.get("use_cpu", False))
    gpu = checked("GPU", lambda: check_gpu(needed=not on_cpu))
    yield gpu
    yield checked("4-bit product", lambda: check_four_bits(on_cpu=on_cpu or gpu.state == FAILED))
    needs = RunNeeds(settings)
    yield checked("base model", needs.check_base)
    yield checked("data set", needs.check_data)
    yield checked("memory", lambda: needs.check_memory(gpu_found=gpu.state == OK))
    yield checked("disk", needs.check_disk)
    yield checked("folders", needs.check_folders)
