"""Evaluate an adapter on its test split and write outputs/<run>/eval/report.json.

    python recipes/eval_qwen2vl.py --adapter outputs/qwen2vl_7b_8gb
    python recipes/eval_qwen2vl.py --compare outputs/demo/eval outputs/demo2/eval

The second form sets two finished evaluations of the same frames side by side, with paired intervals.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from data_prep.errors import InputError, run_script
from data_prep.files import from_root, sha256_of_file, to_root, write_atomic, write_json
from data_prep.frames_source import FramesSource, open_dataset
from recipes.library_messages import silence_known_messages
from recipes.safety_record import SafetyRecord, find_base_of, read_record

if TYPE_CHECKING:
    import numpy as np

    from recipes.adapted_model import AdaptedModel

LATENCY_FRAMES = 8


def main(argv: list[str]) -> int:
    """Score the split, write the report whole or not at all, and print its headline."""
    silence_known_messages()
    args = parse_arguments(argv)
    if args.compare:
        return compare(*map(from_root, args.compare))
    folder = from_root(args.adapter)
    record = read_record(folder)
    dataset = args.dataset or record.dataset
    revision = args.dataset_revision or (record.dataset_revision if args.dataset is None else None)
    base = find_base_of(folder, record)
    source = open_dataset(dataset, revision=revision)
    rows = rows_to_evaluate(source, args.split, record)

    from recipes.adapted_model import load_adapted
    from recipes.report import SCHEMA_VERSION, as_table, folder_of_report, predictions, split_figures
    from recipes.scoring import label_of

    started = now()
    adapted = load_adapted(folder, record, base)
    p_unsafe, p_unsafe_of_base = score_split(adapted, rows, args)
    columns = {name: rows[name] for name in ("clip", "sample", "source_class", "response")}
    report = {
        "schema_version": SCHEMA_VERSION,
        "config": describe(folder, record, source, args.split, adapted, started),
        **split_figures(columns, p_unsafe, p_unsafe_of_base, threshold=record.threshold),
        "threshold": {"value": record.threshold, "chosen": record.threshold_from},
        "latency_ms": measure_latency(adapted, rows),
    }
    answers = [label_of(p, record.threshold) for p in p_unsafe]
    report_folder = folder_of_report(folder, record, source, args.split)
    write_report(report_folder, report, predictions(columns, p_unsafe, answers, args.split))
    print(as_table(report))
    print(f"report: {to_root(report_folder / 'report.json')}", file=sys.stderr)
    return 0


def compare(first_folder: Path, second_folder: Path) -> int:
    """Print two finished evaluations side by side."""
    from recipes.comparison import compare_evaluations, comparison_as_table, read_evaluation

    first, second = read_evaluation(first_folder), read_evaluation(second_folder)
    print(comparison_as_table(first, second, compare_evaluations(first, second)))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--adapter", help="folder of a finished run, for example outputs/demo")
    what.add_argument("--compare", nargs=2, metavar="EVAL", help="two folders of finished evaluations; writes nothing")
    parser.add_argument("--dataset", help="a pushed id or a data folder (default: what the adapter was trained on)")
    parser.add_argument("--dataset-revision", help="version of a pushed data set (default: the adapter's, or newest)")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"], help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=4, help="frames scored at once (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes decoding frames (default: %(default)s)")
    parser.add_argument(
        "--skip-base-model", action="store_true", help="leave out the base without its adapter, which is a second pass"
    )
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size} must be 1 or more")
    return args


def rows_to_evaluate(source: FramesSource, split: str, record: SafetyRecord) -> Any:
    """Return the split's rows. Raises InputError where it is empty or asks another prompt than the adapter's."""
    rows = source.rows(split)
    if len(rows) == 0:
        raise InputError(f"data set {source.id!r}: split {split!r} holds no frame")
    other = set(rows["prompt"]) - {record.prompt}
    if other:
        raise InputError(f"data set {source.id!r} asks {min(other)!r}, the adapter was trained on {record.prompt!r}")
    return rows


def score_split(
    adapted: "AdaptedModel", rows: Any, args: argparse.Namespace
) -> tuple["np.ndarray", "np.ndarray | None"]:
    """Return P(UNSAFE), of shape (rows,), by the adapter and by its base alone; the latter is None where skipped."""
    from recipes.scoring import score_rows

    def score() -> "np.ndarray":
        return score_rows(
            adapted.model,
            adapted.collator,
            rows,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            show_progress=sys.stderr.isatty(),
        )

    p_unsafe = score()
    if args.skip_base_model:
        return p_unsafe, None
    with adapted.model.disable_adapter():
        return p_unsafe, score()


def describe(
    folder: Path, record: SafetyRecord, source: FramesSource, split: str, adapted: "AdaptedModel", started: str
) -> dict[str, Any]:
    """Say what was evaluated on what: everything that the figures depend on."""
    from recipes.report import versions

    return {
        "adapter": to_root(folder),
        "adapter_sha256": sha256_of_file(folder / "adapter_model.safetensors"),
        "model": record.base_model,
        "revision": record.base_revision,
        "dataset": source.id,
        "dataset_revision": source.revision,
        "dataset_hash": source.content_hash,
        "split": split,
        "same_data_as_training": source.content_hash == record.dataset_hash,
        "trained_with": asdict(record),
        "seed": record.seed,
        "versions": versions(),
        "device": device_name(adapted),
        "started": started,
        "finished": now(),
    }


def device_name(adapted: "AdaptedModel") -> str:
    """Name the card that the model runs on, or the CPU."""
    import torch

    device = adapted.model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def measure_latency(adapted: "AdaptedModel", rows: Any) -> dict[str, float | int]:
    """Time single frames from encoded bytes to P(UNSAFE), in milliseconds, after one that isn't counted."""
    from data_prep.images import read_image

    times: list[float] = []
    encoded = [row["image"]["bytes"] for row in rows.select(range(min(LATENCY_FRAMES + 1, len(rows))))]
    for content in encoded:
        begin = time.perf_counter()
        adapted.p_unsafe([read_image(content)])
        times.append(1000 * (time.perf_counter() - begin))
    counted = times[1:] or times
    return {"frames": len(counted), "p50": median(counted), "max": max(counted)}


def write_report(folder: Path, report: dict[str, Any], frames: list[dict[str, Any]]) -> None:
    """Write predictions.jsonl and report.json, each whole or not at all; the report comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(frame, allow_nan=False) + "\n" for frame in frames)
    write_atomic(folder / "predictions.jsonl", lines.encode())
    write_json(folder / "report.json", report)


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    run_script(main)
