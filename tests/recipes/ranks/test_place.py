"""What a launcher says of the processes that it started, and what it must not have left out."""

import argparse
from typing import Any

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.ranks.place import Place, card_of, check_one_process, take_place

TWO_MACHINES = ["--num_machines", "2", "--num_processes", "2", "--machine_rank", "0"]
MEETING = ["--main_process_ip", "10.0.0.1", "--main_process_port", "29500"]


def started_alone(*flags: str) -> dict[str, str]:
    """Return the environment of the process that `accelerate launch` starts where it starts one."""
    args: argparse.Namespace = launch_command_parser().parse_args([*flags, "recipes/sft_qwen2vl.py"])
    args, _, _ = _validate_launch_command(args)
    assert not args.multi_gpu
    return prepare_simple_launcher_cmd_env(args)[1]


@pytest.mark.parametrize(
    "flags",
    [
        [*TWO_MACHINES, *MEETING],
        ["--config_file", str(PROJECT_ROOT / "accelerate_config.yaml"), *TWO_MACHINES, *MEETING],
        ["--num_processes", "2"],
    ],
)
def test_more_processes_asked_for_than_started_are_refused(flags: list[str]) -> None:
    """On a machine of one card, or none: each machine would train an adapter of its own."""
    environment = started_alone(*flags)
    with pytest.raises(
        InputError, match=r"asked for several processes and started one that is alone.* add --multi_gpu"
    ):
        take_place(environment)


@pytest.mark.parametrize("flags", [[], ["--config_file", str(PROJECT_ROOT / "accelerate_config.yaml")]])
def test_one_process_asked_for_is_alone(flags: list[str]) -> None:
    environment = started_alone(*flags)
    before = dict(environment)
    assert take_place(environment) == Place()
    assert environment == before


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SLURM_STEP_NUM_TASKS": "2"}, "srun started 2 processes that don't know of each other"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun started 4 processes"),
    ],
)
def test_processes_that_do_not_know_of_each_other_are_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        take_place(environment)


def test_place_is_taken_out_of_the_environment() -> None:
    """transformers would find it there, and wrap the model."""
    said = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1"}
    environment = {**said, "SLURM_STEP_NUM_TASKS": "2"}
    assert take_place(environment) == Place(rank=5, ranks=8, local_rank=1, local_ranks=4)
    assert environment == {"MASTER_ADDR": "10.0.0.1", "SLURM_STEP_NUM_TASKS": "2", "CUDA_VISIBLE_DEVICES": "1"}


def test_one_process_of_torchrun_keeps_its_cards() -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert take_place(environment) == Place()
    assert environment == {}


@pytest.mark.parametrize(("visible", "card"), [(None, "1"), ("4,6", "6"), ("GPU-a, GPU-b, GPU-c", "GPU-b"), ("", "")])
def test_process_sees_its_own_card_alone(visible: str | None, card: str) -> None:
    assert card_of(Place(rank=1, ranks=2, local_rank=1, local_ranks=2), visible) == card


def test_more_processes_than_cards_are_refused() -> None:
    with pytest.raises(
        InputError, match="2 processes were started on this machine, and CUDA_VISIBLE_DEVICES shows 1 c"
    ):
        card_of(Place(rank=1, ranks=2, local_rank=1, local_ranks=2), "0")


def test_script_of_one_process_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check_one_process("infer.py")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(
        InputError, match=r"infer\.py runs in one process, and 2 were started; run python recipes/infer"
    ):
        check_one_process("infer.py")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        check_one_process("infer.py")


def test_both_configurations_differ_in_their_processes_alone() -> None:
    one, several = (
        yaml.safe_load((PROJECT_ROOT / name).read_text())
        for name in ("accelerate_config.yaml", "accelerate_config_multi.yaml")
    )
    differing: dict[str, Any] = {name: several.get(name) for name in several if several.get(name) != one.get(name)}
    assert differing.pop("distributed_type") == "MULTI_GPU"
    assert set(differing) == {"num_processes", "gpu_ids", "same_network", "rdzv_backend", "main_training_function"}
    assert several["mixed_precision"] == "no"
