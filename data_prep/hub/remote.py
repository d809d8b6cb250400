"""Pushing a data set to the Hub itself, private."""

import sys
from typing import TYPE_CHECKING

from data_prep.errors import InputError
from data_prep.hub.card import is_own_card
from data_prep.hub.layout import CARD_FILE

if TYPE_CHECKING:
    from datasets import DatasetDict


def check_remote_id(repo_id: str | None) -> str:
    """Return an id that can be pushed to the Hub. Raises InputError for none, and for one of the local cache."""
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
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo=CARD_FILE, repo_id=repo_id, repo_type="dataset")
        else:
            print(f"the {CARD_FILE} of {repo_id} isn't a push's, so it stays as it is", file=sys.stderr)
        # push_to_hub itself leaves an existing repository as public as it is.
        return dataset.push_to_hub(repo_id, private=True).oid
    except (httpx.HTTPError, HFValidationError, OfflineModeIsEnabled) as error:
        raise InputError(f"push to {repo_id} on the Hub failed: {error}; see `hf auth login`") from error


def _may_replace_card(repo_id: str) -> bool:
    from huggingface_hub import HfFileSystem

    try:
        return is_own_card(HfFileSystem().read_text(f"datasets/{repo_id}/{CARD_FILE}", encoding="utf-8"))
    except FileNotFoundError:
        return True
    except UnicodeDecodeError:
        return False
