"""The plan's benchmark: what needs no GPU of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_plan
from benchmarks.arms import plan
from benchmarks.measuring import planned_run
from benchmarks.measuring.plan_table import as_table
from data_prep.files import PROJECT_ROOT
from recipes.machine.cards import CARDS
from recipes.training.command_line import read_settings

RESULTS = json.loads((PROJECT_ROOT / "benchmarks/results/plan_h100.json").read_text())


def test_arms_are_those_of_the_script() -> None:
    measured_for_others = {name for name in plan.ARMS if name.startswith(("rates", "evaluated"))} | {"planned_whole"}
    assert {*plan.ARMS, *plan.PLANS} - measured_for_others == {*bench_plan.ARMS} - {bench_plan.WHOLE}
    assert {each.multiprocessors for each in plan.PLANS.values()} == {8, 32, None}
    assert all(f"rates_{each.multiprocessors or 'whole'}" in plan.ARMS for each in plan.PLANS.values())


def test_table_has_a_line_of_what_was_planned_and_one_of_what_it_took() -> None:
    *lines, last = as_table(RESULTS).splitlines()
    place = lines.index(
        "planned_1.6: 4 frames on the card at once, 4 times an update; 26 layers recomputed; in host memory embedding, "
        "head, optimizer, all layers, 11 vision blocks; vision features computed once and kept on disk"
    )
    assert lines[place + 1] == (
        "  0.511 s a frame (0.507 to 0.514), predicted 0.516 (1.01); allocated 1.11 GiB, predicted 1.11 (1.00); "
        "reserved 1.37, filling 0.00, loading 0.39"
    )
    assert "  all unpacked             114.03    48.21" in lines
    assert "  unpack q_proj              6.31     2.73  equal" in lines
    assert "  eager, model alone, 480 tokens: 341 ms, p95 352" in lines
    assert "  times the earlier version's: 0.995" in lines
    assert json.loads(last) == RESULTS


def test_plan_is_made_for_the_part_s_rates_and_what_is_free(
    tmp_path: Path, true_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card of a sixth of the memory gets another plan; what is pinned stays."""
    (tmp_path / "base").symlink_to(true_model_folder)
    settings = planned_run.settings_of(tmp_path, plan.PLANS["planned_7.2"])
    assert settings.values["model_name_or_path"] == str(tmp_path / "base") and settings.values["frames_an_update"] == 16
    config = json.loads((true_model_folder / "config.json").read_text())
    found = []
    for gib in (7.2, 1.2):
        room = {"card_bytes": gib * 2**30, "host_bytes": 2.0**36}
        monkeypatch.setattr(planned_run, "free_room", lambda device, room=room: room)
        found.append(planned_run.planned_for(settings, config, CARDS["RTX A1000"]).values)
    assert all(each["cache_vision_features"] for each in found)
    assert found[0]["recomputed_layers"] != found[1]["recomputed_layers"]
    for each in found:
        read_settings([part for name, value in each.items() for part in (f"--{name}", str(value))])


@pytest.mark.parametrize(
    ("frames", "update", "steady", "updates"),
    [(1, 16, False, 0.25), (2, 16, False, 0.25), (8, 16, False, 0.5), (16, 16, False, 1), (1, 16, True, 1)],
)
def test_a_few_frames_warm_up(frames: int, update: int, steady: bool, updates: float) -> None:
    assert planned_run.warm_up(frames, update, steady=steady) == updates


def test_whole_card_is_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def measured(script: str, arm: str, out: Path) -> dict[str, Any]:
        seen.append(arm)
        return {}

    def run_json(arguments: list[str], root: Path) -> dict[str, Any]:
        seen.append(f"{root.name}: {arguments[arguments.index('--recipe') + 1]}")
        return {}

    monkeypatch.setattr(bench_plan, "measured_by", measured)
    monkeypatch.setattr(bench_plan, "run_json", run_json)
    versions = {"now": PROJECT_ROOT, "before": tmp_path / "earlier"}
    assert bench_plan.in_turns(versions, tmp_path, 2) == {"now": [{}, {}], "before": [{}, {}]}
    assert seen == ["planned_whole", "earlier: 80gb"] * 2
