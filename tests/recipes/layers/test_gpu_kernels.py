"""The project's own GPU kernels, by Triton's interpreter, and what stands in for them where there is none.

Rounding to bf16 is the GPU's, which the interpreter cuts off instead: benchmarks/bench_plan.py compares that.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import silu

from recipes.layers import gating, kernels_here


def test_kernels_compute_what_the_libraries_do() -> None:
    pytest.importorskip("triton", reason="no Triton for this system, where there are no GPUs for it either")
    script = Path(__file__).with_name("interpreted_kernels.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["equal"]) == 24 and all(found["equal"].values())
    assert max(max(each) for each in found["gated"]) < 2e-6


def test_gradients_of_the_gated_product_are_autograd_s() -> None:
    torch.manual_seed(0)
    one, other, gradient = (torch.randn(5, 7, dtype=torch.float64) for _ in range(3))
    expected = [each.clone().requires_grad_() for each in (one, other)]
    (silu(expected[0]) * expected[1]).backward(gradient)
    assert torch.equal(gating.gated_product(one, other), silu(one) * other)
    for found, by_autograd in zip(gating.gated_gradients(gradient, one, other), expected, strict=True):
        torch.testing.assert_close(found, by_autograd.grad)


def test_a_machine_that_compiles_no_kernels_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_a_compiler(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler.\nMore of it.")

    pytest.importorskip("triton", reason="no Triton for this system, where there are no GPUs for it either")
    monkeypatch.setattr("recipes.layers.gpu_kernels.gated_product", without_a_compiler)
    kernels_here._compile_on.cache_clear()
    device = torch.device("cpu")
    assert not kernels_here._compile_on(device) and not kernels_here._compile_on(device)
    said = capsys.readouterr().err
    assert said == (
        "without this project's GPU kernels, which makes it slower: Triton says 'Failed to find C compiler.'\n"
    )
    kernels_here._compile_on.cache_clear()
    assert not kernels_here.kernels_for(torch.ones(1)), "what lies on a CPU is never computed by them"
