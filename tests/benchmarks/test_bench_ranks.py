"""The benchmark of several processes: what needs no second GPU of it."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_ranks
from benchmarks.arms import ranks
from benchmarks.measuring import together
from data_prep.errors import InputError


def measured(processes: int, each: float, in_all: float, scoring: float) -> dict[str, Any]:
    summed = {"bytes": 2_000_000, "milliseconds": 1.5, "milliseconds_on_host": 2.5, "sent_bytes_a_process": 2_100_000.0}
    return {
        "processes": processes,
        "each": {"frames_per_second": each},
        "in_all": {"frames_per_second": in_all},
        "scoring": {"frames_per_second": scoring},
        "alone_at_once": [30.5, 29.9],
        "sum": summed,
        "sending_error": 0.0023,
    }


def test_table_compares_several_processes_with_one() -> None:
    graph = {"in_all_graph": {"frames_per_second": 25.5}}
    found = {"1": measured(1, 30.0, 30.0, 40.0), "4": {**measured(4, 29.1, 24.0, 152.0), **graph}}
    lines = bench_ranks.as_table({"processes": found}).splitlines()
    one, four = (" ".join(line.split()) for line in lines[1:3])
    assert one == "1 30.00 (100.0%) 30.00 (100.0%) - 40.00 (1.00 times) 2.0 MB in 1.5 ms"
    assert four == "4 29.10 (97.0%) 24.00 (80.0%) 25.50 (85.0%) 152.00 (3.80 times) 2.0 MB in 1.5 ms"
    assert lines[3] == "4 processes, each by itself at once: 30.50, 29.90"
    assert lines[4] == "4 processes: 2.1 MB sent by each over loopback, 2.5 ms; a sum in bf16 is 2.3e-03 off"
    assert json.loads(lines[-1]) == {"processes": found}


def test_processes_alone_are_compared_with_none() -> None:
    assert "%" not in bench_ranks.as_table({"processes": {"2": measured(2, 29.1, 24.0, 75.0)}}).splitlines()[1]


def test_two_small_cards_keep_most_of_their_speed_at_a_gigabit() -> None:
    assert "8 frames each take 6.6 s, 81 MB each way 0.69 s: 91% of their speed, 83% where" in bench_ranks.wire_line()


def test_arm_knows_each_size() -> None:
    assert set(ranks.SIZES) == set(together.ARGUMENTS)


def test_more_processes_than_cards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="--processes 2: torch sees 1 GPUs"):
        bench_ranks.main(["--out", str(tmp_path), "--processes", "1", "2"])


def test_bytes_that_this_machine_sends_itself_are_counted() -> None:
    before = together.loopback_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            sender.sendall(b"0" * 100_000)
            sender.shutdown(socket.SHUT_WR)
            while receiver.recv(65536):
                pass
    assert together.loopback_bytes() - before >= 100_000
