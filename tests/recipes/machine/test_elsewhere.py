"""doctor.py's plans for machines that aren't here."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.recipe_arguments import fixed_arguments
from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from recipes import doctor
from recipes.machine.cards import CARDS, Card
from recipes.machine.elsewhere import add_machine_options, machine_of
from recipes.machine.known_bases import KNOWN_BASES
from recipes.machine.plan import PLANNED, Machine
from tests.recipes.machine.test_memory import CONFIG, CONFIG_2B

PLANNED_YAML = ["--config", "recipes/configs/qwen2vl_7b.yaml"]


def described(*flags: str) -> Machine | None:
    parser = argparse.ArgumentParser()
    add_machine_options(parser)
    return machine_of(parser.parse_args(flags))


@pytest.mark.parametrize(
    ("flags", "card", "host", "disk"),
    [
        (["--card", "RTX A1000"], CARDS["RTX A1000"], 16, float("inf")),
        (["--card-gib", "6"], Card(6, 26.9e12, 192e9, 12e9), 16, float("inf")),
        (["--card", "RTX A1000 Laptop 4 GB", "--host-gib", "8"], Card(4, 18.7e12, 176e9, 12e9), 8, float("inf")),
        (
            ["--card-gib", "4", "--tflops", "18.7", "--memory-gbs", "176", "--bus-gbs", "6", "--disk-gib", "20"],
            Card(4, 18.7e12, 176e9, 6e9),
            16,
            20,
        ),
        (["--card", "RTX A1000", "--bus-gbs", "24"], Card(8, 26.9e12, 192e9, 24e9), 16, float("inf")),
    ],
)
def test_machine_is_what_the_flags_say(flags: list[str], card: Card, host: float, disk: float) -> None:
    assert described(*flags) == Machine(card, (card.gib - 0.4) * GIB, 0.9 * host * GIB, disk * GIB)


def test_without_flags_it_is_this_machine() -> None:
    assert described() is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--card", "RTX 9090"], "--card 'RTX 9090' is not one of RTX A1000, RTX A1000 Laptop 4"),
        (["--host-gib", "16"], "name a card: --card or --card-gib"),
        (["--frames", "100"], "name a card: --card or --card-gib"),
        (["--card-gib", "0"], "--card-gib 0 must be above 0"),
        (["--card-gib", "nan"], "--card-gib nan must be above 0"),
        (["--card-gib", "8", "--bus-gbs", "-1"], "--bus-gbs -1 must be above 0"),
        (["--card-gib", "8", "--frames", "0"], "--frames 0 must be above 0"),
    ],
)
def test_machine_that_is_none_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        described(*flags)
    assert str(error.value).startswith(said)


def test_known_bases_are_the_published_ones(true_model_folder: Path) -> None:
    true = json.loads((true_model_folder / "config.json").read_text())
    known = KNOWN_BASES["Qwen/Qwen2-VL-7B-Instruct"]
    assert known == CONFIG and KNOWN_BASES["Qwen/Qwen2-VL-2B-Instruct"] == CONFIG_2B
    assert {name: true[name] for name in known if name != "vision_config"} == {
        name: value for name, value in known.items() if name != "vision_config"
    }
    assert {name: true["vision_config"][name] for name in known["vision_config"]} == known["vision_config"]


def test_plan_is_one_object_of_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([*PLANNED_YAML, "--card-gib", "4", "--host-gib", "16", "--frames", "1000", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(found) == {
        *("fits", "card_gib", "host_gib", "disk_gib", "seconds_a_frame", "hours", "frames", "plan"),
    }
    assert found["fits"] is True and found["frames"] == 1000 and set(found["plan"]) == set(PLANNED)
    assert 2.5 < found["card_gib"] < 3.4 and found["disk_gib"] == pytest.approx(1000 * 480 * 3584 * 2 / GIB)
    assert found["hours"] > 2 * 1000 * found["seconds_a_frame"] / 3600


def test_plan_goes_by_flags_and_a_config_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tower = {**CONFIG_2B["vision_config"], "hidden_size": 1536}
    config = {**CONFIG_2B, "model_type": "qwen2_vl", "vision_config": tower}
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = ["--card", "RTX A1000", "--json", "--model_name_or_path", str(tmp_path)]
    seconds = []
    for further in ([], ["--max_pixels", "200704"], ["--per_device_train_batch_size", "1"]):
        assert doctor.main([*PLANNED_YAML, *flags, *further]) == 0
        seconds.append(json.loads(capsys.readouterr().out)["seconds_a_frame"])
    assert seconds[1] < 0.7 * seconds[0] and seconds[2] > 1.05 * seconds[0]


def test_plan_is_told_in_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([*PLANNED_YAML, "--card", "RTX A1000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 frames on the card at once, 4 times an update; no layers recomputed"
    assert lines[1] == (
        "in host memory embedding, head, optimizer, 27 layers; vision features computed once and kept on disk"
    )
    assert lines[2].startswith("predicted 7.1 GiB of the card, 5.7 of the host, ") and len(lines) == 3


def test_yaml_that_leaves_nothing_to_the_machine_is_predicted_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    by_hand = [*fixed_arguments("6gb", {}), "--json"]
    assert doctor.main([*by_hand, "--card-gib", "6"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["per_device_train_batch_size"], plan["recomputed_layers"], plan["layers_on_host"]) == (1, "all", "0")
    assert doctor.main([*by_hand, "--card-gib", "4"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is False and found["short"].startswith("the card has 3.6 GiB free, and about ")


def test_unknown_base_is_told_of() -> None:
    with pytest.raises(
        InputError, match=r"base model 'plant/other' isn't on this machine; name a folder with its conf"
    ):
        doctor.main([*PLANNED_YAML, "--card", "RTX A1000", "--model_name_or_path", "plant/other"])
