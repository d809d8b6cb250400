"""Evaluate an adapter on its test split: report.html to read, report.json to compute with, in outputs/<run>/eval/.

    python recipes/eval_qwen2vl.py --adapter outputs/qwen2vl_7b_8gb
    python recipes/eval_qwen2vl.py --compare outputs/demo/eval outputs/demo2/eval

The second form sets two finished evaluations of the same frames side by side, with paired intervals.
"""

import argparse
import hashlib
import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from data_prep.console import run_script, silence_known_messages, stay_offline
from data_prep.errors import InputError
from data_prep.files import as_json, check_writable, from_root, sha256_of_file, to_root, write_atomic, write_together
from data_prep.hub.source import FramesSource, open_dataset
from recipes.adapter.folder import find_adapter
from recipes.adapter.model_card import is_own_card, model_card
from recipes.adapter.safety_record import SafetyRecord
from recipes.metrics.prior_shift import BASE_PRIOR, at_prior, check_prior

if TYPE_CHECKING:
    import numpy as np

    from recipes.answering.adapted_model import AdaptedModel

LATENCY_FRAMES = 8
REPORT_BYTES = 2_000_000  # at least; most are pictures and plots


def main(argv: list[str]) -> int:
    """Score the split, write the report whole or not at all, and print its headline."""
    silence_known_messages()
    args = parse_arguments(argv)
    if args.compare:
        return compare(*map(from_root, args.compare))
    adapter = find_adapter(from_root(args.adapter))
    stay_offline()
    folder, record = adapter.folder, adapter.record
    dataset = args.dataset or record.dataset
    revision = args.dataset_revision or (record.dataset_revision if args.dataset is None else None)
    source = open_dataset(dataset, revision=revision)
    rows = rows_to_evaluate(source, args.split, record)
    check_labels(rows, args.split, args.prior)
    if args.blank_frames:
        rows = rows.map(blank_frame, load_from_cache_file=False, keep_in_memory=True)

    from recipes.answering.adapted_model import load_for_batches
    from recipes.report.folder import folder_of_report
    from recipes.report.table import as_table

    report_folder = folder_of_report(folder, record, source, args.split, prior=args.prior, blank=args.blank_frames)
    check_writable(report_folder, REPORT_BYTES)
    started, began = now(), time.monotonic()
    adapted = load_for_batches(adapter)
    p_unsafe, others = score_split(folder, adapted, rows, args)
    report = {
        **make_report(source, record, rows, p_unsafe, others, args),
        "latency_ms": measure_latency(adapted, rows),
        "config": describe(folder, record, source, args.split, adapted, started, blank_frames=args.blank_frames),
    }
    write_report(report_folder, report, source, rows, p_unsafe, others, without_frames=args.without_frames)
    if report_folder == folder / "eval":
        renew_card(folder, record, report)
    print(as_table(report))
    if args.prior is not None:
        print(f"figures are for a share of {args.prior:g} UNSAFE frames; counts are the split's own", file=sys.stderr)
    if args.blank_frames:
        print("blank frames: an AUROC and a balanced accuracy of 0.5 are what should be seen", file=sys.stderr)
    print(f"report: {to_root(report_folder / 'report.html')}", file=sys.stderr)
    print(f"{len(rows)} frames evaluated; {time.monotonic() - began:.1f} s", file=sys.stderr)
    return 0


def blank_frame(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose frame is a grey picture of the same size."""
    from PIL import Image

    from data_prep.media.images import read_image

    content = io.BytesIO()
    Image.new("RGB", read_image(row["image"]["bytes"]).size, "grey").save(content, format="PNG")
    return {"image": {"bytes": content.getvalue(), "path": None}}


def compare(first_folder: Path, second_folder: Path) -> int:
    """Print two finished evaluations side by side."""
    from recipes.report.side_by_side import compare_evaluations, comparison_as_table, read_evaluation

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
    parser.add_argument(
        "--prior",
        type=float,
        metavar="SHARE",
        help="make the report for a plant with this share of UNSAFE frames: P(UNSAFE) corrected, frames weighed for it",
    )
    parser.add_argument(
        "--blank-frames",
        action="store_true",
        help="a check: grey pictures in place of the frames; the figures must fall to chance",
    )
    parser.add_argument("--without-frames", action="store_true", help="show no frame in report.html")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size} must be 1 or more")
    if args.prior is not None:
        check_prior(args.prior)
    return args


def rows_to_evaluate(source: FramesSource, split: str, record: SafetyRecord) -> Any:
    """Return the split's rows. Raises InputError where it is empty or asks another prompt than the adapter's."""
    rows = source.rows(split)
    if len(rows) == 0:
        raise InputError(f"data set {source.id!r}: split {split!r} holds no frame")
    other = set(rows["prompt"][:]) - {record.prompt}
    if other:
        raise InputError(f"data set {source.id!r} asks {min(other)!r}, the adapter was trained on {record.prompt!r}")
    return rows


def check_labels(rows: Any, split: str, prior: float | None) -> None:
    """Raise InputError where a prior is stated and the rows have one label alone: they can't be weighed for it."""
    labels = set(rows["response"][:])
    if prior is not None and len(labels) == 1:
        raise InputError(
            f"--prior {prior:g}: split {split!r} holds {labels.pop()} frames alone and can't be weighed for it; "
            "leave --prior out"
        )


def score_split(
    folder: Path, adapted: "AdaptedModel", rows: Any, args: argparse.Namespace
) -> tuple["np.ndarray", dict[str, "np.ndarray | None"]]:
    """Return P(UNSAFE), of shape (rows,), by the adapter, and by its base alone and the linear probe, by their names.

    The base is None where it is skipped, the probe where training fitted none. For a stated prior each is corrected.
    """
    from recipes.answering.scoring import score_in_ways
    from recipes.metrics.linear_probe import read_probe

    scored = score_in_ways(
        adapted.model,
        adapted.collator,
        rows,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        show_progress=sys.stderr.isatty(),
        without_adapter=not args.skip_base_model,
        probe=read_probe(folder),
    )
    found = {"adapter": scored.p_unsafe, "base_model": scored.without_adapter, "linear_probe": scored.by_probe}
    made_under = {"adapter": adapted.record.training_prior, **priors_of_others(adapted.record)}
    if args.prior is not None:
        found = {
            name: None if scores is None else at_prior(scores, training_prior=made_under[name], prior=args.prior)
            for name, scores in found.items()
        }
    p_unsafe = found.pop("adapter")
    assert p_unsafe is not None
    return p_unsafe, found


def priors_of_others(record: SafetyRecord) -> dict[str, float]:
    """Return the share of UNSAFE frames under which the P(UNSAFE) of base and linear probe are taken to be.

    The probe is fitted to the adapter's rows, weighed as they are for the adapter.
    """
    return {"base_model": BASE_PRIOR, "linear_probe": record.training_prior}


def make_report(
    source: FramesSource,
    record: SafetyRecord,
    rows: Any,
    p_unsafe: "np.ndarray",
    others: Mapping[str, "np.ndarray | None"],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return all of the report that follows from the scores and the data."""
    from recipes.report.contents import SCHEMA_VERSION, about_data, clips_not_clean, split_figures

    columns = {name: rows[name][:] for name in ("clip", "source_class", "response")}
    not_clean, threshold = clips_not_clean(source, args.split), record.threshold_at(args.prior)
    return {
        "schema_version": SCHEMA_VERSION,
        **split_figures(columns, p_unsafe, others, threshold=threshold, not_clean=not_clean, prior=args.prior),
        "threshold": {
            "value": threshold,
            "in_training": record.threshold,
            "chosen": record.threshold_from,
            "prior": {"training": record.training_prior, "stated": args.prior, **priors_of_others(record)},
        },
        **about_data(source, args.split),
    }


def describe(
    folder: Path,
    record: SafetyRecord,
    source: FramesSource,
    split: str,
    adapted: "AdaptedModel",
    started: str,
    *,
    blank_frames: bool,
) -> dict[str, Any]:
    """Say what was evaluated on what: everything that the figures depend on."""
    from recipes.report.contents import versions

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
        "blank_frames": blank_frames,
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
    from data_prep.media.images import read_image

    times: list[float] = []
    encoded = [row["image"]["bytes"] for row in rows.select(range(min(LATENCY_FRAMES + 1, len(rows))))]
    for content in encoded:
        begin = time.perf_counter()
        adapted.p_unsafe([read_image(content)])
        times.append(1000 * (time.perf_counter() - begin))
    counted = times[1:] or times
    return {"frames": len(counted), "p50": median(counted), "max": max(counted)}


def write_report(
    folder: Path,
    report: dict[str, Any],
    source: FramesSource,
    rows: Any,
    p_unsafe: "np.ndarray",
    others: Mapping[str, "np.ndarray | None"],
    *,
    without_frames: bool,
) -> None:
    """Write predictions.jsonl, the plots, report.html and report.json: all of them, or none."""
    from recipes.metrics.figures import class_ids
    from recipes.metrics.threshold import label_of
    from recipes.report.folder import predictions
    from recipes.report.mistakes import worst_mistakes
    from recipes.report.page import report_page
    from recipes.report.plots import draw_plots, standalone

    columns = {name: rows[name][:] for name in ("clip", "sample", "source_class", "response")}
    answers = [label_of(p, report["threshold"]["value"]) for p in p_unsafe]
    frames = predictions(columns, p_unsafe, answers, report["config"]["split"])
    lines = "".join(json.dumps(frame, allow_nan=False) + "\n" for frame in frames).encode()
    asked = {name: scores for name, scores in others.items() if scores is not None}
    plots = draw_plots(report, class_ids(columns["response"]), p_unsafe, asked)
    mistakes = with_pictures(worst_mistakes(frames), rows, without_frames=without_frames)
    page = report_page(report, plots, mistakes, fps=(source.audit or {}).get("fps"))
    report = {**report, "predictions_sha256": hashlib.sha256(lines).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "predictions.jsonl": lines,
        **{f"plots/{name}.svg": standalone(svg) for name, svg in plots.items()},
        "report.html": page.encode(),
        "report.json": as_json(report),
    }
    write_together(folder, contents)


def with_pictures(mistakes: Sequence[dict[str, Any]], rows: Any, *, without_frames: bool) -> list[dict[str, Any]]:
    """Return the mistakes with their frames as pictures, or with none."""
    from data_prep.media.images import read_image
    from recipes.report.look import thumbnail

    def picture(row: int) -> str | None:
        return None if without_frames else thumbnail(read_image(rows[row]["image"]["bytes"]))

    return [{**mistake, "picture": picture(mistake["row"])} for mistake in mistakes]


def renew_card(folder: Path, record: SafetyRecord, report: dict[str, Any]) -> None:
    """Put the report's figures into the adapter's card, unless someone has changed that by hand."""
    card = folder / "README.md"
    if card.is_file() and not is_own_card(card.read_text(encoding="utf-8")):
        print("README.md was changed by hand and stays as it is; remove it to have it written anew", file=sys.stderr)
        return
    write_atomic(card, model_card(record, to_root(folder), report).encode())


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    run_script(main)
