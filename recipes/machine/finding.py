"""What one look at a machine found, however it went."""

from collections.abc import Callable
from dataclasses import dataclass

from data_prep.disk.disk_errors import told
from data_prep.errors import InputError, one_line

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found: its state is OK, FAILED or SKIPPED, and `text` says what was seen and what to do."""

    check: str
    state: str
    text: str


class Skipped(Exception):
    """A check has nothing to look at; what it is raised with says why."""


def checked(check: str, look: Callable[[], str]) -> Finding:
    """Return what a check says, or what it fails with or is skipped for, as a finding."""
    try:
        return Finding(check, OK, look())
    except Skipped as reason:
        return Finding(check, SKIPPED, str(reason))
    except InputError as error:
        return Finding(check, FAILED, one_line(error))
    except Exception as error:  # what a broken library raises must not hide the checks that follow
        return Finding(check, FAILED, told(error) or " ".join(f"{type(error).__name__}: {error}".split()))
