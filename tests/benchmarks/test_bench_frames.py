"""The frames benchmark on small clips: what it writes, and that it would see a way that gives other frames."""

import json
from fractions import Fraction
from pathlib import Path

import av
import pytest

from benchmarks import bench_frames
from benchmarks.arms import frames
from benchmarks.arms.frames import sample_by_time
from benchmarks.made import moving_clip
from data_prep.files import PROJECT_ROOT
from tests.made_clips import write_lively_mp4


def test_whole_benchmark_on_small_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"GOPS": (12,), "SECONDS": 3, "CLIPS_AT_ONCE": 2}.items():
        monkeypatch.setattr(bench_frames, name, value)
    monkeypatch.setattr(bench_frames, "make_clip", small_clip)
    monkeypatch.setattr(bench_frames, "ARMS", {arm: frames.ARMS[arm] for arm in ("ours", "pyav")})
    before = ["--before", str(PROJECT_ROOT)]
    assert bench_frames.main(["--out", str(tmp_path), "--rounds", "2", *before]) == 0
    results = json.loads((tmp_path / "bench_frames.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == results
    for each in results["arms"]:
        assert each["frames"]["count"] == 3
        assert each["frames"]["largest_mean_difference"] < 5
        assert len(each["measured"]["wall"]) == 2
    assert [(each["arm"], each["gop"]) for each in results["arms"]] == [("before", 12), ("ours", 12), ("pyav", 12)]


def small_clip(path: Path, gop: int, frames: int) -> Path:
    if path.is_file():
        return path
    options = {"x264-params": f"keyint={gop}:scenecut=0", "crf": "30"}
    return write_lively_mp4(path, options, frames=min(frames, 70))


def test_way_that_gives_other_frames_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = small_clip(tmp_path / "clip.mp4", 24, 70)

    def one_late(way: bench_frames.Way, clips: list[Path], workers: int, out: Path) -> dict[str, float]:
        folder = out / "frames" / "0"
        frames.run(way.arm, clip, folder)
        (folder / "0001.jpg").replace(folder / "0000.jpg")
        return {}

    monkeypatch.setattr(bench_frames, "timed", one_late)
    found = bench_frames.compared(bench_frames.Way("ours"), clip, tmp_path)
    assert found["count"] == 2
    assert found["largest_mean_difference"] > 8


def test_clips_of_the_benchmark_have_the_distance_of_keyframes_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_clip, "WIDTH", 960)
    monkeypatch.setattr(moving_clip, "HEIGHT", 832)
    path = moving_clip.make_clip(tmp_path / "clip.mp4", 5, 12)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 5, 10]
    assert any(packet.pts != packet.dts for packet in packets), "it has B-frames"


@pytest.mark.parametrize(
    ("seconds", "fps", "expected"),
    [
        ([], "1", []),
        (["0"], "1", [(0, 0)]),
        (["0", "0.5", "0.999"], "1", [(0, 0)]),
        (["0", "0.5", "1", "1.5", "2"], "1", [(0, 0), (1, 2), (2, 4)]),
        (["0", "0.4", "0.8", "1.2", "1.6", "2.0"], "1", [(0, 0), (1, 3), (2, 5)]),
        (["-0.33", "0.33", "0.67", "0.68", "1.66", "1.67"], "1", [(0, 0), (1, 2), (2, 5)]),
        (["10", "10.5", "11", "11.5"], "1", [(0, 0), (1, 2)]),
        (["0", "1", "4.5", "5"], "1", [(0, 0), (1, 1), (4, 2), (5, 3)]),  # nothing is shown in seconds 2 and 3
        (["0", "2", "4"], "1", [(0, 0), (2, 1), (4, 2)]),
        (["0", "0.5", "1", "1.5"], "2", [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (["0", "1", "2", "3", "4"], "0.5", [(0, 0), (1, 2), (2, 4)]),
        (["0", "0.25", "0.5"], "4", [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_sample_k_is_the_first_frame_in_its_time(seconds: list[str], fps: str, expected: list[tuple[int, int]]) -> None:
    timed = [(Fraction(second), number) for number, second in enumerate(seconds)]
    assert list(sample_by_time(timed, Fraction(fps))) == expected


def test_times_are_exact_where_floats_are_not() -> None:
    """A third, thrice, is a second; in floats 29.97 frames a second drift off theirs within the hour."""
    timed = [(Fraction(number * 1001, 30000), number) for number in range(30 * 3600)]
    samples = list(sample_by_time(timed, Fraction(30000, 1001 * 30)))
    assert samples[:3] == [(0, 0), (1, 30), (2, 60)]
    assert samples[-1] == (3599, 107970)
