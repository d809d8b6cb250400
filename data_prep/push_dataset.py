"""Push the data set built from train.jsonl and test.jsonl to the local Hub cache, or with --remote to the Hub, private.

python data_prep/push_dataset.py --data data --repo-id local/safe-unsafe-frames
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from data_prep.clips.audit import read_audit
from data_prep.console import quiet_without_terminal, run_script
from data_prep.disk.byte_counts import size_in_words
from data_prep.errors import InputError
from data_prep.files import from_root
from data_prep.hub.old_versions import find_prunable, hashes_of_runs, prune
from data_prep.hub.pushing import building_folder, check_repo_id, dataset_card, is_own_card, push_local
from data_prep.rows.dataset import build_dataset, content_hash, count_splits, read_frame_format

if TYPE_CHECKING:
    from datasets import DatasetDict

DEFAULT_REPO_ID = "local/safe-unsafe-frames"
RUNS = "outputs"


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder with train.jsonl and test.jsonl (default: data)")
    parser.add_argument("--repo-id", help=f"org/name to push as (default: {DEFAULT_REPO_ID}; none with --remote)")
    parser.add_argument("--remote", action="store_true", help="push to the Hub, private, instead of the local cache")
    parser.add_argument("--seed", type=int, default=0, help="draws the clips of the validation split (default: 0)")
    parser.add_argument(
        "--prune", action="store_true", help=f"remove older versions that no run in {RUNS}/ was trained on"
    )
    arguments = parser.parse_args(argv)
    if arguments.prune and arguments.remote:
        raise InputError("--prune is for the local Hub cache; what lies on the Hub is removed there")
    return arguments


def _check_remote_id(repo_id: str | None) -> str:
    if repo_id is None or repo_id.startswith("local/"):
        raise InputError(
            f"--remote needs --repo-id with an account of your own on the Hub, found {repo_id or 'none'}; "
            "for example --repo-id my-account/safe-unsafe-frames"
        )
    return repo_id


def push_remote(dataset: "DatasetDict", repo_id: str, card: str) -> str:
    """Push to a private data set repository of the Hub and return the commit's id.

    The repository is made if it is missing; one that exists and is public is refused, because people are identifiable
    in the frames. `card` becomes its README.md, unless somebody wrote another, which stays. Raises InputError for
    whatever the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    api = HfApi()
    try:
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        if not api.repo_info(repo_id, repo_type="dataset").private:
            raise InputError(f"{repo_id} is public on the Hub and people are identifiable in frames; make it private")
        if _may_replace_card(repo_id):
            api.upload_file(
                path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo_id, repo_type="dataset"
            )
        else:
            print(f"the README.md of {repo_id} isn't a push's, so it stays as it is", file=sys.stderr)
        # push_to_hub itself leaves an existing repository as public as it is.
        return dataset.push_to_hub(repo_id, private=True).oid
    except (httpx.HTTPError, HFValidationError, OfflineModeIsEnabled) as error:
        raise InputError(f"push to {repo_id} on the Hub failed: {error}; see `hf auth login`") from error


def _may_replace_card(repo_id: str) -> bool:
    from huggingface_hub import HfFileSystem

    try:
        return is_own_card(HfFileSystem().read_text(f"datasets/{repo_id}/README.md", encoding="utf-8"))
    except FileNotFoundError:
        return True
    except UnicodeDecodeError:
        return False


def main(argv: list[str]) -> int:
    """Run the script on its arguments; the id, version, content hash and counts go to stdout."""
    arguments = _parse(argv)
    repo_id = _check_remote_id(arguments.repo_id) if arguments.remote else arguments.repo_id or DEFAULT_REPO_ID
    if not arguments.remote:
        check_repo_id(repo_id)
    quiet_without_terminal()
    started = time.monotonic()
    data = from_root(arguments.data)
    with building_folder(repo_id) as building:
        dataset = build_dataset(data, seed=arguments.seed, cache=building)
        content, counts = content_hash(dataset), count_splits(dataset)
        print(f"pushing {repo_id} to the {'Hub' if arguments.remote else 'local Hub cache'}", file=sys.stderr)
        if arguments.remote:
            version = push_remote(dataset, repo_id, dataset_card(content, counts, with_files=False))
        else:
            version = push_local(dataset, repo_id, read_audit(data), read_frame_format(data))
    print(f"id {repo_id}\nversion {version}\ncontent {content}")
    for split, c in counts.items():
        labels = ", ".join(f"{label} {count}" for label, count in c.labels.items())
        print(f"{split} {c.frames} frames of {c.clips} clips ({labels})")
    frames = sum(c.frames for c in counts.values())
    print(f"{frames} frames pushed; {time.monotonic() - started:.1f} s", file=sys.stderr)
    if not arguments.remote:
        see_to_old_versions(repo_id, remove=arguments.prune)
    return 0


def see_to_old_versions(repo_id: str, *, remove: bool) -> None:
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
