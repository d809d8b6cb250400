"""The start benchmark on a few rows: that every part is run, and a later start reads no frame."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import bench_start
from recipes.batches.vision_cache import EncodedFrames


def test_whole_benchmark_on_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = []
    iterate = EncodedFrames.__iter__

    def noted(frames: EncodedFrames) -> Iterator[bytes]:
        read.append(len(frames))
        return iterate(frames)

    monkeypatch.setattr(EncodedFrames, "__iter__", noted)
    monkeypatch.setattr(bench_start, "in_its_own_process", lambda function, out: function(out))
    assert bench_start.main(["--out", str(tmp_path), "--rows", "40", "--rounds", "3"]) == 0
    results = json.loads((tmp_path / "40" / "bench_start.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == results
    assert [len(start["seconds"]) for start in results["starts"]] == [5, 5, 5]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 40
    assert read == [40]
