"""Push the data set built from train.jsonl and test.jsonl to the local Hub cache, or with --remote to the Hub, private.

python data_prep/push_dataset.py --data data --repo-id local/safe-unsafe-frames

Several data folders, of several plants, become one data set: --data data/first_plant data/second_plant
"""

import argparse
import sys
import time

from data_prep.console import quiet_without_terminal, run_script
from data_prep.disk.byte_counts import size_in_words
from data_prep.errors import InputError
from data_prep.files import from_root
from data_prep.hub.card import dataset_card
from data_prep.hub.layout import check_repo_id
from data_prep.hub.old_versions import find_prunable, hashes_of_runs, prune
from data_prep.hub.pushing import push_local
from data_prep.hub.remote import check_remote_id, push_remote
from data_prep.hub.staging import building_folder
from data_prep.rows.content import content_hash, count_splits
from data_prep.rows.dataset import dataset_of
from data_prep.rows.joining import join_folders
from data_prep.rows.validation import BY_CLIP, WAYS, warn_of_missing_classes

DEFAULT_REPO_ID = "local/safe-unsafe-frames"
RUNS = "outputs"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", default=["data"], help="folders with train.jsonl and test.jsonl each (default: data)"
    )
    parser.add_argument("--repo-id", help=f"org/name to push as (default: {DEFAULT_REPO_ID}; none with --remote)")
    parser.add_argument("--remote", action="store_true", help="push to the Hub, private, instead of the local cache")
    parser.add_argument("--seed", type=int, default=0, help="draws the clips of the validation split (default: 0)")
    parser.add_argument(
        "--validation", choices=WAYS, default=BY_CLIP, help="hold out clips of each class, or whole cameras"
    )
    parser.add_argument("--test-camera", metavar="NAME", help="make this camera's clips the test split, all of them")
    parser.add_argument(
        "--prune", action="store_true", help=f"remove older versions that no run in {RUNS}/ was trained on"
    )
    arguments = parser.parse_args(argv)
    if arguments.prune and arguments.remote:
        raise InputError("--prune is for the local Hub cache; what lies on the Hub is removed there")
    return arguments


def main(argv: list[str]) -> int:
    """Run the script on its arguments; the id, version, content hash and counts go to stdout."""
    arguments = _parse(argv)
    repo_id = check_remote_id(arguments.repo_id) if arguments.remote else arguments.repo_id or DEFAULT_REPO_ID
    if not arguments.remote:
        check_repo_id(repo_id)
    quiet_without_terminal()
    started = time.monotonic()
    folders = [from_root(folder) for folder in arguments.data]
    with building_folder(repo_id) as building:
        joined = join_folders(
            folders, seed=arguments.seed, validation=arguments.validation, test_camera=arguments.test_camera
        )
        warn_of_missing_classes(joined.splits, arguments.validation)
        dataset = dataset_of(joined.splits, cache=building)
        content, counts = content_hash(dataset), count_splits(dataset)
        print(f"pushing {repo_id} to the {'Hub' if arguments.remote else 'local Hub cache'}", file=sys.stderr)
        if arguments.remote:
            version = push_remote(dataset, repo_id, dataset_card(content, counts, with_files=False))
        else:
            version = push_local(dataset, repo_id, joined.audit, joined.frame_format)
    print(f"id {repo_id}\nversion {version}\ncontent {content}")
    for split, held in counts.items():
        print(f"{split} {held}")
    frames = sum(held.frames for held in counts.values())
    print(f"{frames} frames pushed; {time.monotonic() - started:.1f} s", file=sys.stderr)
    if not arguments.remote:
        _see_to_old_versions(repo_id, remove=arguments.prune)
    return 0


def _see_to_old_versions(repo_id: str, *, remove: bool) -> None:
    """Remove older versions that no run in outputs/ was trained on, or say what they take and how to."""
    in_use = hashes_of_runs(from_root(RUNS))
    found = prune(repo_id, in_use) if remove else find_prunable(repo_id, in_use)
    size = size_in_words(found.freed)
    if remove:
        kept = f", {len(found.kept)} kept that runs in {RUNS}/ were trained on" if found.kept else ""
        print(f"{len(found.gone)} older versions removed{kept}; {size} freed", file=sys.stderr)
    elif found.gone:
        print(
            f"{len(found.gone)} older versions that no run in {RUNS}/ was trained on take {size}; --prune removes them",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_script(main)
