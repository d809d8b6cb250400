"""Measure how much of the model's own rate comes through serve.py, and what a long mixture of requests does to it.

    python benchmarks/bench_serve.py [--adapter outputs/demo] [--data data/demo] [--seconds 60]

It wants what `make demo` leaves. In turns of ten seconds clients ask the service, and another process calls the model
itself with as many frames at once while as many clients ask a service that does nothing: the load is in both. Then
requests of every kind, good and bad, are sent. With --like, adapter and frames are made up at the size of that base,
for a GPU of 40 GB; the rate beside is then from bytes to labels.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from benchmarks.measuring.arms import check_gpu, prepare
from benchmarks.measuring.demo_frames import frames_of_test, said_by_infer
from benchmarks.measuring.load import ask_for, sham_service
from benchmarks.measuring.machine import machine
from benchmarks.measuring.service_process import OwnCalls, ServiceProcess, own_calls, service
from benchmarks.measuring.soak import Soak, mixed_kinds
from data_prep.console import run_script
from data_prep.files import from_root

FRAMES = 64
TOKEN = "c0ffee-c0ffee-c0ffee"
MANY = 16  # clients of the mixture
ROUND_SECONDS, WARM_UP_SECONDS, A_CALL = 10, 3, 1e-3
END_AFTER = 0.8  # of the mixture's requests the first service is told to end


def main(argv: list[str]) -> int:
    """Measure, print a table, one line of JSON last."""
    args = parse_arguments(argv)
    with contextlib.redirect_stdout(sys.stderr):
        if args.like:
            make_up(from_root(args.out), args.like)
            args.adapter, args.data = f"{args.out}/adapter", f"{args.out}/data"
        frames = frames_of_test(from_root(args.data), FRAMES)
        expected = said_by_infer(args.adapter, frames)
        results: dict[str, Any] = {"machine": machine(), "batch_size": args.batch_size, "rates": [], "soak": None}
        if args.seconds:
            results["rates"] = rates(args, frames, expected)
        if args.requests:
            results["soak"] = soak(args, frames, expected)
    print(as_table(results))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="outputs/demo", help="folder of a finished run (default: %(default)s)")
    parser.add_argument("--data", default="data/demo", help="folder with test.jsonl (default: %(default)s)")
    parser.add_argument("--like", help="a base to make up an adapter and frames for, such as Qwen/Qwen2-VL-7B-Instruct")
    parser.add_argument("--out", default="outputs/bench_serve", help="where --like writes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of each number of clients; 0: none")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="default: 1 4 16")
    parser.add_argument("--requests", type=int, default=10_000, help="of the mixture; 0: none (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="serve.py's (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile the model's layers; needs a GPU")
    return parser.parse_args(argv)


def make_up(out: Path, like: str) -> None:
    """Write a random base, a random adapter and drawn frames, unless they are there."""
    from benchmarks.made.drawn_frames import MAX_PIXELS
    from benchmarks.made.random_adapter import write_random_adapter

    check_gpu()
    prepare(out, like)
    if not (out / "adapter").exists():
        write_random_adapter(out / "adapter", out / "base", max_pixels=MAX_PIXELS[480])


def rates(args: argparse.Namespace, frames: Sequence[Path], expected: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measure each number of clients in rounds, each half the model's own calls and half the service."""
    how = ["--adapter", args.adapter, "--batch-size", str(args.batch_size), *(["--compile"] if args.compile else [])]
    encoded, found = [frame.read_bytes() for frame in frames], []
    rounds = max(round(args.seconds / ROUND_SECONDS), 1)
    with service(how) as serving, own_calls([*how, "--data", args.data]) as own:
        for clients in args.clients:
            asked = {"frames": min(clients, args.batch_size), "from_bytes": bool(args.like)}
            own.begin(**asked, seconds=A_CALL)  # compiles, captures and allocates
            own.measured()
            delay = calls_beside_load(own, asked, WARM_UP_SECONDS, clients, encoded, 1.0)["call_seconds"]
            ask_for(WARM_UP_SECONDS, clients, serving.port, encoded, None)
            each = []
            for _ in range(rounds):
                calls = calls_beside_load(own, asked, args.seconds / rounds, clients, encoded, delay)
                delay = calls["call_seconds"]
                served = serve_clients(serving, args.seconds / rounds, clients, encoded, expected)
                own_ms = 1000 * calls["call_seconds"]
                each.append({**served, "own_calls": calls["frames_per_second"], "own_call_ms": own_ms})
            found.append({"clients": clients, "at_once": asked["frames"], **summary(each)})
            print(json.dumps(found[-1]))
    return found


def calls_beside_load(
    own: OwnCalls, asked: dict[str, Any], seconds: float, clients: int, encoded: Sequence[bytes], delay: float
) -> dict[str, Any]:
    """Have the model called while clients ask a service that answers nothing, as slowly as the model would."""
    with sham_service(lambda: delay) as port:
        loading = threading.Thread(target=ask_for, args=(seconds, clients, port, encoded, None))
        own.begin(**asked, seconds=seconds)
        loading.start()
        found = own.measured()
        loading.join()
    return found


def serve_clients(
    serving: ServiceProcess, seconds: float, clients: int, encoded: Sequence[bytes], expected: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Have clients ask the service for so long."""
    before, cpu = serving.counted(), serving.cpu_seconds()
    load, rate = ask_for(seconds, clients, serving.port, encoded, expected)
    after = serving.counted()
    batches, answered, busy = (
        after[name] - before[name]
        for name in ("safe_unsafe_batch_frames_count", "safe_unsafe_batch_frames_sum", "safe_unsafe_batch_seconds_sum")
    )
    return {
        "frames_per_second": rate,
        "frames_a_batch": answered / batches,
        "model_busy": busy / (len(load.seconds) / rate),
        "cpu_ms_a_frame": 1000 * (serving.cpu_seconds() - cpu) / answered,
        "ms": [round(1000 * seconds, 1) for seconds in load.seconds],
        "other_labels": load.other_labels,
        "largest_difference": max(load.apart),
    }


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what all rounds with one number of clients come to; `share` is of the model's own rate."""
    ms = [value for each in rounds for value in each["ms"]]
    rates, own = ([each[name] for each in rounds] for name in ("frames_per_second", "own_calls"))
    shares = sorted(rate / calls for rate, calls in zip(rates, own, strict=True))
    return {
        "frames_per_second": mean(rates),
        "own_calls": mean(own),
        "own_call_ms": median(each["own_call_ms"] for each in rounds),
        "share": sum(rates) / sum(own),
        "shares": [shares[0], median(shares), shares[-1]],
        "p50_ms": median(ms),
        "p95_ms": quantiles(ms, n=20)[-1],
        "frames_a_batch": mean(each["frames_a_batch"] for each in rounds),
        "model_busy": mean(each["model_busy"] for each in rounds),
        "cpu_ms_a_frame": mean(each["cpu_ms_a_frame"] for each in rounds),
        "answered": len(ms),
        "other_labels": sum(each["other_labels"] for each in rounds),
        "largest_difference": max(each["largest_difference"] for each in rounds),
    }


def soak(args: argparse.Namespace, frames: Sequence[Path], expected: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Send the mixture to a service that is told to end in between, and the rest to a second one."""
    kinds = mixed_kinds(args.requests)
    cut = int(END_AFTER * len(kinds))
    first = soaked(args, frames, expected, kinds, cut)
    second = soaked(args, frames, expected, kinds[cut:], None)
    print(json.dumps([first, second]))
    return {"requests": len(kinds), "services": [first, second]}


def soaked(
    args: argparse.Namespace,
    frames: Sequence[Path],
    expected: Sequence[dict[str, Any]],
    kinds: Sequence[str],
    end_after: int | None,
) -> dict[str, Any]:
    """Send requests to a service of its own, which is told to end after so many of them, else once all are answered."""
    with tempfile.NamedTemporaryFile("w", suffix=".token") as token:
        token.write(TOKEN)
        token.flush()
        flags = ["--adapter", args.adapter, "--batch-size", str(args.batch_size), "--token-file", token.name]
        with service([*flags, "--max-upload-seconds", "5"]) as serving:
            sending = Soak(serving.port, TOKEN, [frame.read_bytes() for frame in frames], expected)
            levels: list[float] = []

            def every(number: int) -> None:
                if number % max(len(kinds) // 40, 1) == 0:
                    levels.append(serving.resident_mb())
                if number == end_after:
                    sending.ending.set()
                    serving.process.terminate()

            sending.run(kinds, MANY, every)
            status = serving.process.wait(600) if end_after else serving.end()
            lines = serving.said.read_text().splitlines()
    return {
        "sent": sum(sending.outcomes.values()),
        "outcomes": dict(sorted(sending.outcomes.items())),
        "wrong": sending.wrong,
        "status": status,
        "last_line": lines[-1],
        "other_lines": sorted({line for line in lines[1:-1] if not line.startswith("refused: ")}),
        "resident_mb": levels,
    }


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    lines = [f"{'clients':>7}{'frames/s':>10}{'own calls':>11}{'share':>8}{'p50 ms':>9}{'p95 ms':>9}{'a batch':>9}"]
    for row in results["rates"]:
        lines.append(
            f"{row['clients']:>7}{row['frames_per_second']:>10.2f}{row['own_calls']:>11.2f}{100 * row['share']:>7.1f}%"
            f"{row['p50_ms']:>9.0f}{row['p95_ms']:>9.0f}{row['frames_a_batch']:>9.1f}"
        )
        lines.append(
            f"        answered otherwise: {row['other_labels']}; P at most {row['largest_difference']:.1e} apart"
        )
    for each in (results["soak"] or {}).get("services", []):
        level = each["resident_mb"][len(each["resident_mb"]) // 4 :]
        lines.append(f"mixture of {each['sent']}: {len(each['wrong'])} wrong, exit status {each['status']}, RAM ")
        lines[-1] += f"{min(level):.0f} to {max(level):.0f} MB; {each['last_line']}"
    return "\n".join([*lines, json.dumps(results)])


if __name__ == "__main__":
    run_script(main)
