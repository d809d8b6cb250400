"""Evaluate an adapter on its test split: report.html to read, report.json to compute with, in outputs/<run>/eval/.

    python recipes/eval_qwen2vl.py --adapter outputs/qwen2vl_7b
    python recipes/eval_qwen2vl.py --compare outputs/demo/eval outputs/demo2/eval

The second form sets two finished evaluations of the same frames side by side, with paired intervals.
"""

import argparse
import sys
import time

from data_prep.console import run_script, silence_known_messages, stay_offline
from data_prep.errors import check_at_least
from data_prep.files import check_writable, from_root, to_root
from data_prep.hub.source import open_dataset
from data_prep.labels import UNSAFE
from recipes.adapter.folder import Adapter, find_adapter
from recipes.answering.card_options import add_card_options, on_host_of
from recipes.metrics.prior_shift import check_prior
from recipes.ranks.joining import run_at
from recipes.ranks.place import is_first, take_place
from recipes.report.evaluated_split import EvaluatedSplit, open_split
from recipes.training.run_folder import RunFolder

REPORT_BYTES = 2_000_000  # at least; most are pictures and plots


def main(argv: list[str]) -> int:
    """Evaluate an adapter, or compare two finished evaluations."""
    silence_known_messages()
    args = parse_arguments(argv)
    if args.compare:
        from recipes.report.side_by_side import compared

        print(compared(*map(from_root, args.compare)))
        return 0
    return run_at(take_place(), lambda: evaluate(args))


def evaluate(args: argparse.Namespace) -> int:
    """Score the split, a part in each of several processes; the first writes the report and prints its headline."""
    adapter = find_adapter(from_root(args.adapter))
    stay_offline()
    split = split_of(adapter, args)
    if is_first():
        check_writable(split.report_folder, REPORT_BYTES)

    from recipes.answering.adapted_model import load_for_batches
    from recipes.report.contents import describe, make_report, now
    from recipes.report.measuring import device_name, measure_latency, measure_split
    from recipes.report.table import as_table
    from recipes.report.writing import write_report

    started, began = now(), time.monotonic()
    adapted = load_for_batches(adapter, frames=args.batch_size, on_host=on_host_of(args))
    alone = not (args.skip_base_model or adapter.record.merged)
    scored = measure_split(split, adapted, batch_size=adapted.frames, num_workers=args.num_workers, base_model=alone)
    if not is_first():
        return 0
    report = {
        **make_report(split, scored),
        "latency_ms": measure_latency(adapted, split.rows),
        "config": describe(split, device=device_name(adapted), started=started),
    }
    write_report(split.report_folder, report, split, scored, without_frames=args.without_frames)
    if split.report_folder == adapter.folder / "eval":
        RunFolder(adapter.folder).write_card(adapter.record, report)
    print(as_table(report))
    took = f"{len(split.rows)} frames evaluated; {time.monotonic() - began:.1f} s"
    print(*split.caveats, f"report: {to_root(split.report_folder / 'report.html')}", took, sep="\n", file=sys.stderr)
    return 0


def split_of(adapter: Adapter, args: argparse.Namespace) -> EvaluatedSplit:
    """Return the split that is asked for; by default of what the adapter was trained on."""
    dataset = args.dataset or adapter.record.dataset
    revision = args.dataset_revision or (adapter.record.dataset_revision if args.dataset is None else None)
    source = open_dataset(dataset, revision=revision)
    return open_split(adapter, source, args.split, prior=args.prior, blank_frames=args.blank_frames)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--adapter", help="folder of a finished run, for example outputs/demo")
    what.add_argument("--compare", nargs=2, metavar="EVAL", help="two folders of finished evaluations; writes nothing")
    parser.add_argument("--dataset", help="a pushed id or a data folder (default: what the adapter was trained on)")
    parser.add_argument("--dataset-revision", help="version of a pushed data set (default: the adapter's, or newest)")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"], help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=4, help="frames at once, if they fit (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes decoding frames (default: %(default)s)")
    parser.add_argument(
        "--skip-base-model", action="store_true", help="leave out the base without its adapter, which is a second pass"
    )
    parser.add_argument(
        "--prior",
        type=float,
        metavar="SHARE",
        help=f"make the report for a plant with this share of {UNSAFE} frames: "
        f"P({UNSAFE}) corrected, frames weighed for it",
    )
    parser.add_argument(
        "--blank-frames",
        action="store_true",
        help="a check: grey pictures in place of the frames; the figures must fall to chance",
    )
    parser.add_argument("--without-frames", action="store_true", help="show no frame in report.html")
    add_card_options(parser)
    args = parser.parse_args(argv)
    check_at_least("--batch-size", args.batch_size, 1)
    if args.prior is not None:
        check_prior(args.prior)
    return args


if __name__ == "__main__":
    run_script(main)
