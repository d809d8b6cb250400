"""The small card's benchmark: what needs no GPU of it."""

import json
import os
import sys
from argparse import Namespace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import bench_small_card
from benchmarks.arms import small_card, versions
from benchmarks.measuring import part_of_card, training_speed
from benchmarks.measuring.projection import projected
from benchmarks.measuring.small_card_table import as_table
from benchmarks.measuring.streamed_equality import (
    Pass,
    Trained,
    compared_pairs,
    difference,
    pairs,
    randomise,
    ways,
)
from benchmarks.measuring.training_speed import Clock
from data_prep.files import PROJECT_ROOT
from recipes.layers import host_memory
from recipes.layers.sizes import ALL
from tests.tiny_data import many_clips, write_data


def row(frames: int, recomputed: str, seconds: float) -> dict[str, Any]:
    return {
        "micro_batch": frames,
        "recomputed": recomputed,
        "seconds_a_frame": seconds,
        "seconds_range": [seconds - 0.01, seconds + 0.02],
        "a1000_projected": 2 * seconds,
        "peak_allocated_gib": 3.25,
        "peak_reserved_gib": 3.5,
        "loading_peak_allocated_gib": 1.75,
    }


def speeds(*rows: dict[str, Any], whole_card: bool = False) -> dict[str, Any]:
    return {"matmul_tflops": [55.0, 54.6], "whole_card": whole_card, "rows": list(rows)}


def test_arms_are_those_of_the_script() -> None:
    assert sorted(bench_small_card.SMALL) == sorted([*small_card.ARMS, *small_card.SPEEDS])
    assert [f"{cap.gib}" for cap in small_card.CAPS.values()] == list(bench_small_card.CAPS)


def test_table_compares_streamed_with_plain_at_the_same_case_alone() -> None:
    arms = {
        "speed_kept": speeds(row(1, ALL, 1.0), row(4, ALL, 0.6)),
        "speed_kept_streamed": speeds(row(4, ALL, 0.615), row(1, "0", 0.7)),
        "sixteen_bits": speeds(row(4, ALL, 0.2), whole_card=True),
    }
    table = as_table({"arms": arms}).splitlines()
    assert table[1] == "speed_kept: a matrix product at 55 TFLOP/s, 55 at the end"
    assert [line.split() for line in table[2:4]] == [
        ["speed_kept", "1", ALL, "1.000", "(0.990", "to", "1.020)", "2.00", "3.25", "3.50", "1.75"],
        ["speed_kept", "4", ALL, "0.600", "(0.590", "to", "0.620)", "1.20", "3.25", "3.50", "1.75"],
    ]
    assert "-" in table[8].split(), "the whole card projects nothing"
    assert table[9:-1] == ["speed_kept_streamed, 4 frames: 1.025 times as long as without streaming"]
    assert json.loads(table[-1]) == {"arms": arms}


def test_table_tells_caps_versions_and_exactness() -> None:
    peaks = {"cap_gib": 1.6, "peak_allocated_gib": 1.41, "peak_reserved_gib": 1.52}
    runs = {
        "now": [{"frames_per_second": rate} for rate in (29.0, 30.0, 31.0)],
        "before": [{"frames_per_second": 30.3}],
    }
    equal, apart = {"equal": True, "gradients": 0.0}, {"equal": False, "gradients": 2e-3}
    ten = {"pairs": 10, "equal": 8, "largest": 5.3e-3, "losses": 0.0}
    way = {"model": "streamed", "frames": 4, "recomputed": "14", "plain_pairs": ten, "usual": apart}
    arms = {
        "capped_1.6": {**peaks, "steps": 20, "micro_batch": 4},
        "answered_1.6": {**peaks, "frames": 2},
        "whole_card_80gb": {"recipe": "80gb", "frames": 16, **runs},
        "exactness": {
            "attention_kernels": ["flash_bwd"],
            "pairs": {"usual kernels": ten, "attention by CUDNN_ATTENTION": {"refused": "no kernel"}},
            "ways": [{**way, "deterministic": equal}, {**way, "deterministic": apart}],
        },
    }
    assert as_table({"arms": arms}).splitlines()[1:-1] == [
        "capped_1.6: 20 updates of 4 frames within 1.6 GiB, peak allocated 1.41, reserved 1.52 GiB",
        "answered_1.6: 2 frames within 1.6 GiB, peak allocated 1.41, reserved 1.52 GiB",
        "whole card, 80gb recipe at 16 frames, now: 30.00 frames/s (29.00 to 31.00)",
        "whole card, 80gb recipe at 16 frames, before: 30.30 frames/s (30.30 to 30.30)",
        "  times the earlier version's: 0.990",
        "attention by flash_bwd",
        "plain pairs at 4 frames, usual kernels: 8 of 10 equal, at most 5.3e-03 apart",
        "plain pairs at 4 frames, attention by CUDNN_ATTENTION: not computed (no kernel)",
        "streamed, 4 frames, 14 recomputed: equal to the bit by deterministic kernels, 2.0e-03 by the usual ones, "
        "plain pairs 8 of 10 equal, at most 5.3e-03 apart",
        "streamed, 4 frames, 14 recomputed: 2.0e-03 apart by deterministic kernels, 2.0e-03 by the usual ones, "
        "plain pairs 8 of 10 equal, at most 5.3e-03 apart",
    ]


def test_the_a1000_takes_twice_as_long_as_the_part() -> None:
    assert projected(0.5) == pytest.approx(0.5 * 2.04, rel=0.005)


def test_versions_are_measured_in_turns_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, list[str]]] = []

    def ran(arguments: list[str], root: Path) -> dict[str, float]:
        asked = ("--by", "--drawn-by", "--own")
        calls.append((root, [arguments[arguments.index(name) + 1] for name in asked]))
        return {"frames_per_second": float(len(calls))}

    monkeypatch.setattr(bench_small_card, "run_json", ran)
    before = tmp_path / "9264ce6"
    found = bench_small_card.in_turns({"now": PROJECT_ROOT, "before": before}, tmp_path, "8gb", 4, 2)
    assert [run["frames_per_second"] for run in found["before"]] == [2.0, 4.0]
    own = ["benchmarks.arms.train", "benchmarks.made.drawn_frames", str(tmp_path / "now")]
    its = ["benchmarks.train_arms", "benchmarks.drawn_frames", str(tmp_path / "before")]
    assert calls == [(PROJECT_ROOT, own), (before, its)] * 2


def test_an_arm_is_told_how_many_updates_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def measured(*work: str) -> dict[str, Any]:
        asked.append(work)
        return speeds()

    def prepared(args: Namespace, make: Any) -> Path:
        return tmp_path

    def all_arms(file: Path, arms: list[str], measure: Any) -> dict[str, Any]:
        return {"arms": {arm: measure(arm) for arm in arms}}

    monkeypatch.setattr(bench_small_card, "prepared", prepared)
    monkeypatch.setattr(bench_small_card, "measure_arms", all_arms)
    monkeypatch.setattr(bench_small_card, "measured_by", measured)
    assert bench_small_card.main(["--arms", "speed_kept", "--blocks", "1"]) == 0
    assert asked == [(bench_small_card.SCRIPT, "speed_kept", tmp_path, "--blocks", "1")]


@pytest.mark.parametrize(("warm_up", "in_block", "ends"), [(1, 4, [1, 5, 9]), (6, 3, [6, 9, 12])])
def test_clock_times_blocks_of_micro_batches(
    monkeypatch: pytest.MonkeyPatch, warm_up: int, in_block: int, ends: list[int]
) -> None:
    now = 0.0
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(training_speed, "time", SimpleNamespace(perf_counter=lambda: now))
    clock = Clock(warm_up, in_block)
    for number in range(1, 13):
        now = float(number**2)
        (clock.on_substep_end if number % 4 else clock.on_step_end)(None, None, None)
    assert clock.blocks == [later**2 - earlier**2 for earlier, later in pairwise(ends)]


def test_half_a_bus_sends_everything_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(host_memory, "send", lambda parts, slot: sent.append(len(parts)))
    part_of_card.halve_bus()
    host_memory.send([torch.zeros(1)] * 3, torch.zeros(3))
    assert sent == [3, 3]


def test_passes_are_equal_to_the_bit_or_so_far_apart() -> None:
    one = Pass(torch.tensor(2.0), torch.tensor([3.0, 4.0]))
    assert difference(one, one) == {"equal": True, "gradients": 0.0, "loss": 0.0}
    other = Pass(torch.tensor(2.5), torch.tensor([3.0, 4.5]))
    assert difference(other, one) == {"equal": False, "gradients": pytest.approx(0.1), "loss": pytest.approx(0.25)}


def test_pairs_that_no_kernel_computes_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.measuring import streamed_equality

    def refused(*_: Any) -> Pass:
        raise RuntimeError("No available kernel.\nAborting")

    monkeypatch.setattr(streamed_equality, "one_pass", refused)
    model = Trained(torch.nn.Linear(1, 1), [], lambda _: {})
    assert compared_pairs(model, 4) == {"refused": "No available kernel."}
    assert set(dict(pairs(model))) >= {"usual kernels", "deterministic kernels", "attention by MATH"}
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark's folder with the small base and tiny frames, and a card's counters that count nothing."""
    (tmp_path / "base").symlink_to(PROJECT_ROOT / "tiny_base/weights")
    write_data(tmp_path / small_card.FEW, many_clips())
    for name in ("reset_peak_memory_stats", "synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda: 2**30)
    return tmp_path


ON_CPU = {"use_cpu": True, "bf16": False, "dtype": "float32", "dataloader_num_workers": 0, "max_pixels": 12544}


def test_streamed_models_equal_plain_ones_on_the_small_base(bench: Path) -> None:
    models = {name: small_card.trained(bench, {**ON_CPU, **changed}) for name, changed in small_card.EXACT.items()}
    for model in models.values():
        randomise(model.weights)
    rows = list(ways(models, 2))
    assert [(row["model"], row["recomputed"]) for row in rows] == [
        (name, recomputed) for recomputed in (ALL, "14", "0") for name in models
    ]
    assert all(row["deterministic"]["equal"] and row["usual"]["gradients"] < 1e-6 for row in rows)


def test_speed_is_measured_by_the_trainer_s_own_loop(bench: Path) -> None:
    trainer = small_card.build(bench, "6gb", **small_card.on_few_frames(bench), **ON_CPU)
    for recomputed in (ALL, "1", "0"):
        figures = small_card.timed(trainer, 4, recomputed, 1)
        assert (figures["micro_batch"], figures["accumulation"], figures["recomputed"]) == (4, 4, recomputed)
        assert figures["seconds_a_frame"] == pytest.approx(1 / figures["frames_per_second"])
        assert trainer.model.get_base_model().is_activation_checkpointing == (recomputed != "0")
        assert trainer.state.global_step == 2, "a quarter of an update to warm up, and one to time"


def test_a_version_is_measured_by_its_own_modules_on_frames_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(out: Path, recipe: str, **changed: Any) -> list[Any]:
        print("a library's talk")
        return [out, recipe, changed]

    def measure(trainer: list[Any], frames: int, **how: Any) -> dict[str, Any]:
        folders = {"dataset": tmp_path / "now/data", "vision_cache": tmp_path / "now/vision"}
        assert trainer == [tmp_path, "8gb", folders]
        return {"frames": frames, **how}

    def draw_data_folder(folder: Path, *, train_clips_per_class: int) -> None:
        folder.mkdir(parents=True)
        (folder / "test.jsonl").write_text(f"{train_clips_per_class}")

    monkeypatch.setitem(sys.modules, "its_own", SimpleNamespace(build=build, measure=measure))
    monkeypatch.setitem(sys.modules, "its_frames", SimpleNamespace(draw_data_folder=draw_data_folder))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    by = ["--by", "its_own", "--drawn-by", "its_frames"]
    asked = [*by, "--recipe", "8gb", "--frames", "4", "--out", str(tmp_path), "--own", str(tmp_path / "now")]
    figures = {"frames": 4, "accumulation": 4, "warm_up": 2, "updates_in_block": 1}
    for _ in range(2):
        assert versions.main(asked) == 0, "frames that are there are not drawn again"
        assert json.loads(capsys.readouterr().out) == figures
    assert (tmp_path / "now/data/test.jsonl").read_text() == "7"
