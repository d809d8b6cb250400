"""The service's benchmark: on the kept adapter, which is quick, and its mixture of requests on a stub."""

import json
import time
from collections import Counter

import pytest

from benchmarks import bench_serve
from benchmarks.measuring import soak
from benchmarks.measuring.load import ask_for, sham_service
from benchmarks.measuring.soak import KINDS, STATUS, Soak, mixed_kinds
from recipes.serving.gate import Rules
from tests.conftest import Kept
from tests.recipes.serving.stub_service import LIMITS, frame, served

TOKEN = "c0ffee"
REDS = [0, 51, 204, 255]
EXPECTED = [{"label": "UNSAFE" if red > 127 else "SAFE", "p_unsafe": red / 255} for red in REDS]
FRAMES = [frame(red, size=(64, 64)) for red in REDS]


def test_benchmark_measures_the_service_beside_the_model_s_own_calls(
    kept: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--adapter", str(kept.run), "--data", str(kept.data), "--seconds", "1", "--clients", "2"]
    assert bench_serve.main([*flags, "--requests", "0", "--batch-size", "2"]) == 0
    *table, last = capfd.readouterr().out.splitlines()
    (row,) = json.loads(last)["rates"]
    assert row["other_labels"] == 0 and row["largest_difference"] < 1e-4
    assert row["answered"] > 4 and 1 <= row["frames_a_batch"] <= 2 and 0 < row["model_busy"] <= 1.01
    assert row["share"] == pytest.approx(row["frames_per_second"] / row["own_calls"])
    assert table[1].split()[0] == "2"


def test_mixture_has_every_kind_in_its_share() -> None:
    counts = Counter(mixed_kinds(10_000))
    assert sum(counts.values()) == 10_000
    assert counts == {kind: 10 * share for kind, share in KINDS.items()}
    assert set(STATUS) | {"hangs up", "half a body", "killed"} == set(KINDS)


def test_each_kind_of_request_ends_as_it_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Rules(TOKEN.encode(), 1_000_000, 1), LIMITS) as service:
        sending = Soak(service.port, TOKEN, FRAMES, EXPECTED)
        monkeypatch.setitem(STATUS, "slow", 408)
        sending.run(list(KINDS), 4, lambda number: None)
    assert sending.wrong == []
    gone = {"hangs up", "half a body", "killed"}
    assert sending.outcomes == {f"{kind}: {STATUS.get(kind, 'gone')}": 1 for kind in KINDS}
    assert gone.isdisjoint(STATUS)


def test_answer_that_is_another_frame_s_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Rules(TOKEN.encode(), 1_000_000, 1), LIMITS) as service:
        sending = Soak(service.port, TOKEN, FRAMES, EXPECTED[::-1])
        sending.run(["good", "several"], 1, lambda number: None)
        monkeypatch.setattr(soak, "STATUS", {**STATUS, "words": 200})
        sending.run(["words"], 1, lambda number: None)
    assert [each.partition(":")[0] for each in sending.wrong] == ["good", "several", "words"]


def test_clients_read_what_they_are_told() -> None:
    with served() as service:
        load, rate = ask_for(0.3, 3, service.port, FRAMES, EXPECTED)
        assert rate > 0 and len(load.seconds) >= 3
        assert (load.other_labels, max(load.apart)) == (0, 0.0)
        load, _ = ask_for(0.3, 1, service.port, FRAMES, EXPECTED[::-1])
        assert load.other_labels == len(load.seconds)


def test_sham_service_answers_after_its_delay() -> None:
    with sham_service(lambda: 0.1) as port:
        began = time.perf_counter()
        load, rate = ask_for(0.25, 2, port, FRAMES, None)
        assert time.perf_counter() - began >= 0.3
    assert len(load.seconds) == 6 and rate < 20
