"""Two finished evaluations side by side: `eval_qwen2vl.py --compare`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from recipes import eval_qwen2vl
from recipes.report.side_by_side import compare_evaluations, comparison_as_table, read_evaluation

# Clips a and c are UNSAFE, b and d SAFE. Their means, first: a 0.8, b 0.3, c 0.2, d 0.1; second: 0.4, 0.6, 0.2, 0.3.
FRAMES = [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("d", 0), ("d", 1)]
LABELS = ["UNSAFE", "UNSAFE", "SAFE", "UNSAFE", "SAFE", "SAFE"]
FIRST = [0.9, 0.7, 0.3, 0.2, 0.1, 0.1]
SECOND = [0.6, 0.2, 0.6, 0.2, 0.4, 0.2]


def write(
    folder: Path,
    p_unsafe: list[float],
    *,
    labels: list[str] = LABELS,
    threshold: float = 0.5,
    prior: float | None = None,
    backwards: bool = False,
    left_out: int = 0,
) -> Path:
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {"clip": clip, "sample": sample, "label": label, "p_unsafe": p}
        for (clip, sample), label, p in zip(FRAMES, labels, p_unsafe, strict=True)
    ]
    lines = [json.dumps(row) + "\n" for row in (rows[::-1] if backwards else rows[left_out:])]
    predictions = "".join(lines).encode()
    (folder / "predictions.jsonl").write_bytes(predictions)
    report = {
        "threshold": {"value": threshold, "prior": {"training": 0.5, "stated": prior}},
        "predictions_sha256": hashlib.sha256(predictions).hexdigest(),
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_figures_of_both_and_their_difference(tmp_path: Path) -> None:
    """Frames right: 5 of 6 and 3 of 6; clips: a, b and d, and d alone. The order of the rows doesn't matter."""
    first = read_evaluation(write(tmp_path / "first", FIRST))
    second = read_evaluation(write(tmp_path / "second", SECOND, backwards=True))
    compared = compare_evaluations(first, second)
    frames, clips = compared["frame"]["accuracy"], compared["clip"]["accuracy"]
    assert [frames["first"], frames["second"], frames["value"]] == pytest.approx([5 / 6, 3 / 6, 2 / 6])
    assert [clips["first"], clips["second"], clips["value"]] == pytest.approx([3 / 4, 1 / 4, 2 / 4])
    assert clips["interval"] == pytest.approx((0.0, 1.0))
    assert compared["mcnemar"] == {"only_first_right": 2, "only_second_right": 0, "p_value": 0.5}
    lines = comparison_as_table(first, second, compared).splitlines()
    assert [line.split()[:4] for line in lines if line.startswith("accuracy")] == [
        ["accuracy", "0.833", "0.500", "+0.333"],
        ["accuracy", "0.750", "0.250", "+0.500"],
    ]
    assert lines[-1] == "clips that the first alone gets right 2, the second alone 0; McNemar's p 0.5"
    assert max(map(len, lines[2:])) <= 80


@pytest.mark.parametrize("p_unsafe", [float("nan"), float("inf"), 1.5, -0.5])
def test_p_that_is_no_probability_is_damage(tmp_path: Path, p_unsafe: float) -> None:
    """JSON has no NaN, but Python's reader takes one."""
    with pytest.raises(InputError, match=r"is damaged .*no number from 0 to 1"):
        read_evaluation(write(tmp_path / "first", [*FIRST[:-1], p_unsafe]))


def test_each_is_judged_by_its_own_threshold(tmp_path: Path) -> None:
    folders = (write(tmp_path / "at 0.5", FIRST), write(tmp_path / "at 0.15", FIRST, threshold=0.15))
    compared = compare_evaluations(*map(read_evaluation, folders))["clip"]["recall"]
    assert (compared["first"], compared["second"]) == (0.5, 1.0)


def test_script_prints_the_comparison_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write(tmp_path / name, scores)) for name, scores in (("first", FIRST), ("second", SECOND))]
    before = sorted(tmp_path.rglob("*"))
    assert eval_qwen2vl.main(["--compare", *folders]) == 0
    assert "macro_f1" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_one_label_leaves_dashes(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, FIRST, labels=["SAFE"] * 6) for name in ("first", "second")]
    first, second = map(read_evaluation, folders)
    table = comparison_as_table(first, second, compare_evaluations(first, second))
    assert [line.split()[1:] for line in table.splitlines() if line.startswith("auroc")] == [["-", "-", "-", "-"]] * 2


def test_other_frames_and_other_labels_are_refused(tmp_path: Path) -> None:
    first = read_evaluation(write(tmp_path / "first", FIRST))
    relabelled = read_evaluation(write(tmp_path / "relabelled", FIRST, labels=[*LABELS[:4], "UNSAFE", "UNSAFE"]))
    with pytest.raises(InputError, match="label the same frames differently"):
        compare_evaluations(first, relabelled)
    fewer = write(tmp_path / "fewer", FIRST, left_out=1)
    with pytest.raises(InputError, match="are of 1 different frames; evaluate both on the same data set"):
        compare_evaluations(first, read_evaluation(fewer))


def test_both_are_of_one_world(tmp_path: Path) -> None:
    """Frames right: of three UNSAFE ones two and one, of three SAFE ones all and two; a tenth are to be UNSAFE."""
    folders = [write(tmp_path / name, scores, prior=0.1) for name, scores in (("first", FIRST), ("second", SECOND))]
    compared = compare_evaluations(*map(read_evaluation, folders))["frame"]["accuracy"]
    assert compared["first"] == pytest.approx(0.1 * 2 / 3 + 0.9)
    assert compared["second"] == pytest.approx(0.1 * 1 / 3 + 0.9 * 2 / 3)
    plain = read_evaluation(write(tmp_path / "plain", SECOND))
    with pytest.raises(InputError, match=r"are for stated priors 0\.1 and none; evaluate both with the same --prior"):
        compare_evaluations(read_evaluation(folders[0]), plain)


@pytest.mark.parametrize("prior", [0.0, 1.0, 2, "0.1x"])
def test_stated_prior_that_is_none_is_damage(tmp_path: Path, prior: Any) -> None:
    with pytest.raises(InputError, match="is damaged"):
        read_evaluation(write(tmp_path / "first", FIRST, prior=prior))


@pytest.mark.parametrize("gone", ["report.json", "predictions.jsonl"])
def test_unfinished_evaluation_is_refused_by_name(tmp_path: Path, gone: str) -> None:
    folder = write(tmp_path / "first", FIRST)
    (folder / gone).unlink()
    with pytest.raises(InputError, match=f"no {gone}; name the eval folder of a finished evaluation"):
        read_evaluation(folder)
    (folder / gone).write_text("{")
    with pytest.raises(InputError, match=r"is damaged|predictions\.jsonl isn't what report\.json was made from"):
        read_evaluation(folder)
