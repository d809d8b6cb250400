"""Packages, GPU, driver and 4-bit product that are wrong; most of them are told by what another machine would show."""

import importlib.metadata
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import bitsandbytes
import pytest
import torch

from data_prep.errors import InputError
from recipes.machine import hardware


def test_other_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def other(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"trl": "0.1", "torch": version("torch").partition("+")[0] + "+cu128"}.get(name, version(name))

    monkeypatch.setattr(importlib.metadata, "version", other)
    with pytest.raises(InputError, match=r"^trl is 0\.1, not [0-9.]+; peft is missing, not [0-9.]+; run pip install"):
        hardware.check_packages()


def test_gpu_is_named_with_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = SimpleNamespace(name="NVIDIA RTX A1000", total_memory=8 * 2**30, major=8, minor=6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 570.86.15\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = hardware.check_gpu(needed=True)
    assert str(found).startswith("NVIDIA RTX A1000, 8.0 GiB, compute capability 8.6; driver 570.86.15, torch is")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hardware.check_gpu(needed=True).startswith(
        "2 cards: accelerate launch --multi_gpu --num_processes 2 trains on all; the smallest: NVIDIA RTX A1000, 8.0"
    )
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert hardware.driver_in_words() == "driver unknown, because nvidia-smi doesn't run"


def test_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitsandbytes, "matmul_4bit", lambda rows, weight, quant_state: torch.zeros(64, 1024))
    with pytest.raises(InputError, match=r"bitsandbytes is 100\.0% off a plain product on cpu"):
        hardware.check_four_bits(on_cpu=True)

    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(bitsandbytes, "matmul_4bit", fail)
    with pytest.raises(InputError, match=r"bitsandbytes fails on cpu: no kernel image is available$"):
        hardware.check_four_bits(on_cpu=True)


def smi_that_says(monkeypatch: pytest.MonkeyPatch, folder: Path, said: str, status: int) -> None:
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{said}'\nexit {status}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("said", "status", "advice"),
    [
        (
            "Failed to initialize NVML: Unknown Error",
            255,
            "the container lost the GPU .* docker compose up -d --force-rec",
        ),
        ("Failed to initialize NVML: Driver/library version mismatch", 18, "driver was updated .* restart the machine"),
        ("No devices were found", 6, "torch sees none .* see that nvidia-smi shows the card"),
        ("NVIDIA-SMI 570.86.15", 0, "torch sees none .* see that nvidia-smi shows the card"),
    ],
)
def test_gpu_that_is_gone_gets_its_reason_and_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, status: int, advice: str
) -> None:
    smi_that_says(monkeypatch, tmp_path, said, status)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(InputError, match=advice):
        hardware.check_gpu(needed=True)


def test_driver_is_unknown_where_nvidia_smi_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi_that_says(monkeypatch, tmp_path, "Failed to initialize NVML: Unknown Error", 255)
    assert hardware.driver_in_words() == "driver unknown, because nvidia-smi doesn't run"
