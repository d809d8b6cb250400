"""The report's benchmark on few frames, in this process: what it measures and writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_report
from benchmarks.arms import report as report_arm


def test_whole_benchmark_on_few_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roots: list[Path] = []

    def in_process(root: Path, work: list[str]) -> dict[str, Any]:
        roots.append(root)
        assert report_arm.main(work) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    monkeypatch.setattr(bench_report, "measured", in_process)
    sizes = ["--frames", "80", "--probe-frames", "100", "300", "--hidden", "8", "--before-frames", "200"]
    before = tmp_path / "c0ffee"
    (before / bench_report.SCRIPT).parent.mkdir(parents=True)
    (before / bench_report.SCRIPT).touch()
    assert bench_report.main(["--out", str(tmp_path), *sizes, "--rounds", "2", "--before", str(before)]) == 0
    results = json.loads((tmp_path / "bench_report.json").read_text())
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == results
    assert bench_report.as_table(results) in out
    assert [(arm["what"], arm["version"], arm["frames"], arm["runs"]) for arm in results["arms"]] == [
        ("report", "now", 80, 2),
        ("report", "before", 80, 2),
        ("probe", "now", 100, 1),
        ("probe", "before", 100, 1),
        ("probe", "now", 300, 1),
    ]
    assert results["before"] == "c0ffee" and roots.count(before) == 3
    assert all(0 < arm["imports_gb"] <= arm["peak_gb"] for arm in results["arms"])
    report = json.loads((tmp_path / "report_now" / "report.json").read_text())
    assert report["results"]["frame"]["n"] == 80
    assert report["clean_subset"]["results"]["clip"]["n"] == 7
    assert (tmp_path / "report_now" / "report.html").is_file()


def test_table_has_a_row_a_size_and_dashes_for_what_was_not_measured() -> None:
    def arm(version: str, frames: int, seconds: float) -> dict[str, Any]:
        runs = [{"seconds": {"fit": each}, "imports_gb": 0.5, "peak_gb": each} for each in (seconds, 1.0, 9.0)]
        return bench_report.summary("probe", version, frames, runs)

    results = {"arms": [arm("now", 1000, 3.0), arm("before", 1000, 4.0), arm("now", 2000, 5.0)]}
    assert bench_report.as_table(results).splitlines()[2:] == [
        "| probe, 1,000 frames | 3.0 | 9.00 | 4.0 | 9.00 |",
        "| probe, 2,000 frames | 5.0 | 9.00 | - | - |",
    ]
