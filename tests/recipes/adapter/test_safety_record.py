import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from data_prep.labels import LABELS, PROMPT
from data_prep.media.frame_format import FrameFormat
from recipes.adapter.safety_record import Merged, SafetyRecord, is_finished, read_record

RECORD = SafetyRecord(
    prompt=PROMPT,
    labels=LABELS,
    max_pixels=401408,
    base_model="plant/base",
    base_revision="c0ffee",
    dtype="bfloat16",
    load_in_4bit=True,
    threshold=0.5,
    threshold_from="fixed",
    training_prior=0.5,
    dataset="local/safe-unsafe-frames",
    dataset_revision="abc",
    dataset_hash="def",
    seed=0,
)


def test_record_survives_the_disk(tmp_path: Path) -> None:
    assert not is_finished(tmp_path)
    RECORD.write(tmp_path)
    assert is_finished(tmp_path)
    assert read_record(tmp_path) == RECORD
    kept_as = replace(RECORD, frames=FrameFormat(640, 85))
    kept_as.write(tmp_path)
    assert read_record(tmp_path) == kept_as
    assert (kept_as.max_side, RECORD.max_side) == (640, None)


@pytest.mark.parametrize(("version", "lacking"), [(2, ["frames", "merged"]), (3, ["merged"])])
def test_record_of_an_earlier_version_lacks_what_it_did_not_know(
    tmp_path: Path, version: int, lacking: list[str]
) -> None:
    before = {name: value for name, value in asdict(RECORD).items() if name not in lacking}
    (tmp_path / "safety.json").write_text(json.dumps({**before, "schema_version": version}))
    assert read_record(tmp_path) == RECORD
    (tmp_path / "safety.json").write_text(json.dumps(before))
    with pytest.raises(InputError, match=re.escape(f"keys {lacking} are missing")):
        read_record(tmp_path)


def test_record_of_a_whole_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    merged = Merged(base_weights="original", adapter="outputs/plant", adapter_sha256="ab", fingerprint="cd")
    record = replace(RECORD, load_in_4bit=False, merged=merged)
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    stored = json.loads((tmp_path / "safety.json").read_text())
    (tmp_path / "safety.json").write_text(json.dumps({**stored, "merged": {"base_weights": "original"}}))
    with pytest.raises(InputError, match=r"merged .* is of another kind than it was written"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["SAFE", "DANGER"]}, "labels ['SAFE', 'DANGER'] are not ['SAFE', 'UNSAFE']"),
        ({"prompt": " "}, "prompt is empty"),
        ({"threshold": 1.5}, "threshold 1.5 is not between 0 and 1"),
        ({"max_pixels": 0}, "max_pixels 0 is not positive"),
        ({"schema_version": 1}, "schema_version 1 is not 4"),
        ({"training_prior": 1.0}, "training_prior 1.0 is not between 0 and 1"),
        ({"colour": "red"}, "keys ['colour'] are missing or unknown"),
        ({"threshold": "high"}, "threshold 'high' is of another kind than it was written"),
        ({"threshold": float("nan")}, "threshold nan is not between 0 and 1"),
        ({"dtype": "float64x"}, "dtype 'float64x' is not one of bfloat16, float32"),
        ({"dtype": "float16"}, "dtype 'float16' is not one of bfloat16, float32"),
        ({"load_in_4bit": "no"}, "load_in_4bit 'no' is of another kind"),
        ({"max_pixels": 1e6}, "max_pixels 1000000.0 is of another kind"),
        ({"max_pixels": True}, "max_pixels True is of another kind"),
        ({"base_model": None}, "base_model None is of another kind"),
        ({"labels": 3}, "safety.json: "),
        ({"frames": {"max_side": 640}}, "frames {'max_side': 640} is of another kind"),
        ({"frames": 640}, "frames 640 is of another kind"),
        ({"frames": {"max_side": None, "jpeg_quality": "90"}}, "jpeg quality 90 is outside 1 to 95"),
        ({"frames": {"max_side": 27, "jpeg_quality": 90}}, "max side 27 is below 28 pixels"),
    ],
)
def test_record_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "safety.json").write_text(json.dumps({**asdict(RECORD), **change}))
    with pytest.raises(InputError, match=re.escape(message)):
        read_record(tmp_path)


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; train one"):
        read_record(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no run lies there; name a run's own folder, such as outputs/demo"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"safety\.json is missing; the run hasn't finished"):
        read_record(tmp_path)
    (tmp_path / "safety.json").write_text('{"prompt": ')
    with pytest.raises(InputError, match="not JSON"):
        read_record(tmp_path)


def test_record_answers_from_its_own_threshold_and_prior() -> None:
    record = replace(RECORD, threshold=0.7, training_prior=0.8)
    assert [record.label_of(p) for p in (0.0, 0.69, 0.7, 1.0)] == ["SAFE", "SAFE", "UNSAFE", "UNSAFE"]
    assert record.at_prior(0.3, None) == 0.3
    assert record.at_prior(0.5, 0.5) == pytest.approx(0.2)  # odds of 1, times (1 to 1) / (4 to 1)


def test_fixed_threshold_is_applied_to_the_corrected_p_and_a_chosen_one_moves_with_it() -> None:
    fixed = replace(RECORD, threshold=0.7)
    chosen = replace(RECORD, threshold=0.7, threshold_from="recall>=0.98 on 68 validation frames: 50 of 51 found")
    assert [record.threshold_at(None) for record in (fixed, chosen)] == [0.7, 0.7]
    assert fixed.threshold_at(0.1) == 0.7
    assert chosen.threshold_at(0.1) == pytest.approx(7 / (7 + 27))  # odds of 7 to 3, times 1 to 9
    scores = [0.0, 0.2, 0.65, 0.75, 0.97, 1.0]
    plain = ["SAFE", "SAFE", "SAFE", "UNSAFE", "UNSAFE", "UNSAFE"]
    for record, prior, answers in (
        (chosen, 0.1, plain),
        (chosen, 0.999, plain),
        (fixed, 0.1, [*["SAFE"] * 4, "UNSAFE", "UNSAFE"]),
    ):
        assert [record.label_of(record.at_prior(p, prior), prior) for p in scores] == answers


@pytest.mark.parametrize("p_unsafe", [float("nan"), float("inf"), -0.1, 1.5])
def test_what_is_no_probability_has_no_answer(p_unsafe: float) -> None:
    with pytest.raises(InputError, match="no number from 0 to 1, so there is no answer"):
        RECORD.label_of(p_unsafe)
