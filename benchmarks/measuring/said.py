"""What a script says on stdout when its main is called in this process."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

STDOUT = 1


@contextmanager
def stdout_lines() -> Iterator[list[str]]:
    """Give a list that holds the lines written to stdout meanwhile, by whatever means, once that has ended."""
    lines: list[str] = []
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        os.dup2(said.fileno(), STDOUT)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            os.dup2(kept, STDOUT)
            os.close(kept)
        said.seek(0)
        lines += said.read().splitlines()
