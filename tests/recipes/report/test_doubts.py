"""The script, on a run that was noted by hand: no model is trained or loaded."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep import build_jsonl
from data_prep.errors import InputError
from data_prep.hub.source import open_dataset
from data_prep.labels import TRAIN
from data_prep.rows.jsonl import read_rows
from recipes import doubts
from tests.recipes.adapter.test_safety_record import RECORD
from tests.recipes.report.test_doubtful import seen_as
from tests.tiny_data import many_clips, write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = write_data(tmp_path / "data", many_clips())
    assert build_jsonl.main(["--data", str(data)]) == 0
    return data


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """A finished run's record and what it noted; the first training row was learned in no epoch."""
    run = tmp_path / "run"
    run.mkdir()
    source = open_dataset(str(data))
    record = replace(RECORD, dataset=str(data), dataset_revision=None, dataset_hash=source.content_hash)
    record.write(run)
    log_odds = np.full((len(source.rows(TRAIN)), 2), 3.0)
    log_odds[0] = -3.0
    seen_as(log_odds).write(run)
    return run


def test_ranks_frames_and_clips_and_what_is_ticked_can_be_left_out(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doubts.main(["--adapter", str(run), "--shown", "0.1"]) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in (run / "doubts" / "doubts.jsonl").read_text().splitlines()]
    frames, clips = ([line for line in lines if line["kind"] == kind] for kind in ("frame", "clip"))
    rows = open_dataset(str(data)).rows(TRAIN)
    assert [frame["rank"] for frame in frames] == [*range(1, len(rows) + 1)]
    assert len(clips) == len(set(rows["clip"][:])) and [clip["rank"] for clip in clips] == [*range(1, len(clips) + 1)]
    images = {row.image for row in read_rows(data / "train.jsonl")}
    assert {frame["image"] for frame in frames} < images, "names as the rows have them; validation isn't trained on"
    first = frames[0]
    assert (first["clip"], first["log_odds"], first["row"]) == (rows["clip"][0], [-3.0, -3.0], 0)
    assert clips[0]["clip"] == first["clip"]
    assert said.out.splitlines()[0] == f"{first['image']}: {first['label']}, {first['reason']}"
    assert first["reason"].startswith("learned in no epoch")
    page = (run / "doubts" / "doubts.html").read_text()
    assert len(re.findall('class="marked"', page)) == round(0.1 * len(rows))
    assert f'data-name="{first["image"]}"' in page and "second 0" in page

    ticked = tmp_path / "left_out.txt"
    ticked.write_text(f"{first['image']}\t{first['reason']}\n{clips[1]['folder']}\t{clips[1]['reason']}\n")
    assert build_jsonl.main(["--data", str(data), "--leave-out", str(ticked)]) == 0
    left = images - {row.image for row in read_rows(data / "train.jsonl")}
    assert first["image"] in left and len(left) == 3


def test_run_again_it_writes_the_same(run: Path) -> None:
    contents = []
    for _ in range(2):
        assert doubts.main(["--adapter", str(run)]) == 0
        contents.append({path.name: path.read_bytes() for path in (run / "doubts").iterdir()})
    assert contents[0] == contents[1] and set(contents[0]) == {"doubts.jsonl", "doubts.html"}


def test_data_that_moved_is_found_by_name_and_other_data_refused(run: Path, data: Path, tmp_path: Path) -> None:
    moved = data.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"holds no train\.jsonl"):
        doubts.main(["--adapter", str(run)])
    assert doubts.main(["--adapter", str(run), "--dataset", str(moved)]) == 0
    other = write_data(tmp_path / "other", many_clips(train_per_class=4))
    with pytest.raises(InputError, match="holds other rows than the adapter was trained on"):
        doubts.main(["--adapter", str(run), "--dataset", str(other)])


def test_what_can_t_be_ranked_is_refused(run: Path) -> None:
    for shown in ("0", "1.5"):
        with pytest.raises(InputError, match=f"--shown {shown} must be above 0 and at most 1"):
            doubts.main(["--adapter", str(run), "--shown", shown])
    seen_as(np.full((99, 1), 1.0)).write(run)
    with pytest.raises(InputError, match=r"log_odds\.safetensors: is of 99 rows at least, but .* trains on 32"):
        doubts.main(["--adapter", str(run)])
    (run / "log_odds.safetensors").unlink()
    with pytest.raises(InputError, match=r"log_odds\.safetensors is missing, which training writes"):
        doubts.main(["--adapter", str(run)])
    assert not (run / "doubts").exists()


def test_rows_that_were_never_seen_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that an earlier version began, or one that ends within its first epoch, has noted some rows alone."""
    seen = seen_as(np.full((30, 1), 1.0))
    seen.write(run)
    assert doubts.main(["--adapter", str(run)]) == 0
    assert "2 of 32 rows weren't seen since the run began to be noted; they come last" in capsys.readouterr().err
    lines = (run / "doubts" / "doubts.jsonl").read_text().splitlines()
    last = [frame for frame in map(json.loads, lines) if frame["kind"] == "frame"][-2:]
    assert [(frame["log_odds"], frame["reason"]) for frame in last] == [([], "not seen")] * 2
