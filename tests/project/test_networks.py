"""What is on this machine is used without asking anyone, where the Hub and every proxy take a call and never answer."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from data_prep.console import reach_this_machine_directly, silence_known_messages
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes import doctor, eval_qwen2vl, infer, sft_qwen2vl
from recipes.adapter.safety_record import read_record
from recipes.model.base import find_base
from tests.black_hole import BlackHole, black_hole, free_port
from tests.conftest import Kept
from tests.recipes.model.test_base_model import COMMIT, cache_model
from tests.tiny_data import many_clips, write_data

PATIENCE_SECONDS = 120  # for a process that loads torch on two busy cores


@pytest.fixture(scope="module")
def hub_cache(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hub cache with the small base, as downloaded from a branch that is named main."""
    cache = tmp_path_factory.mktemp("home") / "hub"
    cache_model(cache, small_base, "plant/small")
    return cache


@pytest.fixture
def hole(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlackHole]:
    """A black hole for this very process, which may ask the Hub and send figures of its usage."""
    with black_hole() as hole:
        for name, value in hole.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
        monkeypatch.setattr(constants, "ENDPOINT", hole.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
        yield hole


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_cached_base_is_taken_at_once(
    hole: BlackHole, revision: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert find_base("plant/small", revision).revision == COMMIT
    assert time.monotonic() - began < 5, "without the cache first it would be asked for ever"
    assert hole.heard == []
    said = capsys.readouterr().err
    if revision == COMMIT:
        assert said == ""
    else:
        assert said.startswith(f"base model plant/small: revision {COMMIT[:12]}{' of main' if revision else ''} as it")
        assert said.endswith("comes with 'hf download plant/small'\n")


def test_base_that_is_not_cached_is_given_up_within_seconds(hole: BlackHole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    began = time.monotonic()
    with pytest.raises(InputError, match="'plant/absent' is not in the Hub cache and the Hub can't be reached"):
        find_base("plant/absent")
    assert time.monotonic() - began < 20
    assert any(b"/api/models/plant/absent" in request for request in hole.heard)


def test_download_that_was_cut_off_says_what_it_lacks(
    hole: BlackHole, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    (cache_model(tmp_path, small_base, "plant/small") / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weight file model\.safetensors is missing .* 'hf download plant/small'"):
        find_base("plant/small")


SHORT = {
    "model_name_or_path": "plant/small",
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 0,
    "cache_vision_features": "false",
    "linear_probe": "false",
}


def test_no_script_asks_anyone(hole: BlackHole, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """doctor, training from a branch's name, an answer and an evaluation of what came of it."""
    data, run = write_data(tmp_path / "data", many_clips()), tmp_path / "run"
    flags = [part for name, value in (SHORT | {"dataset": data}).items() for part in (f"--{name}", str(value))]
    config = ["--config", "recipes/configs/demo_cpu.yaml"]
    frame = next(data.glob("frames/test/safe/*/0000.jpg"))
    assert doctor.main([*config, *flags]) == 0
    assert sft_qwen2vl.main([*config, *flags, "--output_dir", str(run)]) == 0
    assert read_record(run).base_revision == COMMIT
    capfd.readouterr()
    may_ask_again = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    for script, arguments in ((infer, ["--image", str(frame)]), (eval_qwen2vl, ["--skip-base-model"])):
        for name in may_ask_again:
            setattr(constants, name, False)
        assert script.main(["--adapter", str(run), *arguments]) == 0
    assert capfd.readouterr().out.splitlines()[0] in ("SAFE", "UNSAFE")
    assert hole.heard == []


@pytest.fixture
def adapter(kept: Kept, tmp_path: Path) -> Path:
    """The kept run's adapter, on the base of the Hub's cache."""
    folder = tmp_path / "adapter"
    shutil.copytree(kept.run, folder)
    for name, changed in (
        ("safety.json", {"base_model": "plant/small", "base_revision": COMMIT}),
        ("adapter_config.json", {"base_model_name_or_path": "plant/small"}),
    ):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changed}))
    return folder


def test_page_is_served_whatever_proxies_there_are(adapter: Path, hub_cache: Path) -> None:
    """In a process of its own, with no no_proxy."""
    flags = ["--adapter", str(adapter), "--examples", str(adapter), "--port", str(free_port())]
    with black_hole() as hole:
        process = subprocess.Popen(
            [sys.executable, "recipes/app.py", *flags],
            cwd=PROJECT_ROOT,
            env={**os.environ, **hole.environment(), "HF_HUB_CACHE": str(hub_cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        last_resort = threading.Timer(PATIENCE_SECONDS, process.kill)
        last_resort.start()
        try:
            assert process.stdout and process.stderr
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            assert b"SAFE or UNSAFE?" in direct.open(address, timeout=30).read()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            last_resort.cancel()
            process.kill()
            process.communicate()
        assert hole.heard == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1,plant.local"),
        ({"NO_PROXY": "corp.example"}, "corp.example,localhost,127.0.0.1,::1,plant.local"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,localhost,127.0.0.1,::1,plant.local"),  # as the libraries choose
    ],
)
def test_this_machine_is_excepted_from_proxies(
    before: dict[str, str], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, before.get(name, ""))
    reach_this_machine_directly("plant.local")
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (after, after)


def test_no_library_sends_figures_of_its_usage_however_early_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    silence_known_messages()
    assert constants.HF_HUB_DISABLE_TELEMETRY and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
