"""What `make demo` itself made and learned, as it lies in data/demo and outputs/demo; continuous integration makes it.

Other tests run a small one, which walks the same way and learns less.
"""

import json
from typing import Any

import pytest

from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.demo.record import RECORD_FILE
from data_prep.files import PROJECT_ROOT

DATA = PROJECT_ROOT / "data" / "demo"
REPORT = PROJECT_ROOT / "outputs" / "demo" / "eval" / "report.json"

pytestmark = pytest.mark.skipif(
    not REPORT.is_file(), reason="make demo was not run here: there is no outputs/demo/eval"
)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.read_text())
    return found


def test_demo_has_the_real_datas_priors_copies_and_late_behaviours() -> None:
    marks = json.loads((DATA / RECORD_FILE).read_text())["clips"]
    clips = read_clips(DATA / CLIPS_FILE)
    assert [sum(clip.split == split for clip in clips) for split in ("train", "test")] == [120, 60]
    for split, unsafe in (("train", 0.8), ("test", 0.5)):
        labels = [clip.label for clip in clips if clip.split == split]
        assert labels.count("UNSAFE") / len(labels) == unsafe
    hidden = sum(sample < marks[clip.path]["hidden_samples"] for clip in clips for sample in clip.samples)
    assert 0 < hidden <= 0.03 * sum(clip.frames for clip in clips)
    by_path = {clip.path: clip for clip in clips}
    copies = [(by_path[path], by_path[mark["copy_of"]]) for path, mark in marks.items() if mark["copy_of"]]
    assert len(copies) == 4 and all(copy.sha256 == source.sha256 for copy, source in copies)


def test_report_is_of_this_data_and_all_of_its_test_clips(report: dict[str, Any]) -> None:
    assert report["config"]["same_data_as_training"] is True
    test = [clip for clip in read_clips(DATA / CLIPS_FILE) if clip.split == "test"]
    assert report["results"]["clip"]["n"] == len(test)
    assert report["results"]["frame"]["n"] == sum(clip.frames for clip in test)


def test_adapter_learns_what_its_base_does_not_know(report: dict[str, Any]) -> None:
    """The bounds are well below what three seeds gave (benchmarks/README.md), so that a slow week doesn't fail it."""
    assert report["results"]["frame"]["macro_f1"] >= 0.85
    assert report["results"]["clip"]["macro_f1"] >= 0.85
    assert 0.40 <= report["baselines"]["base_model"]["frame"]["balanced_accuracy"] <= 0.60
    assert report["baselines"]["always_unsafe"]["frame"]["macro_f1"] < 0.4


def test_linear_probe_learns_something_and_the_adapter_more(report: dict[str, Any]) -> None:
    probe = report["baselines"]["linear_probe"]["frame"]
    assert 0.55 < probe["auroc"] < report["results"]["frame"]["auroc"]
    assert report["comparison"]["linear_probe"]["frame"]["macro_f1"]["interval"][0] > 0
