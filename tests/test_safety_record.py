import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from data_prep.labels import LABELS, PROMPT
from recipes.base_model import find_base
from recipes.safety_record import SafetyRecord, find_base_of, is_finished, read_record

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["SAFE", "DANGER"]}, "labels ['SAFE', 'DANGER'] are not ['SAFE', 'UNSAFE']"),
        ({"prompt": " "}, "prompt is empty"),
        ({"threshold": 1.5}, "threshold 1.5 is not between 0 and 1"),
        ({"max_pixels": 0}, "max_pixels 0 is not positive"),
        ({"schema_version": 1}, "schema_version 1 is not 2"),
        ({"training_prior": 1.0}, "training_prior 1.0 is not between 0 and 1"),
        ({"colour": "red"}, "keys ['colour'] are missing or unknown"),
        ({"threshold": "high"}, "safety.json: "),
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


def test_base_must_be_the_one_trained_on(tmp_path: Path, small_base: Path) -> None:
    base = find_base(str(small_base))
    record = replace(RECORD, base_model=base.name, base_revision=base.revision)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": base.name}))
    assert find_base_of(tmp_path, record) == base
    with pytest.raises(InputError, match=r"was trained on .* of revision 0123; what lies there now is"):
        find_base_of(tmp_path, replace(record, base_revision="0123"))
    config.write_text(json.dumps({"base_model_name_or_path": "another/base"}))
    with pytest.raises(InputError, match="is for base 'another/base'"):
        find_base_of(tmp_path, record)
    config.unlink()
    with pytest.raises(InputError, match=r"adapter_config\.json is missing or damaged"):
        find_base_of(tmp_path, record)
