"""The answering benchmark's own parts: what needs no GPU of it."""

from pathlib import Path

import torch

from benchmarks.bench_infer import as_table
from benchmarks.made.random_adapter import write_random_adapter
from recipes.adapter.folder import find_adapter
from recipes.adapter.lora import load_adapter
from recipes.model import loading


def test_random_adapter_is_a_finished_run_s(small_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_random_adapter(folder, small_base, max_pixels=100352)
    base = find_adapter(folder).base
    model = loading.load_base(base, dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu"))
    adapted = load_adapter(model, folder)
    assert sum(weight.abs().sum() > 0 for name, weight in adapted.named_parameters() if "lora_" in name) == 4 * 7 * 2


def test_table_shows_each_way() -> None:
    times = [{"what": "graph, model alone", "tokens": 480, "batch": 32, "p50_ms": 400.0, "p95_ms": 410.0}]
    part = {"peak_allocated_gib": 4.7, "peak_reserved_gib": 4.8, "loading_seconds": 4.0, "times": times}
    table = as_table({"arms": {"small": part, "small_capped": {"cap_gib": 5.2, "peak_allocated_gib": 4.75}}})
    lines = table.splitlines()
    assert lines[1].split() == ["small,", "graph,", "model", "alone", "480", "32", "400.0", "410.0", "80.0"]
    assert "small: peak allocated 4.70 GiB, reserved 4.80 GiB; loaded in 4.0 s" in table
    assert "infer.py within 5.2 GiB: peak allocated 4.75 GiB" in table
    assert lines[-1].startswith('{"arms"')
