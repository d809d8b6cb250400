"""Check this machine before an evening is lost: packages, GPU, memory, disk, base model and data, a line each.

    python recipes/doctor.py [--config recipes/configs/qwen2vl_7b_8gb.yaml] [--max_pixels 200704 …] [--json]

A run's lines may be overridden as in training, by flags of their names. Nothing is downloaded or trained. The exit
status is 1 where a check fails.
"""

import argparse
import json
import sys
from dataclasses import asdict

from data_prep.console import results_alone_on_stdout, run_script, silence_known_messages
from data_prep.files import to_root
from recipes.machine.examination import examine
from recipes.machine.finding import FAILED
from recipes.training.checks import check_settings
from recipes.training.command_line import DEFAULT_CONFIG, read_settings


def main(argv: list[str]) -> int:
    """Print a line for each check as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="YAML", help=f"the YAML to be trained (default: {DEFAULT_CONFIG})")
    parser.add_argument("--json", action="store_true", help="print an object a line: check, state, text")
    args, overrides = parser.parse_known_args(argv)
    settings = read_settings(overrides if args.config is None else ["--config", args.config, *overrides])
    check_settings(settings.values)
    silence_known_messages()
    failed = 0
    with results_alone_on_stdout() as results:
        for finding in examine(settings.values):
            failed += finding.state == FAILED
            line = f"{finding.check:<14} {finding.state:<8} {finding.text}"
            print(json.dumps(asdict(finding)) if args.json else line, file=results, flush=True)
    verdict = f"{failed} of the checks failed" if failed else "nothing stands in the way"
    print(f"{to_root(settings.config)}: {verdict}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
