"""Where the parts of a pushed data set lie: its ids, and the folders and files of both layouts that a push fills.

The Hub cache gets a snapshot (Parquet, a card, the manifest), which is the truth and keeps every version; the cache of
`datasets` gets an Arrow copy of the newest version alone, because `load_dataset("org/name")` reads nothing else while
offline and there takes whatever was touched last.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from data_prep.disk.plain_paths import plain_path
from data_prep.errors import InputError

CONFIG = "default"
DATASETS_VERSION = "0.0.0"  # what `datasets` calls the version of every data set without a loading script
MANIFEST = "manifest.json"
CARD_FILE = "README.md"
# A ref of our own beside refs/main: where the Hub has a data set of the same name, the libraries move main to it.
PUSHED_REF = "pushed"
STAGING = ".pushing"  # hidden, so that the libraries' globs pass it over

PUSH_COMMAND = "python data_prep/push_dataset.py"
_PART = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"


@dataclass(frozen=True)
class Version:
    """One version of a pushed data set: its id, and the version's own, 40 hexadecimal digits that follow from its data.

    Nothing is said of whether it is there.
    """

    repo_id: str
    revision: str

    @property
    def snapshot(self) -> Path:
        """Where the Hub cache keeps the version's files."""
        return snapshots(self.repo_id) / self.revision

    @property
    def served(self) -> Path:
        """Where `load_dataset` finds the version's Arrow files while offline."""
        return arrow_root(self.repo_id) / CONFIG / DATASETS_VERSION / self.revision

    @property
    def kept(self) -> Path:
        """Where the Arrow files of an older version stand, once it was asked for; hidden from `load_dataset`."""
        return arrow_root(self.repo_id) / ".versions" / self.revision


def is_repo_id(name: str) -> bool:
    """Say whether `name` has the form of an id that can be pushed: `org/name`."""
    return bool(re.fullmatch(f"{_PART}/{_PART}", name))


def check_repo_id(repo_id: str) -> None:
    """Raise InputError unless `repo_id` names the same data set for the Hub cache, for `datasets` and for people."""
    if not is_repo_id(repo_id) or len(repo_id) > 96:
        raise InputError(
            f"repo id {repo_id!r} is not of the form org/name in lower-case letters, digits and single . _ - between "
            "them (at most 96 characters; datasets stores upper case under another name)"
        )
    if repo_id.startswith("buckets/") or repo_id.endswith((".py", ".git")):
        raise InputError(f"repo id {repo_id!r} means something else to the libraries; choose another name")


def hub_folder(repo_id: str) -> Path:
    """Return where the Hub cache keeps what was pushed, or downloaded, under an id."""
    return Path(constants.HF_HUB_CACHE) / "--".join(["datasets", *repo_id.split("/")])


def snapshots(repo_id: str) -> Path:
    """Return the folder of the Hub cache that holds the versions of an id, a folder each."""
    return hub_folder(repo_id) / "snapshots"


def refs(repo_id: str) -> Path:
    """Return the folder of the Hub cache whose files name a version of an id each."""
    return hub_folder(repo_id) / "refs"


def arrow_root(repo_id: str) -> Path:
    """Return where `datasets` keeps Arrow files of an id."""
    from datasets import config

    return plain_path(Path(config.HF_DATASETS_CACHE).expanduser()) / "___".join(repo_id.split("/"))


def parquet_name(split: str) -> str:
    """Return the path of a split's Parquet file within a snapshot."""
    return f"data/{split}-00000-of-00001.parquet"


def arrow_file(folder: Path, repo_id: str, split: str) -> Path:
    """Return a split's Arrow file in a folder, named as `datasets` does."""
    return folder / f"{repo_id.split('/')[1]}-{split}.arrow"


def push_again(repo_id: str) -> str:
    """Say how a damaged data set is had again."""
    return f"push the data again: {PUSH_COMMAND} --repo-id {repo_id}"
