"""The bases' benchmark on the small base and a CPU: what needs no GPU of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.arms import bases
from benchmarks.bench_bases import as_table
from data_prep.errors import InputError
from recipes.model.base import find_base
from recipes.training.command_line import read_settings
from recipes.training.run import prepare_run
from tests.tiny_data import many_clips, write_data


def run_of(name: str, **figures: Any) -> dict[str, Any]:
    row = {"frames_at_once": 4, "steps": 3, "peak_allocated_gib": 2.5, "predicted_gib": 2.4, "losses": [0.7, 0.6, 0.6]}
    return {"run": name, **row, "frames_evaluated": 32, "answer_p50_ms": 41.5, "seconds": 60.0, **figures}


def test_table_sets_the_peak_beside_the_prediction() -> None:
    arms = {
        "6gb": {"runs": [run_of("2B, 6gb", peak_allocated_gib=1.25)]},
        "packed": {"runs": [run_of("2B in 4 bits, 8gb")], "p_unsafe_off": {"adapter on": 0.0, "merged": 1e-4}},
    }
    lines = as_table({"arms": arms}).splitlines()
    assert lines[1].split() == ["2B,", "6gb", "4", "3", "1.25", "2.40", "32", "41.5", "60"]
    assert "P(UNSAFE) on the base packed before, merged: at most 1.0e-04 off the one packed here" in lines
    assert json.loads(lines[-1]) == {"arms": arms}


@pytest.mark.parametrize(
    ("recipe", "places"), [("6gb", {}), ("8gb", {"embedding_on_host": True, "head_on_host": False}), ("80gb", {})]
)
def test_short_runs_settings_are_the_recipe_s_but_for_their_length(
    small_base: Path, tmp_path: Path, recipe: str, places: dict[str, Any]
) -> None:
    write_data(tmp_path / "data", many_clips())
    argv = bases.arguments_of(tmp_path, tmp_path / "run", recipe, small_base, {**places, "use_cpu": True})
    base = find_base(str(small_base))
    if recipe == "80gb":
        with pytest.raises(InputError, match="compile_layers needs a GPU"):
            prepare_run(read_settings(argv), base)
        argv += ["--compile_layers", "false"]
    run = prepare_run(read_settings(argv), base)
    assert (run.training.max_steps, run.training.logging_steps, run.recipe.max_pixels) == (3, 1, 401408)
    assert run.recipe.embedding_on_host is (recipe != "80gb")
    assert run.recipe.head_on_host is (recipe == "6gb")


def test_packed_base_is_one_that_the_recipe_takes(tied_base: Path, tmp_path: Path) -> None:
    bases.write_packed(tied_base, tmp_path / "packed")
    assert find_base(str(tmp_path / "packed")).folder == tmp_path / "packed"
    assert bases.size_of(tmp_path / "packed") < bases.size_of(tied_base)
