"""What processes that a launcher starts anew, once some were lost, find of those before them."""

from contextlib import suppress

import torch.distributed as dist

_store: dist.Store | None = None


def keep_words_in(store: dist.Store | None) -> None:
    """Keep them in what lies under a job's part of its launcher's store, or nowhere, for a process that is alone."""
    global _store
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    _store = store


def leave_word(name: str, word: str) -> None:
    """Leave a word by a name for those that come later; without a launcher none come."""
    if _store is not None:
        with suppress(RuntimeError):  # its launcher is gone, and starts nothing anew
            _store.set(_key(name), word)


def earlier_word(name: str) -> str | None:
    """Return the last word by that name, None where there is none."""
    if _store is None or not _store.check([_key(name)]):
        return None
    return _store.get(_key(name)).decode()


def _key(name: str) -> str:
    return f"earlier/{name}"
