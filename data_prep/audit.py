"""Say what the extracted clips hold, before anyone trusts a figure made of them; writes nothing.

python data_prep/audit.py [--data data] [--json]
"""

import argparse
import json

from data_prep.clips.audit import audit_clips
from data_prep.clips.audit_in_words import audit_in_words
from data_prep.clips.jsonl import CLIPS_FILE, read_finished_clips
from data_prep.clips.lookalikes import near_identical
from data_prep.console import run_script
from data_prep.files import from_root


def main(argv: list[str]) -> int:
    """Print the audit of the clips in clips.jsonl, in words or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder with frames/ and clips.jsonl (default: data)")
    parser.add_argument("--json", action="store_true", help="print the whole audit as one JSON object")
    args = parser.parse_args(argv)
    data = from_root(args.data)
    clips = read_finished_clips(data / CLIPS_FILE)
    audit = audit_clips(clips, near_identical(data, clips), lambda clip: data)
    print(json.dumps(audit, indent=2) if args.json else audit_in_words(audit))
    return 0


if __name__ == "__main__":
    run_script(main)
