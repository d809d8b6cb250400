"""Check this machine before an evening is lost: packages, GPU, memory, disk, base model, data and plan, a line each.

    python recipes/doctor.py [--config recipes/configs/qwen2vl_7b.yaml] [--max_pixels 200704 …] [--json]
    python recipes/doctor.py --card "RTX A1000" --host-gib 16

A run's lines may be overridden as in training, by flags of their names. Nothing is downloaded or trained. The exit
status is 1 where a check fails. The second form plans for a machine that isn't here, by its base's config.json alone,
and checks nothing else; it ends with 1 where nothing fits.
"""

import argparse
import json
import sys
from dataclasses import asdict

from data_prep.console import results_alone_on_stdout, run_script, silence_known_messages
from data_prep.errors import one_line
from data_prep.files import to_root
from recipes.machine.elsewhere import add_machine_options, machine_of, plan_elsewhere, update_of
from recipes.machine.examination import Examination
from recipes.machine.finding import FAILED
from recipes.machine.plan import ASSUMED_FRAMES, Machine, NoPlanError, epochs_of
from recipes.machine.plan_in_words import as_figures, in_words
from recipes.training.checks import check_settings
from recipes.training.command_line import DEFAULT_CONFIG, Settings, read_settings


def main(argv: list[str]) -> int:
    """Print a line for each check as it is done, or a plan for another machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="YAML", help=f"the YAML to be trained (default: {DEFAULT_CONFIG})")
    parser.add_argument("--json", action="store_true", help="print one object: what was checked, the plan, its figures")
    add_machine_options(parser)
    args, overrides = parser.parse_known_args(argv)
    settings = read_settings(overrides if args.config is None else ["--config", args.config, *overrides])
    check_settings(settings.values)
    silence_known_messages()
    machine = machine_of(args)
    if machine is None:
        return show_findings(settings, as_json=args.json)
    return show_plan(settings, args, machine)


def show_plan(settings: Settings, args: argparse.Namespace, machine: Machine) -> int:
    """Print the plan for a machine that isn't here, or what is short on it; return the exit status."""
    frames = args.frames or ASSUMED_FRAMES
    epochs = epochs_of({**settings.values, "frames_an_update": update_of(settings.values)}, frames)
    try:
        plan = plan_elsewhere(settings.values, settings.pinned, machine, frames=frames)
    except NoPlanError as error:
        print(json.dumps({"fits": False, "short": one_line(error)}) if args.json else one_line(error))
        return 1
    if args.json:
        print(json.dumps({"fits": True, **as_figures(plan, frames=frames, epochs=epochs)}))
    else:
        print(*in_words(plan, frames=frames, epochs=epochs), sep="\n")
    return 0


def show_findings(settings: Settings, *, as_json: bool) -> int:
    """Print what is found of this machine, each thing as it is found, or all as an object; return the exit status."""
    examination = Examination(settings.values, settings.pinned)
    findings = []
    with results_alone_on_stdout() as results:
        for finding in examination.findings():
            findings.append(finding)
            if not as_json:
                print(f"{finding.check:<14} {finding.state:<8} {finding.text}", file=results, flush=True)
        if as_json:
            checks = [asdict(finding) for finding in findings]
            print(json.dumps({"checks": checks, **examination.figures()}), file=results)
    failed = [finding for finding in findings if finding.state == FAILED]
    verdict = f"{len(failed)} of the checks failed" if failed else "nothing stands in the way"
    print(f"{to_root(settings.config)}: {verdict}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
