"""The versions of the project that a benchmark measures in turns: this one, and an earlier one."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT, from_root


def checkouts(before: str | None, *, measured_by: str) -> dict[str, Path]:
    """Return the root of this version as `now` and, where a checkout is named, that one as `before`.

    Raises InputError where the checkout lacks what it is measured by, a path from its root.
    """
    if before is None:
        return {"now": PROJECT_ROOT}
    if not (from_root(before) / measured_by).exists():
        raise InputError(f"--before {before}: no {measured_by} there; name a checkout of a version that has it")
    return {"now": PROJECT_ROOT, "before": from_root(before)}
