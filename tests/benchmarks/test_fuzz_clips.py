"""A twentieth of the search for clips that hang, crash or deceive; and that the search would see them."""

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import bench_damage, fuzz_clips
from benchmarks.damage.clip_recipes import recipes_to_damage
from benchmarks.damage.clip_trials import Trials
from benchmarks.damage.damaged_clips import (
    CODECS,
    clip_with_damaged_header,
    clip_with_damaged_packets,
    packets_to_damage,
)
from benchmarks.damage.encoded_clips import Recipe, encode
from benchmarks.damage.header_damage import spans
from benchmarks.damage.packet_damage import KINDS, is_leaf, lose, nal_units
from benchmarks.damage.watched_process import Fault, WatchedProcess
from benchmarks.damage.watched_video import Answer, expected_samples
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT

B_FRAMES = ("libx264", "strict pyramid")


def test_a_twentieth_of_the_search_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--headers", "125", "--packets", "25", "--sound", "25"]
    status = fuzz_clips.main(["--out", str(tmp_path), *counts])
    printed = capsys.readouterr()
    results = json.loads((tmp_path / "fuzz_clips.json").read_text())
    assert status == 0, printed.err
    assert json.loads(printed.out.splitlines()[-1]) == results
    assert results["clips"] == {"headers": 125, "packets": 25, "sound": 25}
    assert sum(row["altered"] for row in results["packets"]) >= 10


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer({"1": {0: "a", 1: "b"}}), None),
        (Answer({"1": {0: "a", 1: "c"}}), "other samples, and nothing said"),
        (Answer({"1": {0: "a"}}), "other samples, and nothing said"),
        (Answer({"1": {0: "a", 1: "c"}}, reason="lost frames: 1"), None),
        (Answer({"1": {}}, refused="not a readable mp4"), None),
        (Answer(fault="hang: no answer within 20 s"), "hang: no answer within 20 s"),
        (Answer(fault='  File "/x/video.py", line 9, in samples\nValueError: no'), "ValueError: no video.py:9 samples"),
    ],
)
def test_what_a_clip_with_damaged_packets_is_judged_by(
    answer: Answer, failure: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.damage.clip_trials.may_pass", lambda *_: False)
    monkeypatch.setattr(Trials, "_samples_of", lambda *_: {0: "a", 1: "b"})
    monkeypatch.setattr(Trials, "_answer", lambda *_: answer)
    with Trials(0, tmp_path) as trials:
        assert trials.attempt("packets", 0).failure == failure


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer({"1": {0: "a", 2: "c"}, "1000": {0: "a", 40: "b", 2001: "c", 2040: "d"}}), None),
        (Answer({"1": {0: "a", 2: "d"}, "1000": {0: "a", 40: "b", 2001: "c"}}), "samples are no full decode's"),
        (Answer({"1": {0: "a"}, "1000": {0: "a"}}, reason="lost frames: 1"), "false alarm: lost frames: 1"),
    ],
)
def test_what_a_sound_clip_is_judged_by(
    answer: Answer, failure: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trials, "_encoded", lambda *_: "libx264 frames=96")
    monkeypatch.setattr("benchmarks.damage.clip_trials.answer_of", lambda *_: answer)
    with Trials(0, tmp_path) as trials:
        outcome = trials.attempt("sound", 0)
    assert (outcome.failure, outcome.codec) == (failure, "H.264")


@pytest.mark.parametrize("make", [clip_with_damaged_header, clip_with_damaged_packets])
def test_seed_and_number_make_the_same_clip_again(make: Callable[[int, int], object]) -> None:
    clips = [make(3, number) for number in range(4)]
    assert clips == [make(3, number) for number in range(4)]
    assert len({str(clip) for clip in (*clips, make(4, 0))}) == 5


def test_failing_clip_is_told_with_how_to_make_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_clips.main(["--out", str(tmp_path), "--only", "headers:7"]) == 0
    assert "--seed 0 --only headers:7" in capsys.readouterr().err
    assert (tmp_path / "headers_7.mp4").read_bytes() == clip_with_damaged_header(0, 7).content


@pytest.mark.parametrize("only", ["headers", "header:7", "headers:x", "headers:-1"])
def test_what_is_no_phase_and_number_is_refused(only: str) -> None:
    with pytest.raises(InputError, match=f"--only {only}: give headers, packets, sound"):
        fuzz_clips.parsed(only)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("import time; time.sleep(60)", "hang: no answer within 0.5 s"),
        ("import os; os.abort()", "crash: SIGABRT"),
        ("import sys; sys.exit('gone')", "gone\ncrash: exit status 1"),
    ],
)
def test_process_that_hangs_or_dies_is_told_and_begins_anew(tmp_path: Path, script: str, fault: str) -> None:
    first = tmp_path / "has_begun"
    path = tmp_path / "script.py"
    path.write_text(
        "import pathlib\nfor line in iter(input, ''):\n"
        f"    begun = pathlib.Path({str(first)!r})\n"
        f"    if not begun.exists():\n        begun.touch()\n        {script}\n    print(line, flush=True)\n"
    )
    with WatchedProcess(str(path), seconds=0.5) as process:
        with pytest.raises(Fault, match=f"^{fault}$"):
            process.ask({"number": 1})
        process._seconds = 20
        assert process.ask({"number": 2}) == {"number": 2}


@pytest.mark.parametrize("codec", CODECS)
def test_clip_written_from_its_packets_is_the_clip(codec: str, tmp_path: Path) -> None:
    name, recipe = list(recipes_to_damage()[codec].items())[1]
    clip = encode(recipe, tmp_path / "clip.mp4")
    again = tmp_path / "again.mp4"
    again.write_bytes(packets_to_damage(codec, name).written())
    assert frames(again) == frames(clip)
    assert [at for at, _ in frames(clip)] == [512 * number for number in range(121)]


def frames(path: Path) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


def test_lost_packet_leaves_a_hole_or_times_close_up() -> None:
    clip = packets_to_damage(*B_FRAMES)
    number = next(number for number in range(20, 60) if is_leaf(clip, number))
    gone = clip.packets[number].pts
    shown = [512 * each for each in range(121)]
    assert shown_times(lose(clip, {number}, close_up=False)) == [at for at in shown if at != gone]
    assert shown_times(lose(clip, {number}, close_up=True)) == shown[:-1]


def shown_times(content: bytes) -> list[int]:
    with av.open(io.BytesIO(content)) as container:
        return sorted(packet.pts for packet in container.demux(video=0) if packet.size)


def test_leaf_is_a_packet_that_no_other_picture_needs() -> None:
    clip = packets_to_damage("libx264", "no B-frames")
    assert [number for number in range(1, 30) if is_leaf(clip, number)] == [29]  # the last before a keyframe


def test_every_kind_of_damage_changes_a_clip() -> None:
    clip = packets_to_damage("libx264", "four slices")
    for kind, damage in KINDS.items():
        content = damage(clip, np.random.default_rng(0))
        assert content is not None, kind
        assert content != clip.written(), kind
    rng = np.random.default_rng(0)
    assert KINDS["slice lost"](packets_to_damage("libx264", "no B-frames"), rng) is None
    assert len(nal_units(clip.packets[1].data)) == 4


def test_boxes_are_found_where_they_lie(tmp_path: Path) -> None:
    recipe = Recipe("libx264", frames=30, container={"movflags": "frag_keyframe+empty_moov"}, rate=Fraction(10))
    content = encode(recipe, tmp_path / "clip.mp4").read_bytes()
    found = {span.kind for span in spans(content)}
    assert {b"moov", b"avcC", b"mdhd", b"moof", b"traf", b"trun", b"tfdt"} <= found
    assert b"mdat" not in found
    for span in spans(content):
        assert content[span.begins + 4 : span.begins + 8] == span.kind


def test_samples_of_a_sound_clip_are_the_first_of_each_second() -> None:
    assert expected_samples({0: "a", 999: "b", 1040: "c", 1080: "d", 5000: "e"}) == {0: "a", 1: "c", 5: "e"}


def test_table_of_what_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_damage, "CODECS", {"libx264": "H.264"})
    monkeypatch.setattr(bench_damage, "KINDS", {kind: KINDS[kind] for kind in ("file cut", "leaf lost, hole")})
    assert bench_damage.main(["--out", str(tmp_path), "--clips", "2", "--before", str(PROJECT_ROOT)]) == 0
    results = json.loads((tmp_path / "bench_damage.json").read_text())
    out = capsys.readouterr().out
    assert bench_damage.as_table(results) in out
    cut, leaf = results["rows"]
    assert (cut["codec"], cut["kind"], cut["clips"], cut["altered"]) == ("H.264", "file cut", 2, 2)
    assert cut["noticed"]["now"] == cut["noticed"]["before"]
    assert cut["noticed"]["now"]["altered"] == 2
    assert leaf["made_up"] == 0
