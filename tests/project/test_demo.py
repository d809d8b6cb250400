"""One run of a small `make demo` and what it left: every arrow of the flow, end to end.

What the whole demo learns is held by test_demo_figures.py.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn

import datasets
import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub import constants as hub_constants
from PIL import Image

from benchmarks import bench_infer_cpu
from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.files import PROJECT_ROOT, sha256_of_file
from data_prep.hub.source import open_dataset
from data_prep.labels import PROMPT, SOURCE_CLASSES
from data_prep.media.images import read_image
from data_prep.rows.jsonl import read_rows
from recipes import eval_qwen2vl, infer
from recipes.adapter.folder import find_adapter
from recipes.adapter.model_card import is_own_card
from recipes.adapter.safety_record import read_record
from recipes.answering.adapted_model import AdaptedModel, load_for_batches
from recipes.metrics.class_ids import class_ids
from recipes.metrics.safety_metric import compute_figures
from recipes.metrics.threshold import label_of
from recipes.report.evaluated_split import open_split
from recipes.report.scored import Scored
from recipes.report.writing import write_report
from tests.conftest import CLIP_FLAGS, TEST_CLIPS, TRAIN_CLIPS, Demo


@pytest.fixture(autouse=True)
def caches(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests do in this process finds what the demo pushed."""
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(demo.hf_home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", demo.hf_home / "datasets")


@pytest.fixture(scope="module")
def adapted(demo: Demo) -> AdaptedModel:
    return load_for_batches(find_adapter(demo.output))


@pytest.fixture(scope="module")
def frame(demo: Demo) -> Path:
    return min(demo.data.glob("frames/test/unsafe/*/0000.jpg"))


def run_python(demo: Demo, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "HF_HOME": str(demo.hf_home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_frames_stand_where_the_brief_says(demo: Demo) -> None:
    clips = read_clips(demo.data / CLIPS_FILE)
    assert {clip.source_class for clip in clips if clip.split == "test"} == {c.folder for c in SOURCE_CLASSES}
    for clip in clips:
        folder = demo.data / "frames" / clip.split / clip.label.lower() / clip.video_id
        assert sorted(path.name for path in folder.iterdir()) == [f"{k:04d}.jpg" for k in clip.samples]


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_frame_is_one_row(demo: Demo, split: str) -> None:
    rows = read_rows(demo.data / f"{split}.jsonl")
    on_disk = {path.relative_to(demo.data).as_posix() for path in demo.data.glob(f"frames/{split}/*/*/*.jpg")}
    left_out = {leak["path"] for leak in json.loads((demo.data / "audit.json").read_text())["left_out_of_train"]}
    clips = [clip for clip in read_clips(demo.data / CLIPS_FILE) if clip.path in left_out and clip.split == split]
    assert len(clips) == (4 if split == "train" else 0)
    expected = on_disk - {image for clip in clips for image in clip.frame_paths}
    assert len(rows) == len(expected)
    assert {row.image for row in rows} == expected
    assert {row.prompt for row in rows} == {PROMPT}
    assert all(row.response.lower() == row.image.split("/")[2] for row in rows)


def test_library_loads_the_pushed_data_set_offline_from_any_folder(demo: Demo, tmp_path: Path) -> None:
    code = (
        "from datasets import load_dataset\n"
        "loaded = load_dataset('local/safe-unsafe-demo')\n"
        "print({split: len(rows) for split, rows in loaded.items()})\n"
        "print(loaded['test'][0]['image'].size, sorted(loaded['test'].features))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(demo.hf_home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    counts, first = done.stdout.splitlines()
    rows = {split: len(read_rows(demo.data / f"{split}.jsonl")) for split in ("train", "test")}
    found = json.loads(counts.replace("'", '"'))
    assert found["train"] + found["validation"] == rows["train"]
    assert found["test"] == rows["test"]
    assert first == "(640, 360) ['camera', 'clip', 'image', 'prompt', 'response', 'sample', 'source_class']"


def test_training_says_what_it_trains_on(demo: Demo) -> None:
    record = read_record(demo.output)
    line = next(line for line in demo.stderr.splitlines() if line.startswith("local/safe-unsafe-demo (version "))
    assert record.dataset_hash[:12] in line
    assert "train " in line
    assert "UNSAFE" in line


def assert_figures(found: dict[str, Any], expected: dict[str, float | None]) -> None:
    """The figures of a part of the report are those expected, and each lies within its interval.

    But for the calibration error: drawing clips anew adds noise to every bin, which can only add to it.
    """
    assert {name: found[name] for name in found.keys() - {"n", "intervals"}} == pytest.approx(expected)
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high or name == "calibration_error", name


def test_report_agrees_with_its_predictions_and_its_files(demo: Demo) -> None:
    report = json.loads((demo.output / "eval" / "report.json").read_text())
    lines = (demo.output / "eval" / "predictions.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    rows = read_rows(demo.data / "test.jsonl")
    assert len(predictions) == report["results"]["frame"]["n"] == len(rows)
    p_unsafe = [prediction["p_unsafe"] for prediction in predictions]
    truth = class_ids([prediction["label"] for prediction in predictions])
    assert [prediction["image"] for prediction in predictions] == [row.image for row in rows]
    assert_figures(report["results"]["frame"], compute_figures(p_unsafe, truth, threshold=report["threshold"]["value"]))
    assert all((one["p_unsafe"] >= 0.5) == (one["answer"] == "UNSAFE") for one in predictions)
    always = report["baselines"]["always_unsafe"]["frame"]
    assert always["accuracy"] == pytest.approx(sum(truth) / len(truth))
    assert (always["recall"], always["balanced_accuracy"]) == (1.0, 0.5)
    assert sum(entry["n"] for entry in report["per_source_class"].values()) == len(rows)
    assert report["config"]["adapter_sha256"] == sha256_of_file(demo.output / "adapter_model.safetensors")
    assert report["config"]["dataset_hash"] == read_record(demo.output).dataset_hash
    assert report["config"]["same_data_as_training"] is True
    assert report["latency_ms"]["p50"] > 0


def test_report_s_clip_figures_are_of_the_frames_means(demo: Demo) -> None:
    report = json.loads((demo.output / "eval" / "report.json").read_text())
    lines = (demo.output / "eval" / "predictions.jsonl").read_text().splitlines()
    p_unsafe, label = defaultdict(list), {}
    for prediction in map(json.loads, lines):
        p_unsafe[prediction["clip"]].append(prediction["p_unsafe"])
        label[prediction["clip"]] = prediction["label"]
    means = [fmean(p_unsafe[clip]) for clip in label]
    truth = class_ids(list(label.values()))
    assert_figures(report["results"]["clip"], compute_figures(means, truth, threshold=report["threshold"]["value"]))
    assert report["results"]["clip"]["n"] == sum(clip.split == "test" for clip in read_clips(demo.data / CLIPS_FILE))


def test_linear_probe_is_compared_on_the_same_frames(demo: Demo) -> None:
    report = json.loads((demo.output / "eval" / "report.json").read_text())
    probe, adapter = report["baselines"]["linear_probe"]["frame"], report["results"]["frame"]
    assert probe["n"] == adapter["n"] and 0 < probe["auroc"] < 1
    compared = report["comparison"]["linear_probe"]["frame"]["macro_f1"]
    assert compared["interval"][0] <= adapter["macro_f1"] - probe["macro_f1"] <= compared["interval"][1]


def test_clean_subset_leaves_out_the_clips_that_the_audit_marks(demo: Demo) -> None:
    report = json.loads((demo.output / "eval" / "report.json").read_text())
    marked = {each["clip"] for each in json.loads((demo.data / "audit.json").read_text())["test_clips_with_twins"]}
    frames = [json.loads(line) for line in (demo.output / "eval" / "predictions.jsonl").read_text().splitlines()]
    kept = [frame for frame in frames if frame["clip"] not in marked]
    clean = report["clean_subset"]
    assert len(marked) == 2 and set(clean["clips_left_out"]) == marked
    assert_figures(
        clean["results"]["frame"],
        compute_figures([f["p_unsafe"] for f in kept], class_ids([f["label"] for f in kept]), threshold=0.5),
    )
    assert clean["results"]["clip"]["n"] == report["results"]["clip"]["n"] - 2
    assert report["data"]["audit"]["left_out_of_train"] == 4 and report["excluded"] == []


def test_report_can_be_read_and_its_plots_stand_beside_it(demo: Demo) -> None:
    folder = demo.output / "eval"
    page = (folder / "report.html").read_text()
    report = json.loads((folder / "report.json").read_text())
    assert f"Of {report['results']['frame']['n']} frames of {TEST_CLIPS} clips, " in page
    assert "This is the demo's base" in page and "second " in page
    wrong = {
        frame["clip"]
        for frame in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
        if frame["answer"] != frame["label"]
    }
    assert page.count('<figure><img src="data:image/jpeg;base64,') == min(len(wrong), 12)
    assert page.count('<div class="strip">') == min(len(wrong), 12), "every clip of the demo has several seconds"
    names = ["classes", "confusion", "histogram", "precision_recall", "reliability", "roc"]
    assert sorted(path.stem for path in (folder / "plots").iterdir()) == names
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_doubtful_labels_are_shown_and_can_be_left_out(demo: Demo, tmp_path: Path) -> None:
    """Two epochs of few clips rank nothing well; what is held is that the commands follow on each other."""
    done = run_python(demo, "recipes/doubts.py", "--adapter", demo.output)
    assert done.returncode == 0, done.stderr
    folder = demo.output / "doubts"
    lines = list(map(json.loads, (folder / "doubts.jsonl").read_text().splitlines()))
    frames = [line for line in lines if line["kind"] == "frame"]
    rows = open_dataset("local/safe-unsafe-demo").rows("train")
    assert sorted(frame["row"] for frame in frames) == list(range(len(rows)))
    assert {len(frame["log_odds"]) for frame in frames} == {2}, "once an epoch"
    assert (folder / "doubts.html").read_text().count('class="marked"') == round(0.2 * len(rows))
    assert all((demo.data / frame["image"]).is_file() for frame in frames)
    data = Path(shutil.copytree(demo.data, tmp_path / "data"))
    (tmp_path / "list.txt").write_text("".join(f"{frame['image']}\t{frame['reason']}\n" for frame in frames[:7]))
    done = run_python(demo, "data_prep/build_jsonl.py", "--data", data, "--leave-out", tmp_path / "list.txt")
    assert done.returncode == 0 and "7 frames left out by list.txt" in done.stdout, done.stderr
    before, after = ({row.image for row in read_rows(each / "train.jsonl")} for each in (demo.data, data))
    assert before - after == {frame["image"] for frame in frames[:7]}
    assert (data / "test.jsonl").read_bytes() == (demo.data / "test.jsonl").read_bytes()


def test_training_leaves_its_curves(demo: Demo) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = json.loads((demo.output / "training.json").read_text())["log_history"]
    curves = EventAccumulator(str(demo.output / "tensorboard")).Reload()
    logged = [(entry["step"], entry["eval_macro_f1"]) for entry in log if "eval_macro_f1" in entry]
    found = [(event.step, event.value) for event in curves.Scalars("eval/macro_f1")]
    assert [step for step, _ in found] == [step for step, _ in logged]
    assert [value for _, value in found] == pytest.approx([value for _, value in logged])
    assert "train/loss" in curves.Tags()["scalars"]
    assert Image.open(demo.output / "training.png").size == (770, 660)


def test_small_demo_has_the_whole_one_s_priors_and_copies(demo: Demo) -> None:
    marks = json.loads((demo.data / "demo_clips.json").read_text())["clips"]
    clips = read_clips(demo.data / CLIPS_FILE)
    assert [sum(clip.split == split for clip in clips) for split in ("train", "test")] == [TRAIN_CLIPS, TEST_CLIPS]
    for split, unsafe in (("train", 0.8), ("test", 0.5)):
        labels = [clip.label for clip in clips if clip.split == split]
        assert labels.count("UNSAFE") / len(labels) == unsafe
    by_path = {clip.path: clip for clip in clips}
    copies = [(by_path[path], by_path[mark["copy_of"]]) for path, mark in marks.items() if mark["copy_of"]]
    assert len(copies) == 4 and all(copy.sha256 == source.sha256 for copy, source in copies)


def test_demo_ends_with_a_table_and_one_answer(demo: Demo, adapted: AdaptedModel, frame: Path) -> None:
    lines = demo.stdout.splitlines()
    report = json.loads((demo.output / "eval" / "report.json").read_text())
    (macro_f1,) = [line.split() for line in lines if line.startswith("macro_f1")]
    baselines = report["baselines"]
    columns = [*report["results"].values(), *(baseline["frame"] for baseline in baselines.values())]
    assert macro_f1[1:] == [f"{figures['macro_f1']:.3f}" for figures in columns]
    (p_unsafe,) = adapted.p_unsafe([Image.open(frame).convert("RGB")])
    assert lines[-1] == ("UNSAFE" if p_unsafe >= 0.5 else "SAFE")


def test_infer_says_one_word_a_frame_and_nothing_else(demo: Demo, frame: Path) -> None:
    other = min(demo.data.glob("frames/test/safe/*/0000.jpg"))
    expected = [answer_of(demo, path) for path in (frame, other)]
    done = run_python(demo, "recipes/infer.py", "--adapter", demo.output, "--image", frame, other)
    assert done.stdout == "".join(f"{answer}\n" for answer in expected)
    assert done.stderr == ""


def test_stream_is_answered_frame_by_frame_and_goes_on_after_a_bad_one(demo: Demo, frame: Path) -> None:
    """Each answer is read before the next path is sent: a frame grabber waits for it."""
    other = min(demo.data.glob("frames/test/safe/*/0000.jpg"))
    process = subprocess.Popen(
        [sys.executable, "recipes/infer.py", "--adapter", str(demo.output), "--stream"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "HF_HOME": str(demo.hf_home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    found = []
    for path in (frame, other):
        process.stdin.write(f"{path}\nabsent.jpg\n\n")
        process.stdin.flush()
        found.append(process.stdout.readline())
    rest, said = process.communicate()
    assert found == [f"{answer_of(demo, path)}\n" for path in (frame, other)]
    assert (rest, process.returncode) == ("", 2)
    assert said.splitlines() == ["error: absent.jpg: no such image"] * 2


def answer_of(demo: Demo, path: Path) -> str:
    """Return what the evaluation answered of a frame."""
    lines = (demo.output / "eval" / "predictions.jsonl").read_text().splitlines()
    frames = map(json.loads, lines)
    (answer,) = [f["answer"] for f in frames if (f["clip"], f["sample"]) == (path.parent.name, int(path.stem))]
    return str(answer)


def test_json_says_what_the_evaluation_says(demo: Demo, frame: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["--json", "--prior", "0.1", "--image", str(frame), str(frame)]
    assert infer.main(["--adapter", str(demo.output), *asked]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    first, second = map(json.loads, out.splitlines())
    assert list(first) == ["image", "label", "p_unsafe", "threshold", "latency_ms"]
    lines = (demo.output / "eval" / "predictions.jsonl").read_text().splitlines()
    plain = next(f for f in map(json.loads, lines) if f["clip"] == frame.parent.name and f["sample"] == 0)["p_unsafe"]
    assert first["p_unsafe"] == second["p_unsafe"] == pytest.approx(plain / 9 / (plain / 9 + 1 - plain), abs=1e-4)
    assert (first["image"], first["threshold"]) == (str(frame), 0.5)
    assert first["label"] == ("UNSAFE" if first["p_unsafe"] >= 0.5 else "SAFE")
    assert first["latency_ms"] > 0


def test_doctor_finds_nothing_in_the_demo_s_way(demo: Demo) -> None:
    done = run_python(demo, "recipes/doctor.py", "--config", "recipes/configs/demo_cpu.yaml", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["checks"]}
    assert {check: finding["state"] for check, finding in findings.items()} == {
        "system": "ok",
        "packages": "ok",
        "GPU": "skipped",
        "4-bit product": "ok",
        "cores": "ok",
        "base model": "ok",
        "data set": "ok",
        "plan": "skipped",
        "memory": "skipped",
        "disk": "ok",
        "folders": "ok",
    }
    assert read_record(demo.output).dataset_hash[:12] in findings["data set"]["text"]
    assert "4 groups of identical clips, 2 test clips with a twin" in findings["data set"]["text"]
    assert done.stderr == "recipes/configs/demo_cpu.yaml: nothing stands in the way\n"


def validation_folder(demo: Demo) -> Path:
    return demo.output / "eval" / f"local--safe-unsafe-demo-{read_record(demo.output).dataset_hash[:8]}-validation"


def evaluation_of_validation(demo: Demo, *flags: str) -> list[str]:
    return ["--adapter", str(demo.output), "--split", "validation", *flags]


def evaluate_in_another_process(demo: Demo, *flags: str) -> None:
    done = run_python(demo, "recipes/eval_qwen2vl.py", *evaluation_of_validation(demo, *flags))
    assert done.returncode == 0, done.stderr


def p_unsafe_in(folder: Path) -> list[float]:
    return [json.loads(line)["p_unsafe"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_another_split_gets_a_report_of_its_own(demo: Demo, adapted: AdaptedModel) -> None:
    before = (demo.output / "eval" / "report.json").read_bytes()
    evaluate_in_another_process(demo)
    assert (demo.output / "eval" / "report.json").read_bytes() == before
    report = json.loads((validation_folder(demo) / "report.json").read_text())
    predictions = (validation_folder(demo) / "predictions.jsonl").read_bytes()
    plots = {path: path.read_bytes() for path in (validation_folder(demo) / "plots").iterdir()}
    evaluate_in_another_process(demo, "--batch-size", "4")
    again = json.loads((validation_folder(demo) / "report.json").read_text())
    differing = {name for name in report if report[name] != again[name]}
    assert differing == {"latency_ms", "config"}, "evaluated twice, all figures are the same"
    assert (validation_folder(demo) / "predictions.jsonl").read_bytes() == predictions
    assert {path: path.read_bytes() for path in plots} == plots
    assert report["config"]["split"] == "validation"
    assert report["clean_subset"] is None
    rows = open_dataset("local/safe-unsafe-demo").rows("validation")
    images = [read_image(row["image"]["bytes"]) for row in rows]
    with adapted.model.disable_adapter():
        expected = compute_figures(adapted.p_unsafe(images), class_ids(rows["response"]), threshold=0.5)
    base = report["baselines"]["base_model"]
    assert base["frame"]["brier"] == pytest.approx(expected["brier"], abs=1e-4)
    assert base["frame"]["brier"] != pytest.approx(report["results"]["frame"]["brier"], abs=1e-4)
    assert base["clip"]["n"] == report["results"]["clip"]["n"]
    # What picked the best checkpoint is what this gives: the same labels, and P(UNSAFE) but for rounding.
    training = json.loads((demo.output / "training.json").read_text())
    logged = next(
        entry for entry in training["log_history"] if entry["step"] == training["best_step"] and "eval_f1" in entry
    )
    frame = report["at_plain_threshold"]["frame"]
    for name in ("accuracy", "precision", "recall", "f1", "macro_f1", "mcc"):
        assert frame[name] == logged[f"eval_{name}"], name
    assert frame["brier"] == pytest.approx(logged["eval_brier"], abs=1e-4)
    assert frame["auroc"] == pytest.approx(logged["eval_auroc"], abs=1e-3)


def test_stated_prior_has_a_report_of_its_own(demo: Demo) -> None:
    """It follows on the test before, which evaluated the same frames without a prior."""
    flags = ("--prior", "0.1", "--without-frames", "--skip-base-model")
    assert eval_qwen2vl.main(evaluation_of_validation(demo, *flags)) == 0
    plain, folder = validation_folder(demo), validation_folder(demo) / "prior-0.1"
    corrected = [p / 9 / (p / 9 + 1 - p) for p in p_unsafe_in(plain)]
    assert p_unsafe_in(folder) == pytest.approx(corrected, abs=1e-5)
    report = json.loads((folder / "report.json").read_text())
    stated = {"training": 0.5, "stated": 0.1, "base_model": 0.5, "linear_probe": 0.5}
    assert (report["threshold"]["value"], report["threshold"]["prior"]) == (0.5, stated)
    assert report["baselines"]["always_unsafe"]["frame"]["accuracy"] == pytest.approx(0.1)
    assert report["baselines"]["base_model"] is None
    assert "<img" not in (folder / "report.html").read_text()


def test_blank_frames_bring_the_figures_down_to_chance(demo: Demo) -> None:
    flags = ("--blank-frames", "--skip-base-model", "--batch-size", "1")  # a last batch of fewer rounds otherwise
    assert eval_qwen2vl.main(evaluation_of_validation(demo, *flags)) == 0
    folder = validation_folder(demo) / "blank-frames"
    frame = json.loads((folder / "report.json").read_text())["results"]["frame"]
    assert (frame["auroc"], frame["balanced_accuracy"]) == (0.5, 0.5)
    assert max(p_unsafe_in(folder)) - min(p_unsafe_in(folder)) < 1e-4
    assert "This is a check on blank frames" in (folder / "report.html").read_text()


def test_evaluation_that_fails_leaves_the_old_report_whole(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is being made or written: nothing takes its place before all of it is there."""
    folder = demo.output / "eval"
    before = {path: path.read_bytes() for path in folder.glob("**/*") if path.is_file()}
    report = json.loads((folder / "report.json").read_text())
    split = open_split(find_adapter(demo.output), open_dataset("local/safe-unsafe-demo"), "test")
    other = np.linspace(0, 1, len(split.rows))
    scored = Scored.of(split.rows, other, {}, threshold=report["threshold"]["value"])

    def write() -> None:
        write_report(folder, report, split, scored)

    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise KeyboardInterrupt

    for place in ("recipes.report.writing.report_page", "os.fsync"):
        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(place, fail)
            write()
        assert {path: path.read_bytes() for path in folder.glob("**/*") if path.is_file()} == before


def test_card_s_own_lines_load_the_adapter_and_answer_as_infer_does(
    demo: Demo, adapted: AdaptedModel, frame: Path
) -> None:
    """In plain transformers and peft, in a process that imports nothing of this project."""
    card = (demo.output / "README.md").read_text()
    assert is_own_card(card)
    results = ModelCard(card).data.eval_results
    report = json.loads((demo.output / "eval" / "report.json").read_text())
    assert results is not None
    assert results[0].metric_value == report["results"]["frame"]["accuracy"]
    loading, asking = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(loading.splitlines()) == 6
    program = loading + asking.replace("frame.jpg", str(frame)) + "print(p_unsafe)"
    done = run_python(demo, "-c", program)
    assert done.returncode == 0, done.stderr
    answer, p_unsafe = done.stdout.split()
    (expected,) = adapted.p_unsafe([Image.open(frame).convert("RGB")])
    assert answer == label_of(expected, adapted.record.threshold)
    assert float(p_unsafe) == pytest.approx(expected, abs=1e-3)


def log_odds(p_unsafe: list[float]) -> list[float]:
    return [math.log(p / (1 - p)) for p in (min(max(p, 1e-7), 1 - 1e-7) for p in p_unsafe)]


def test_answer_depends_on_the_picture_and_on_the_adapter(demo: Demo, adapted: AdaptedModel, frame: Path) -> None:
    """In log-odds, a unit of which is far above rounding: near certainty P itself hardly moves, whatever is shown."""
    image, other = (
        Image.open(path).convert("RGB") for path in (frame, min(demo.data.glob("frames/test/safe/*/0000.jpg")))
    )
    seen, safe = log_odds(adapted.p_unsafe([image, other]))
    assert seen - safe > 1
    with adapted.model.disable_adapter():
        (bare,) = log_odds(adapted.p_unsafe([image]))
    assert abs(seen - bare) > 1
    weights = [weight for name, weight in adapted.model.named_parameters() if "lora_B" in name]
    assert all(weight.abs().max() > 0 for weight in weights)


def test_record_names_no_folder_of_the_project_absolutely(demo: Demo) -> None:
    for file in [demo.data / CLIPS_FILE, demo.data / "train.jsonl", demo.data / "audit.json"]:
        assert str(demo.data) not in file.read_text(), file.name
    assert str(PROJECT_ROOT) not in (demo.output / "safety.json").read_text()


def test_every_step_can_be_run_again_and_keeps_its_work(demo: Demo) -> None:
    frames = {path: path.stat().st_mtime_ns for path in demo.data.glob("frames/*/*/*/*.jpg")}
    hashes = {path: sha256_of_file(demo.data / path) for path in ("train.jsonl", "test.jsonl", CLIPS_FILE)}
    assert run_python(demo, "data_prep/make_demo_clips.py", "--out", demo.data, *CLIP_FLAGS).returncode == 0
    assert run_python(demo, "data_prep/extract_frames.py", "--data", demo.data).returncode == 0
    assert run_python(demo, "data_prep/build_jsonl.py", "--data", demo.data).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in demo.data.glob("frames/*/*/*/*.jpg")} == frames
    assert {path: sha256_of_file(demo.data / path) for path in hashes} == hashes


def test_answering_benchmark_times_both_ways(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_infer_cpu, "FRAMES", 5)
    monkeypatch.setattr(bench_infer_cpu, "COMMANDS", 1)
    assert bench_infer_cpu.main(["--adapter", str(demo.output), "--data", str(demo.data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures["frames"] == 5 and figures["other_answers"] == 0
    assert all(0 < figures[way]["p50_ms"] <= figures[way]["p95_ms"] for way in ("ours", "generate"))
    assert lines[1].split()[:3] == ["ours", f"{figures['ours']['first_ms']:.1f}", f"{figures['ours']['p50_ms']:.1f}"]
