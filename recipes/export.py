"""Write an adapter and its base as one plain model folder, which transformers, vLLM and llama.cpp's converter load.

    python recipes/export.py --adapter outputs/demo --out exports/demo

By default the base's weights are those that training saw, to which the adapter's figures and threshold belong: where it
trained in 4 bits, their values written out. With --original-weights they are the base's own; the threshold is chosen
anew for them, by the run's own rule on its validation clips (one that is a fixed number stays, and nothing is scored),
and the folder carries no figures until it is evaluated.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from data_prep.console import run_script, silence_known_messages, stay_offline
from data_prep.errors import InputError, check_at_least
from data_prep.files import from_root, to_root
from data_prep.hub.source import open_dataset
from data_prep.labels import VALIDATION
from recipes.adapter.folder import Adapter, check_free, find_adapter
from recipes.adapter.safety_record import RUN_FILE
from recipes.layers.sizes import quantization
from recipes.metrics.class_ids import class_ids
from recipes.metrics.threshold import FIXED, choose_threshold, fixed_threshold
from recipes.ranks.place import check_one_process
from recipes.report.evaluated_split import rows_to_evaluate
from recipes.training.run_folder import RunFolder

if TYPE_CHECKING:
    from recipes.adapter.exporting import Decide


def main(argv: list[str]) -> int:
    """Export an adapter, and print the folder."""
    check_one_process("export.py")
    args = parse_arguments(argv)
    silence_known_messages()
    adapter, out = find_adapter(from_root(args.adapter)), from_root(args.out)
    adapter.record.check_adapter(adapter.folder)
    check_free(out)
    stay_offline()
    decide = None
    if args.original_weights:
        if not adapter.record.load_in_4bit:
            raise InputError("--original-weights: the adapter was trained on its base's own weights; leave it out")
        if quantization(adapter.base.read_config()) is not None:
            raise InputError(f"--original-weights: base {adapter.base.name!r} comes in 4 bits alone; leave it out")
        decide = chosen_anew(adapter, args.batch_size)

    from recipes.adapter.exporting import Export
    from recipes.model.device import choose_device, use_all_cores

    use_all_cores()
    record = Export(adapter, out, choose_device(), decide).write()
    print(f"threshold {record.threshold:.4g}: {record.threshold_from}", file=sys.stderr)
    print(to_root(out))
    return 0


def chosen_anew(adapter: Adapter, batch_size: int) -> "Decide":
    """Return what chooses an export's threshold by the run's rule, on validation clips that are looked for now.

    Raises InputError where the run's settings or its data can't be found.
    """
    if not (adapter.folder / RUN_FILE).is_file():
        raise InputError(f"adapter {adapter.folder}: {RUN_FILE}, which says how to choose the threshold, is missing")
    rule = RunFolder(adapter.folder).begun()["threshold"]
    fixed = fixed_threshold(rule)
    if fixed is not None:
        return lambda export: (fixed, FIXED)
    record = adapter.record
    source = open_dataset(record.dataset, revision=record.dataset_revision)
    if source.content_hash != record.dataset_hash:
        raise InputError(f"data set {source.id!r} isn't what the adapter was trained on; restore it or train again")
    rows = rows_to_evaluate(source, VALIDATION, record)

    def decide(export: Adapter) -> tuple[float, str]:
        from recipes.answering.adapted_model import load_for_batches
        from recipes.answering.scoring import score_rows

        adapted = load_for_batches(export, frames=batch_size)
        scores = score_rows(
            adapted.model, adapted.collator, rows, batch_size=adapted.frames, show_progress=sys.stderr.isatty()
        )
        return choose_threshold(rule, scores, class_ids(rows["response"][:]))

    return decide


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder of a finished run, for example outputs/demo")
    parser.add_argument("--out", required=True, help="new folder, for example exports/demo; 16.6 GB for the 7B")
    parser.add_argument(
        "--original-weights",
        action="store_true",
        help="add the adapter to the base's own 16 bits, and choose the threshold anew on the validation clips",
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, help="frames at once in that, if they fit (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    check_at_least("--batch-size", args.batch_size, 1)
    return args


if __name__ == "__main__":
    run_script(main)
