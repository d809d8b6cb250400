"""One way of making a report, or of fitting the linear probe, timed in a process of its own; for bench_report.py.

    python benchmarks/arms/report.py report --data outputs/bench_report/frames_10000 --out outputs/bench_report/report
    python benchmarks/arms/report.py probe --frames 20000 --hidden 3584 --out outputs/bench_report

Every version of the project is measured by the script of this name that it has itself. It prints one line of JSON:
seconds by step, and the most memory that the process held, before the work and in all, in GB.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64  # frames whose features training pools at once
GB = 1e9


def main(argv: list[str]) -> int:
    """Do the work and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["report", "probe"])
    parser.add_argument("--data", type=Path, help="folder that bench_report.py made; for report")
    parser.add_argument("--frames", type=int, help="for probe")
    parser.add_argument("--hidden", type=int, default=3584, help="for probe (default: %(default)s, the 7B's)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "report":
        taken = time_report(args.data, args.out)
    else:
        taken = time_probe(args.frames, args.hidden, args.out)
    print(json.dumps({**taken, "peak_gb": peak_gb()}))
    return 0


def peak_gb() -> float:
    """Return the most memory that this program held so far, in GB, files mapped into it included.

    Linux's VmHWM, because ru_maxrss begins with what the process that started this one held.
    """
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / GB


def time_report(data: Path, out: Path) -> dict[str, Any]:
    """Time make_report and write_report on scored frames."""
    import datasets

    from data_prep.hub.source import FramesSource
    from recipes.adapter.folder import Adapter
    from recipes.adapter.safety_record import SafetyRecord
    from recipes.report.contents import make_report
    from recipes.report.evaluated_split import EvaluatedSplit
    from recipes.report.scored import Scored
    from recipes.report.writing import write_report

    dataset = datasets.DatasetDict({"test": datasets.load_from_disk(str(data / "test"))})
    record = SafetyRecord(**json.loads((data / "safety.json").read_text()))
    source = FramesSource(dataset, "local/drawn", None, record.dataset_hash, audit(dataset["test"][0]["clip"]))
    scores = dict(np.load(data / "scores.npz"))
    p_unsafe = scores.pop("adapter")
    base: Any = None  # which nobody asks for
    split = EvaluatedSplit(Adapter(data, record, base), source, "test", source.rows("test"))
    about = {"latency_ms": {"frames": 1, "p50": 1.0, "max": 1.0}, "config": config(record)}
    seconds: dict[str, float] = {}
    before = peak_gb()

    def figures() -> Any:
        scored = Scored.of(split.rows, p_unsafe, scores, threshold=record.threshold)
        return scored, make_report(split, scored)

    scored, report = timed(seconds, "figures", figures)
    timed(seconds, "written", lambda: write_report(out, {**report, **about}, split, scored))
    return {"seconds": seconds, "imports_gb": before}


def audit(twin: str) -> dict[str, Any]:
    """Return what is known of the clips: one of them has a twin, so that there are figures without it."""
    nothing = ("identical_clips", "near_identical_clips", "left_out_of_train", "leaks_in_train", "damaged")
    found: dict[str, Any] = {name: [] for name in (*nothing, "single_frame_clips", "cameras_that_tell_the_label")}
    found |= {"classes": {}, "background_probe": None}
    return {**found, "test_clips_with_twins": [{"clip": twin}], "fps": 1}


def config(record: Any) -> dict[str, Any]:
    """Return what a report says of the run, which takes no time here."""
    from dataclasses import asdict

    names = ("adapter", "adapter_sha256", "model", "revision", "dataset", "device", "started", "finished")
    about = dict.fromkeys(names, "drawn")
    facts = {"split": "test", "same_data_as_training": True, "blank_frames": False, "seed": 0, "versions": {}}
    known = {"dataset_revision": None, "dataset_hash": record.dataset_hash, "trained_with": asdict(record)}
    return {**about, **facts, **known}


def time_probe(frames: int, hidden: int, out: Path) -> dict[str, Any]:
    """Time the keeping of pooled features, batch after batch, and the fit on them; a tenth more is validation."""
    from recipes.metrics.linear_probe import fit_probe

    weight = np.random.default_rng(1).normal(size=hidden) / hidden**0.5
    seconds: dict[str, float] = {}
    before = peak_gb()
    train = timed(seconds, "features", lambda: kept(frames, weight, 2, out))
    validation = kept(frames // 10, weight, 3, out)
    said = timed(seconds, "fit", lambda: fit_probe(train, validation, balance_labels=True)[1])
    return {"seconds": seconds, "imports_gb": before, "said": said}


def kept(frames: int, weight: np.ndarray, seed: int, folder: Path) -> tuple[Any, np.ndarray]:
    """Return drawn features, kept as what is pooled is kept, and their class ids."""
    from recipes.metrics.stored_features import store

    truth: list[np.ndarray] = []

    def drawn() -> Any:
        rng = np.random.default_rng(seed)
        for start in range(0, frames, BATCH):
            part = rng.standard_normal((min(BATCH, frames - start), len(weight)), dtype=np.float32)
            truth.append((part @ weight + 1 + rng.normal(size=len(part)) > 0).astype(int))
            yield part * 3 + 10

    features = store(drawn(), folder)
    return features, np.concatenate(truth)


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Return what `work` returns, and note what it took."""
    begun = time.perf_counter()
    done = work()
    seconds[name] = round(time.perf_counter() - begun, 2)
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
