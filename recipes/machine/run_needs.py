"""What a run needs of a machine, looked at one thing after the other. torch is loaded by the checks that need it."""

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from data_prep.disk.disk_errors import told
from data_prep.disk.places import size_in_words, standing
from data_prep.errors import InputError, one_line
from data_prep.files import PROJECT_ROOT, check_writable, from_root, to_root
from data_prep.hub.source import FramesSource, check_dataset, open_dataset
from data_prep.rows.dataset import TEST, TRAIN
from recipes.machine.host_system import (
    MORE_MEMORY_IN_WSL,
    check_page_locking,
    driver_in_words,
    in_wsl,
    system_in_words,
    why_no_gpu,
)
from recipes.machine.memory import GIB, adapter_weights, predict_memory
from recipes.machine.recipe_choice import best_recipe, shortages
from recipes.machine.schedule import checkpoints_of
from recipes.model.base import BaseModel, find_base
from recipes.model.base_files import check_precision, weight_files

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"
MOST_ERROR = 0.02  # of a 4-bit product against a plain one of the same weights, relative, in bf16
DOWNLOAD_BYTES = {"Qwen/Qwen2-VL-7B-Instruct": 16.6e9, "Qwen/Qwen2-VL-2B-Instruct": 4.4e9}
CHECKPOINT_BYTES = 16  # a weight of the adapter, its optimizer's moments included


@dataclass(frozen=True)
class Finding:
    """What one check found: its state is OK, FAILED or SKIPPED, and `text` says what was seen and what to do."""

    check: str
    state: str
    text: str


def examine(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each thing that a run with a YAML's `settings` needs, as it is found.

    Nothing is downloaded, and nothing is left behind.
    """
    yield _checked("system", system_in_words)
    yield _checked("packages", check_packages)
    on_cpu = bool(settings.get("use_cpu", False))
    gpu = _checked("GPU", lambda: check_gpu(needed=not on_cpu))
    yield gpu
    yield _checked("4-bit product", lambda: check_four_bits(on_cpu=on_cpu or gpu.state == FAILED))
    base: list[BaseModel] = []
    yield _checked("base model", lambda: check_base(settings, base))
    source: list[FramesSource] = []
    yield _checked("data set", lambda: check_data(settings, source))
    yield _checked("memory", lambda: check_memory(settings, base, gpu_found=not on_cpu and gpu.state == OK))
    yield _checked("disk", lambda: check_disk(settings, base, source))
    yield _checked("folders", lambda: check_folders(settings))


def _checked(check: str, look: Callable[[], "str | Finding"]) -> Finding:
    """Return what a check says, or what it fails with, as a finding."""
    try:
        found = look()
    except InputError as error:
        return Finding(check, FAILED, one_line(error))
    except Exception as error:  # what a broken library raises must not hide the checks that follow
        return Finding(check, FAILED, told(error) or " ".join(f"{type(error).__name__}: {error}".split()))
    return found if isinstance(found, Finding) else Finding(check, OK, found)


def check_packages() -> str:
    """Compare the installed packages with requirements.txt."""
    pins = [line.split("==") for line in (PROJECT_ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    wrong = []
    for name, wanted in pins:
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(f"{name} is {found}, not {wanted}")
    if wrong:
        raise InputError(f"{'; '.join(wrong)}; run pip install -r requirements.txt -c constraints.txt")
    return f"all {len(pins)} as pinned"


def check_gpu(*, needed: bool) -> str | Finding:
    """Look for a GPU that torch can use, and name it with its driver's and torch's CUDA versions."""
    import torch

    if not needed:
        return Finding("GPU", SKIPPED, "this YAML trains on the CPU (use_cpu: true)")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise InputError(
            why_no_gpu(built) if built else "this torch is built without CUDA; install the one of requirements.txt"
        )
    properties = torch.cuda.get_device_properties(0)
    visible = torch.cuda.device_count()
    if visible > 1:
        raise InputError(f"{visible} are visible, and training uses one; set CUDA_VISIBLE_DEVICES=0")
    return (
        f"{properties.name}, {properties.total_memory / GIB:.1f} GiB, compute capability {properties.major}."
        f"{properties.minor}; {driver_in_words()}, torch is built for CUDA {torch.version.cuda}"
    )


def check_four_bits(*, on_cpu: bool) -> str:
    """Compare bitsandbytes' product with 4-bit weights with a plain one of the same weights, unpacked."""
    import torch
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    device = torch.device("cpu" if on_cpu or not torch.cuda.is_available() else "cuda")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1024, 512, generator=generator).to(device, torch.bfloat16)
    rows = torch.randn(64, 512, generator=generator).to(device, torch.bfloat16)
    try:
        packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        product = matmul_4bit(rows, packed.t(), quant_state=state).float()
        plain = rows.float() @ dequantize_4bit(packed, state).float().t()
    except Exception as error:  # a library that fails to load its kernels raises whatever it likes
        raise InputError(f"bitsandbytes fails on {device.type}: {str(error).splitlines()[0]}") from None
    off = float((product - plain).norm() / plain.norm())
    if not off <= MOST_ERROR:
        raise InputError(f"bitsandbytes is {off:.1%} off a plain product on {device.type}; install it again")
    return f"on {device.type} within {off:.2%} of a plain one"


def check_base(settings: Mapping[str, Any], found: list[BaseModel]) -> str:
    """Look the base model up on this machine, all its weight files included; `found` takes it."""
    base = find_base(settings["model_name_or_path"], settings.get("model_revision"), download=False)
    check_precision(base.name, base.read_config(), load_in_4bit=settings.get("load_in_4bit", False))
    found.append(base)
    size = sum((base.folder / file).stat().st_size for file in weight_files(base.folder))
    return f"{base.name}, revision {base.revision[:12]}, {size_in_words(size)} of weights"


def check_data(settings: Mapping[str, Any], found: list[FramesSource]) -> str:
    """Check every byte of the data set, and say what it holds and what its audit found; `found` takes it."""
    name, revision = settings["dataset"], settings.get("dataset_revision")
    check_dataset(name, revision=revision)
    source = open_dataset(name, revision=revision)
    found.append(source)
    audit = source.audit
    if audit is None:
        return f"{source.describe()}; no audit is known of it"
    return (
        f"{source.describe()}; {len(audit['identical_clips'])} groups of identical clips, "
        f"{len(audit['test_clips_with_twins'])} test clips with a twin, {len(audit['left_out_of_train'])} clips left "
        "out of train"
    )


def check_memory(settings: Mapping[str, Any], base: list[BaseModel], *, gpu_found: bool) -> str | Finding:
    """Compare what training is predicted to take with what card and host have free, and name the best recipe."""
    if not gpu_found:
        return Finding("memory", SKIPPED, "predicted for training on a GPU alone")
    if not base:
        return Finding("memory", SKIPPED, "there is no base model to go by")
    from recipes.model.device import choose_device, free_room

    config = base[0].read_config()
    room = free_room(choose_device())
    need = predict_memory(settings, config)
    best = best_recipe(config, **room)
    hint = f"the best recipe for this card is {best}" if best else "none of the project's recipes fits this card"
    if missing := shortages(need, **room):
        wsl = [MORE_MEMORY_IN_WSL] if in_wsl() else []
        raise InputError("; ".join([*missing, *wsl, hint]))
    check_page_locking(need.host_gib * GIB)
    return (
        f"about {need.card_gib:.1f} of {room['card_bytes'] / GIB:.1f} GiB on the card, {need.host_gib:.1f} of "
        f"{room['host_bytes'] / GIB:.1f} GiB on the host; {hint}"
    )


def check_disk(settings: Mapping[str, Any], base: list[BaseModel], source: list[FramesSource]) -> str | Finding:
    """Compare what a run writes with what the disks have free: the base, the data set's kept features, checkpoints."""
    needs: list[tuple[str, Path, float]] = []
    if not base:
        name = settings["model_name_or_path"]
        if name not in DOWNLOAD_BYTES:
            return Finding("disk", SKIPPED, f"what base model {name!r} takes isn't known before it is here")
        needs.append(("the base model", Path(constants.HF_HUB_CACHE), DOWNLOAD_BYTES[name]))
    else:
        config = base[0].read_config()
        if features := predict_memory(settings, config).disk_bytes_a_frame:
            kept_splits = [each.dataset[split] for each in source for split in each.dataset if split != TEST]
            frames = sum(map(len, kept_splits))
            needs.append(("vision features", from_root(settings["vision_cache"]), features * frames))
        rows = sum(len(each.dataset[TRAIN]) for each in source)
        kept = CHECKPOINT_BYTES * adapter_weights(settings, config) * checkpoints_of(settings, rows)
        needs.append(("checkpoints", from_root(settings["output_dir"]), kept))
    said = []
    for what, folder, needed in needs:
        free = shutil.disk_usage(standing(folder)).free
        if needed > free:
            raise InputError(
                f"{what}: {size_in_words(needed)} needed in {to_root(folder)}, and {size_in_words(free)} are free"
            )
        said.append(f"{what} up to {size_in_words(needed)} of {size_in_words(free)}")
    return ", ".join(said)


def check_folders(settings: Mapping[str, Any]) -> str:
    """See that a run can write where it has to."""
    folders = [Path(constants.HF_HUB_CACHE), from_root(settings["output_dir"])]
    if settings["cache_vision_features"]:
        folders.append(from_root(settings["vision_cache"]))
    for folder in folders:
        check_writable(folder)
    return f"{', '.join(to_root(folder) for folder in folders)} can be written to"
