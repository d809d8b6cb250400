"""All of doctor.py's checks together; test_demo runs the script where all is well."""

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml

from recipes import doctor
from recipes.machine import examination
from recipes.machine.examination import Examination
from recipes.machine.finding import FAILED, OK, SKIPPED, Finding


def examine(settings: dict[str, Any]) -> list[Finding]:
    return list(Examination(settings, {}).findings())


def test_all_is_looked_at_in_order_and_nothing_left_behind(settings: dict[str, Any], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    findings = examine(settings)
    assert [(finding.check, finding.state) for finding in findings] == [
        ("system", OK),
        ("packages", OK),
        ("GPU", SKIPPED),
        ("4-bit product", OK),
        ("cores", OK),
        ("base model", OK),
        ("data set", OK),
        ("plan", SKIPPED),
        ("memory", SKIPPED),
        ("disk", OK),
        ("folders", OK),
    ]
    assert "no audit is known of it" in findings[6].text
    assert sorted(tmp_path.rglob("*")) == before


def test_one_failure_hides_no_other(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    broken = {**settings, "use_cpu": False, "model_name_or_path": "plant/absent", "dataset": "local/absent"}
    states = {finding.check: finding.state for finding in examine(broken)}
    assert [check for check, state in states.items() if state == FAILED] == ["GPU", "base model", "data set"]
    assert states["memory"] == SKIPPED and states["folders"] == OK


def test_library_that_breaks_hides_no_other_check(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("a kernel\nis missing")

    monkeypatch.setattr(examination, "check_four_bits", fail)
    findings = {finding.check: finding for finding in examine(settings)}
    assert findings["4-bit product"].text == "RuntimeError: a kernel is missing"
    assert (findings["4-bit product"].state, findings["folders"].state) == (FAILED, OK)


def test_truncated_base_is_told(settings: dict[str, Any], tmp_path: Path, small_base: Path) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    findings = {finding.check: finding for finding in examine({**settings, "model_name_or_path": str(file.parent)})}
    assert findings["base model"].state == FAILED
    assert "weight file model.safetensors is truncated or damaged" in findings["base model"].text


def test_yaml_of_a_few_lines_has_the_libraries_defaults_and_flags_override_it(
    settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    few = ("model_name_or_path", "output_dir", "vision_cache", "max_pixels")
    config.write_text(yaml.safe_dump({"dataset": "local/absent", **{name: settings[name] for name in few}}))
    status = doctor.main(
        ["--config", str(config), "--json", "--use_cpu", "--bf16=false", "--dataset", str(settings["dataset"])]
    )
    states = {check["check"]: check["state"] for check in json.loads(capfd.readouterr().out)["checks"]}
    assert {check for check, state in states.items() if state == "FAILED"} <= {"packages"}
    assert states["disk"] == states["data set"] == "ok"
    assert status == (states["packages"] == "FAILED")


def test_status_says_whether_a_check_failed(
    settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**settings, "dataset": "local/absent"}))
    assert doctor.main(["--config", str(config)]) == 1
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == [
        *("system", "packages", "GPU", "4-bit", "cores", "base", "data", "plan", "memory", "disk", "folders")
    ]
    assert err.endswith("run.yaml: 1 of the checks failed\n")
