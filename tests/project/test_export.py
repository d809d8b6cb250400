"""The demo's export: every way to ask it gives the adapter's answers, and evaluating it its figures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants as hub_constants

from benchmarks.measuring.exports import asked_by_infer, asked_by_readme
from recipes import eval_qwen2vl, export
from recipes.adapter.folder import find_adapter
from recipes.adapter.model_card import is_own_card
from tests.conftest import Demo

# The last of transformers 4, which reads nothing that transformers 5 writes in its own way.
OF_TRANSFORMERS_4 = ["transformers==4.57.6", "huggingface-hub==0.36.2", "tokenizers==0.22.2"]


@pytest.fixture(autouse=True)
def caches(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(demo.hf_home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", demo.hf_home / "datasets")


@pytest.fixture(scope="module")
def exported(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "demo"
    assert export.main(["--adapter", str(demo.output), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def frames(demo: Demo) -> list[Path]:
    found = sorted(demo.data.glob("frames/test/*/*/*.jpg"))
    return found[:: len(found) // 64][:64]


@pytest.fixture(scope="module")
def by_adapter(demo: Demo, frames: list[Path]) -> list[float]:
    return asked_by_infer(demo.output, frames)


@pytest.fixture(scope="module")
def transformers_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another transformers, in a folder of its own; skipped where no package registry can be reached."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    done = subprocess.run([*install, *OF_TRANSFORMERS_4], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        pytest.skip("no package registry to install transformers 4 from")
    return site


def close(found: list[float], expected: list[float], threshold: float) -> bool:
    labels = [[p >= threshold for p in each] for each in (found, expected)]
    return labels[0] == labels[1] and found == pytest.approx(expected, abs=1e-4)


def test_every_way_to_ask_gives_the_adapter_s_answers(
    exported: Path, frames: list[Path], by_adapter: list[float]
) -> None:
    threshold = find_adapter(exported).record.threshold
    assert len(frames) == 64 and len({round(p, 3) for p in by_adapter}) > 16
    assert close(asked_by_infer(exported, frames), by_adapter, threshold)
    version, found = asked_by_readme(exported, frames)
    assert version.startswith("5.") and close(found, by_adapter, threshold)


def test_so_does_transformers_4(
    exported: Path, frames: list[Path], by_adapter: list[float], transformers_4: Path
) -> None:
    version, found = asked_by_readme(exported, frames, transformers_4)
    assert version == "4.57.6" and close(found, by_adapter, find_adapter(exported).record.threshold)


def test_evaluating_it_gives_the_adapter_s_figures(exported: Path, demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    card = (folder / "README.md").read_text()
    own = json.loads((demo.output / "eval" / "report.json").read_text())
    accuracy = f"{own['results']['frame']['accuracy']:.3f}"
    assert f"| Accuracy | {accuracy} (" in card and "/eval/report.json`" in card
    assert eval_qwen2vl.main(["--adapter", str(folder)]) == 0
    report = json.loads((folder / "eval" / "report.json").read_text())
    assert report["confusion_matrix"] == own["confusion_matrix"]
    assert report["results"]["frame"]["auroc"] == pytest.approx(own["results"]["frame"]["auroc"], abs=1e-3)
    assert report["baselines"]["base_model"] is None, "a base without the adapter is none of it"
    assert report["config"]["adapter_sha256"] == own["config"]["adapter_sha256"]
    assert report["config"]["trained_with"]["merged"]["base_weights"] == "as trained"
    rewritten = (folder / "README.md").read_text()
    assert f"| Accuracy | {accuracy} (" in rewritten and "In full: `eval/report.html`" in rewritten
    assert is_own_card(rewritten)
    assert find_adapter(folder).record.merged, "an evaluation beside it changes nothing"


def test_original_weights_have_a_threshold_of_their_own(
    demo: Demo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo.output, run, ignore=shutil.ignore_patterns("checkpoint-*", "tensorboard"))
    settings = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**settings, "threshold": "recall>=0.9"}))
    out = tmp_path / "original"
    assert export.main(["--adapter", str(run), "--out", str(out), "--original-weights"]) == 0
    record = find_adapter(out).record
    assert record.merged is not None and record.merged.base_weights == "original"
    assert record.threshold_from.startswith("recall>=0.9 on ") and "validation frames" in record.threshold_from
    assert record.threshold != find_adapter(run).record.threshold
    assert f"threshold {record.threshold:.4g}: recall>=0.9 on" in capfd.readouterr().err
    card = (out / "README.md").read_text()
    assert "None: the adapter's own are of other weights" in card and "| Accuracy" not in card
    assert eval_qwen2vl.main(["--adapter", str(out), "--split", "validation"]) == 0
    (file,) = out.glob("eval/*-validation/report.json")
    report = json.loads(file.read_text())
    assert report["results"]["frame"]["recall"] >= 0.9
