"""Ask an export by its README's lines for transformers, whichever version stands first on the import path.

    python benchmarks/measuring/readme_lines.py EXPORT FRAME...

It imports nothing of the project. The last line printed is JSON: the version, and P(UNSAFE) of each frame.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any


def main(export: Path, frames: list[str]) -> None:
    """Run the README's one block of Python for the first frame, and from the frame's own lines on for the others."""
    (lines,) = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    os.chdir(export)
    loading, opens, asking = lines.partition("image = ")
    names: dict[str, Any] = {}
    exec(loading, names)
    found = []
    for frame in frames:
        exec((opens + asking).replace('"frame.jpg"', repr(frame)), names)
        found.append(names["p_unsafe"])
    import transformers

    print(json.dumps({"version": transformers.__version__, "p_unsafe": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), [str(Path(frame).resolve()) for frame in sys.argv[2:]])
