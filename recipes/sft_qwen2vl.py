"""Fine-tune Qwen2-VL to answer SAFE or UNSAFE about one frame, by QLoRA, from one YAML.

    accelerate launch recipes/sft_qwen2vl.py [--config recipes/configs/qwen2vl_7b.yaml] [--learning_rate 1e-4 …]

Every line of the YAML may be overridden by a flag of the same name. Without --config it trains the 7B.
What lies where, and how many frames are on the card at once, is planned for this machine and told.
"""

import os
import sys
from contextlib import nullcontext

from data_prep.console import run_script, silence_known_messages
from data_prep.files import from_root
from data_prep.hub.source import check_dataset, open_dataset
from recipes.model.base import find_base
from recipes.model.base_files import check_precision
from recipes.ranks.joining import run_at, said_by_first
from recipes.ranks.place import by_itself, here, is_first, take_place
from recipes.training.checks import check_room, check_settings, check_shares
from recipes.training.command_line import read_settings, show_help
from recipes.training.finishing import complete
from recipes.training.planning import planned
from recipes.training.run import check_same_inputs, check_same_run, prepare_run
from recipes.training.run_folder import RunFolder
from recipes.training.stopping import follow_launcher


def main(argv: list[str]) -> int:
    """Check the inputs, train, and leave the adapter, its processor and safety.json in the run's folder."""
    silence_known_messages()
    place = take_place()
    # Precision lives in the YAML alone: an accelerate config would override it through this variable.
    if os.environ.pop("ACCELERATE_MIXED_PRECISION", None) is not None or place.ranks > 1:
        follow_launcher()
    if {"-h", "--help"} & set(argv):
        return show_help(__doc__)
    return run_at(place, lambda: run_recipe(argv))


def run_recipe(argv: list[str]) -> int:
    """Train by the command line, as one process or as one of several that have joined; return the exit status."""
    settings = read_settings(argv).for_processes(here().ranks)
    check_settings(settings.values)
    check_shares(settings.values)
    folder = RunFolder(from_root(settings.values["output_dir"]))
    if is_first():
        folder.check_free(resume=settings.values["resume"])
    check_dataset(settings.values["dataset"], revision=settings.values["dataset_revision"])
    base = find_base(settings.values["model_name_or_path"], settings.values["model_revision"])
    check_precision(base.name, base.read_config(), load_in_4bit=settings.values["load_in_4bit"])

    source = open_dataset(settings.values["dataset"], revision=settings.values["dataset_revision"])
    check_same_inputs(settings.values, base, source)
    settings = planned(settings, base, source, folder)
    run = prepare_run(settings, base, source)
    check_same_run(run)
    if settings.values["frames_an_update"] is None:  # a plan fits
        check_room(settings.values, base.read_config(), run.training.device)
    print(run.source.describe(), file=sys.stderr)
    with folder.locked() if is_first() else nullcontext():
        if is_first():
            folder.record(run.record())
        if said_by_first(folder.is_finished):
            with by_itself() if is_first() else nullcontext():
                return complete(run) if is_first() else 0

        from recipes.training.session import train

        return train(run)


if __name__ == "__main__":
    run_script(main)
