"""Look for clips that hang, crash or deceive `Video`: damaged headers, lost and flipped packets, and sound clips.

    python benchmarks/fuzz_clips.py --out outputs/fuzz_clips

Clips with damaged headers must end in samples or in a reason. Clips with damaged packets must give the sound clip's
samples or say something. Sound clips, encoded with every option that encoders have, must give a full decode's samples
and say nothing. Each is read by a process of its own that has 20 seconds and 3 GiB. Clips follow from `--seed` and
their number: `--only packets:17` makes that very clip again, keeps it under --out and tells what becomes of it. Exit
status 1 where anything fails.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.damage.clip_threads import in_threads
from benchmarks.damage.clip_trials import Outcome, Trials, may_pass
from benchmarks.damage.damaged_clips import by_codec_and_kind
from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import from_root, write_json

PHASES = {"headers": 2500, "packets": 500, "sound": 500}


def main(argv: list[str]) -> int:
    """Try every clip, tell each failure as it comes, write fuzz_clips.json, print tables, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    for phase, count in PHASES.items():
        parser.add_argument(f"--{phase}", type=int, default=count, help="clips (default: %(default)s)")
    parser.add_argument("--only", metavar="PHASE:NUMBER", help="one clip, as headers:17; it is kept")
    parser.add_argument("--out", default="outputs/fuzz_clips", help="folder to write (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out)
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(phase, number) for phase in PHASES for number in range(vars(args)[phase])]
    outcomes = try_all([parsed(args.only)] if args.only else wanted, args.seed, keep_in=out if args.only else None)
    results = {
        "schema_version": 1,
        "seed": args.seed,
        "clips": dict(Counter(each.phase for each in outcomes)),
        "endings": endings(outcomes),
        "failures": [vars(each) for each in outcomes if each.failure],
        "packets": noticed(outcomes),
    }
    write_json(out / "fuzz_clips.json", results)
    print(as_table(results))
    print(json.dumps(results))
    return 1 if results["failures"] else 0


def parsed(only: str) -> tuple[str, int]:
    """Return phase and number. Raises InputError for anything else."""
    phase, _, number = only.partition(":")
    if phase not in PHASES or not number.isdecimal():
        raise InputError(f"--only {only}: give {', '.join(PHASES)}, a colon and a number, as in headers:17")
    return phase, int(number)


def try_all(wanted: list[tuple[str, int]], seed: int, *, keep_in: Path | None = None) -> list[Outcome]:
    """Return every clip's outcome, in order; as many are tried at a time as there are cores."""

    def open_trials(folder: Path) -> Trials:
        return Trials(seed, keep_in or folder, keep=keep_in is not None)

    def attempt(trials: Trials, clip: tuple[str, int]) -> Outcome:
        outcome = trials.attempt(*clip)
        if outcome.failure or keep_in:
            print(told(outcome, seed), file=sys.stderr)
        return outcome

    return in_threads(wanted, open_trials, attempt)


def told(outcome: Outcome, seed: int) -> str:
    """Return a clip's outcome for a person who wants to make it again."""
    again = f"--seed {seed} --only {outcome.phase}:{outcome.number}"
    what = f"{again}: {outcome.failure or 'as it should be'} [{outcome.recipe}; {outcome.kind}; said: {outcome.said}]"
    return f"{what}\n{outcome.trace}" if outcome.trace else what


def endings(outcomes: list[Outcome]) -> dict[str, dict[str, int]]:
    """Count by phase how clips ended."""
    counts = {each.phase: Counter[str]() for each in outcomes}
    for each in outcomes:
        counts[each.phase][each.ending] += 1
    return {phase: dict(count.most_common()) for phase, count in counts.items()}


def noticed(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Count clips with damaged packets by codec and kind: how many were altered, and how many of those told."""
    groups = by_codec_and_kind(each for each in outcomes if each.phase == "packets")
    return [
        {
            "codec": codec,
            "kind": kind,
            "clips": len(group),
            "altered": sum(each.altered for each in group),
            "altered_and_said": sum(each.altered and each.said is not None for each in group),
        }
        for (codec, kind), group in sorted(groups.items())
    ]


def as_table(results: dict[str, Any]) -> str:
    """Lay out as Markdown what became of damaged packets, then each phase's clips and failures."""
    lines = ["| codec | damage | clips | samples altered | of those, said |", "|---|---|---:|---:|---:|"]
    for row in results["packets"]:
        may = " (may pass)" if may_pass(row["codec"], row["kind"]) else ""
        cells = row["codec"], row["kind"] + may, row["clips"], row["altered"], row["altered_and_said"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| phase | clips | ended in | failures | which |", "|---|---:|---|---:|---|"]
    for phase, count in results["clips"].items():
        ended = ", ".join(f"{ending} {number}" for ending, number in results["endings"][phase].items())
        failures = Counter(each["failure"] for each in results["failures"] if each["phase"] == phase)
        which = "; ".join(f"{number} of {failure!r}" for failure, number in failures.most_common(8))
        lines.append(f"| {phase} | {count} | {ended} | {failures.total()} | {which} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
