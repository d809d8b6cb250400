"""The benchmark of operating points, on evaluations written by hand."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks.bench_operating_point import DEFAULT, Run, Way, as_table, compare_ways, read_run
from benchmarks.measuring.demo_runs import UNWEIGHTED, WEIGHTED
from data_prep.errors import InputError
from recipes.metrics.class_ids import class_ids
from recipes.report.side_by_side import Evaluation

FRAMES = [(f"c{number // 2}", number % 2) for number in range(12)]
LABELS = ["UNSAFE", "UNSAFE", "SAFE", "SAFE"] * 3
PRIOR = Way(UNWEIGHTED, "0.5", prior=0.5)


def evaluation(scores: np.ndarray) -> Evaluation:
    return Evaluation(Path("eval"), 0.5, FRAMES, LABELS, scores)


def run(seed: int, prior: float) -> Run:
    random = np.random.default_rng(seed)
    truth = class_ids(LABELS)
    scores = (0.35 * truth[:, None] + 0.65 * random.random((12, 2))) ** (0.5 if prior > 0.5 else 1)
    return Run(prior, evaluation(scores[:, 0]), evaluation(scores[:, 1]))


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Run]]:
    return {WEIGHTED: [run(0, 0.5), run(1, 0.5)], UNWEIGHTED: [run(2, 0.8), run(3, 0.8)]}


def test_correcting_for_an_even_prior_is_moving_the_threshold_to_the_training_prior(runs: dict[str, list[Run]]) -> None:
    table = compare_ways(runs, [DEFAULT, PRIOR, Way(UNWEIGHTED, "0.8")])
    for unit in ("frame", "clip"):
        corrected, moved = (row[unit]["macro_f1"] for row in table[1:])
        if unit == "frame":  # a clip's mean isn't the correction of its frames' mean
            assert corrected["by_seed"] == moved["by_seed"] and corrected["interval"] == moved["interval"]
    assert table[1]["frame"]["brier"]["mean"] != table[2]["frame"]["brier"]["mean"]


def test_figures_are_the_mean_of_the_seeds_and_their_distance_from_the_first_way(runs: dict[str, list[Run]]) -> None:
    first, other = compare_ways(runs, [DEFAULT, Way(UNWEIGHTED, "0.5")])
    expected = [f1_score(class_ids(LABELS), each.test.p_unsafe >= 0.5, average="macro") for each in runs[UNWEIGHTED]]
    found = other["frame"]["macro_f1"]
    assert found["by_seed"] == pytest.approx(expected)
    assert found["mean"] == pytest.approx(np.mean(expected))
    assert found["interval"][0] <= found["mean"] <= found["interval"][1]
    assert found["above_first"] == pytest.approx(found["mean"] - first["frame"]["macro_f1"]["mean"])
    assert first["frame"]["macro_f1"]["above_first_interval"] == (0.0, 0.0)


def test_threshold_is_chosen_on_each_run_s_own_validation(runs: dict[str, list[Run]]) -> None:
    (row,) = compare_ways(runs, [Way(WEIGHTED, "recall>=1")])
    lowest = [each.validation.p_unsafe[class_ids(LABELS) == 1].min() for each in runs[WEIGHTED]]
    assert all(threshold <= least for threshold, least in zip(row["thresholds"], lowest, strict=True))
    assert len(set(row["thresholds"])) == 2


def test_table_has_a_row_a_way(runs: dict[str, list[Run]]) -> None:
    lines = as_table(compare_ways(runs, [DEFAULT, PRIOR])).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| labels balanced, 0.5",
        "| labels as they are, prior 0.5, 0.5",
    ]
    assert lines[2].endswith("| +0.000 (+0.000 to +0.000) |")


def test_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"seed0: no adapter; run benchmarks/bench_demo\.py first"):
        read_run(tmp_path / "seed0")
