"""Two processes with a card each train what one card trains, and end well however one of them ends. Needs two GPUs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.adapter.safety_record import is_finished
from recipes.training.checkpoints import is_whole
from tests.recipes.ranks.launching import FAULTY, SFT, apart, launched, lines_with, on_one_machine, run_alone, short_run
from tests.tiny_data import many_clips, write_data

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

EVAL = "recipes/eval_qwen2vl.py"
MOST_APART = 1e-4  # relative, in fp32: sums of a card's products come in another order at another number of frames
MOST_APART_BF16 = 0.1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("frames"), many_clips())


def on_cards(base: Path, data: Path, **changed: Any) -> list[str]:
    """Return the settings of a short run on cards, whose checkpoints say each five updates what was learned."""
    return short_run(base, data, **{"use_cpu": False, "linear_probe": True, "cache_vision_features": True, **changed})


@pytest.fixture(scope="module")
def runs(small_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of one card with 4 frames at once, and one of two with 2 each, in fp32."""
    at = tmp_path_factory.mktemp("runs")
    settings = on_cards(small_base, data)
    for name, command in (("one", run_alone(SFT)), ("two", [*on_one_machine(2), FAULTY])):
        (at / f"digests_{name}").mkdir()
        places = ["--output_dir", str(at / name), "--vision_cache", str(at / f"features_{name}")]
        variables = {"CUDA_VISIBLE_DEVICES": "0"} if name == "one" else {"DIGESTS": str(at / "digests_two")}
        done = launched([*command, *settings, *places], **variables)
        assert done.returncode == 0, done.stderr
        (at / f"said_{name}").write_text(done.stderr)
    return {path.name: path for path in at.iterdir()}


def test_two_cards_train_the_adapter_of_one(runs: dict[str, Path]) -> None:
    assert 0 < apart(runs["one"], runs["two"]) < MOST_APART
    for step in (5, 10, 15, 20):
        digests = {(runs["digests_two"] / f"{step}-{rank}").read_text() for rank in (0, 1)}
        assert len(digests) == 1


def test_features_that_two_cards_computed_are_those_of_one(runs: dict[str, Path]) -> None:
    one, two = (
        {file.name: file.read_bytes() for file in runs[f"features_{name}"].glob("*/*/*")} for name in ("one", "two")
    )
    assert one.keys() == two.keys() != set()


def test_one_process_talks(runs: dict[str, Path]) -> None:
    said = runs["said_two"].read_text()
    for word in ("train 32 frames", "vision features: ", "steps 20"):
        assert len(lines_with(word, said)) == 1
    assert lines_with("Error", said) == lines_with("[W", said) == []


def test_report_of_two_cards_is_that_of_one(runs: dict[str, Path]) -> None:
    """Batches of 3 of 16 frames: the last one is short, and a process has fewer than the other."""
    evaluated = ["--adapter", str(runs["one"]), "--batch-size", "3"]
    found: list[tuple[Any, bytes]] = []
    for command in (run_alone(EVAL), [*on_one_machine(2), EVAL]):
        done = launched([*command, *evaluated], CUDA_VISIBLE_DEVICES="0,1" if found else "0")
        assert done.returncode == 0, done.stderr
        report = runs["one"] / "eval"
        found.append((json.loads((report / "report.json").read_text()), (report / "predictions.jsonl").read_bytes()))
        (report / "predictions.jsonl").unlink()
    (alone, scores), (shared, shared_scores) = found
    assert shared_scores == scores
    for own in ("config", "latency_ms"):
        del shared[own], alone[own]
    assert shared == alone


@pytest.mark.parametrize("on_host", ["false", "true"])
def test_killed_process_ends_the_run_with_a_line_and_two_go_on(
    small_base: Path, data: Path, on_host: str, tmp_path: Path
) -> None:
    """In bf16, as the 7B is trained; what the host sums up is sent in bf16, and so rounded."""
    precision = {"dtype": "bfloat16", "bf16": True, "optimizer_on_host": on_host, "linear_probe": False}
    changed = {**precision, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 8}
    settings = [*on_cards(small_base, data, **changed), "--vision_cache", str(tmp_path / "features"), "--output_dir"]
    whole, run = (tmp_path / name for name in ("whole", "killed"))
    done = launched([*run_alone(SFT), *settings, str(whole)], CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 0, done.stderr
    done = launched([*on_one_machine(2), FAULTY, *settings, str(run)], FAULT="1 6 killed")
    assert done.returncode != 0
    assert lines_with("error: another process has ended: checkpoint-6 is saved, go on with --resume", done.stderr)
    assert is_whole(run / "checkpoint-6")
    done = launched([*on_one_machine(2), SFT, *settings, str(run), "--resume"])
    assert done.returncode == 0, done.stderr
    assert apart(whole, run) < MOST_APART_BF16


def test_card_that_waits_for_a_killed_process_s_numbers_is_told_of(
    runs: dict[str, Path], small_base: Path, data: Path, tmp_path: Path
) -> None:
    """That is within the sum of an update: nothing on the card can be read any more, the last checkpoint stays."""
    places = ["--vision_cache", str(runs["features_two"]), "--output_dir", str(tmp_path / "run")]
    settings = [*on_cards(small_base, data, linear_probe=False), *places]
    done = launched([*on_one_machine(2), FAULTY, *settings], FAULT="1 7 killed while adding up")
    assert done.returncode != 0
    assert lines_with("error: this card doesn't come to the end of an update, as when another process", done.stderr)
    assert is_whole(tmp_path / "run" / "checkpoint-5")
    assert not is_finished(tmp_path / "run")
    done = launched([*on_one_machine(2), SFT, *settings, "--resume"])
    assert done.returncode == 0, done.stderr
    assert apart(runs["two"], tmp_path / "run") < MOST_APART


@pytest.mark.parametrize("harm", ["1 6 terminated", "0 6 launcher terminated"])
def test_signal_stops_both_cards_and_leaves_a_checkpoint(
    runs: dict[str, Path], small_base: Path, data: Path, harm: str, tmp_path: Path
) -> None:
    places = ["--vision_cache", str(runs["features_two"]), "--output_dir", str(tmp_path / "run")]
    settings = [*on_cards(small_base, data, linear_probe=False), *places]
    done = launched([*on_one_machine(2), FAULTY, *settings], FAULT=harm)
    assert done.returncode != 0
    assert is_whole(tmp_path / "run" / "checkpoint-6") or is_whole(tmp_path / "run" / "checkpoint-7")
    assert not is_finished(tmp_path / "run")
    done = launched([*on_one_machine(2), SFT, *settings, "--resume"])
    assert done.returncode == 0, done.stderr
    assert apart(runs["two"], tmp_path / "run") < MOST_APART


def test_one_process_that_sees_two_cards_is_refused(small_base: Path, data: Path, tmp_path: Path) -> None:
    done = launched([*run_alone(SFT), *on_cards(small_base, data), "--output_dir", str(tmp_path / "run")])
    assert done.returncode == 2
    assert lines_with("this one process sees 2 cards and trains on one; start accelerate launch", done.stderr)
