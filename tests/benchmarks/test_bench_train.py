"""The training benchmark's own parts: what needs no GPU of it."""

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.bench_train import as_table
from data_prep.files import PROJECT_ROOT
from recipes.machine.operations import language_flops, vision_flops
from tests.recipes.machine.test_memory import CONFIG


def speed(frames: int, rate: float) -> dict[str, Any]:
    return {
        "micro_batch": frames,
        "frames_per_second": rate,
        "peak_allocated_gib": 6.5,
        "peak_reserved_gib": 7.0,
        "loading_peak_allocated_gib": 4.4,
    }


def test_operations_are_counted_as_by_hand() -> None:
    # One token, two layers, of the last only keys and values. Hidden 8, inner 16, two heads of which one key: q and o
    # 64 each, k and v 32 each, three of 128; a multiply-add is two operations. Half a position's attention: 2 products.
    tiny = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
    }
    assert language_flops(tiny, 1) == 2 * (2 * 64 + 2 * 32 + 3 * 128) + 2 * 2 * 8 / 2 + 2 * 2 * 32
    # Four patches, one block 4 wide, ratio 2: qkv and projection 64, MLP 64 a patch; attention 2 products of 4 by 4;
    # one merged token through 16 by 16 and 16 by 8.
    tower = {"embed_dim": 4, "mlp_ratio": 2, "depth": 1}
    assert vision_flops(tower, 4, 8) == 2 * (4 * (64 + 64) + 2 * 4 * 4 * 4 + 16 * 16 + 16 * 8)


def test_a_frame_of_the_7b_takes_16_and_a_half_teraflop() -> None:
    vision = vision_flops(CONFIG["vision_config"], 1920, 3584)
    assert vision / 1e12 == pytest.approx(3.06, abs=0.01)
    assert (vision + 2 * language_flops(CONFIG, 530)) / 1e12 == pytest.approx(16.5, abs=0.05)


def test_table_compares_with_what_was_measured_beside_it() -> None:
    results = {
        "arms": {
            "stock": [speed(1, 0.8), speed(4, 2.5), speed(16, 6.0)],
            "8gb": [speed(1, 2.5)],
            "8gb_capped": {"steps": 20, "micro_batch": 8, "cap_gib": 7.2, "peak_allocated_gib": 6.26},
            "80gb": {
                "matmul_tflops": 700.0,
                "computed": {**speed(16, 30.0), "share_of_matmul": 0.7},
                "computed_fixed_batch": speed(16, 31.25),
                "computed_1": speed(1, 4.0),
                "computed_1_graph": speed(1, 8.0) | {"peak_allocated_gib": None},
                "cached": {**speed(16, 38.0), "share_of_matmul": 0.71},
                "cached_1_graph": speed(1, 9.0) | {"peak_allocated_gib": None},
            },
            "exactness": {"fused": {"to_fp32": {"gradients": 0.05}, "to_plain_bf16": {"gradients": 0.01}}},
        }
    }
    table = as_table(results)
    assert "times TRL's own: 5.0 at 16 frames, 10.0 at 1" in table
    assert "waiting for frames costs 4.0% of a step" in table
    assert "8gb_capped: 20 steps of 8 frames within 7.2 GiB" in table
    assert table.splitlines()[-1].startswith('{"arms"')


def test_table_of_a_part_holds_that_part() -> None:
    assert "TRL" not in as_table({"arms": {"8gb": [speed(1, 2.5)]}})


@pytest.mark.parametrize("script", ["bench_train", "bench_infer", "bench_bases", "bench_small_card"])
def test_without_a_gpu_it_says_so(script: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py"],
        cwd=PROJECT_ROOT,
        env={"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "error: this benchmark needs an NVIDIA GPU that torch can see"
