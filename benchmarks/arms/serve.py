"""The model's own calls beside bench_serve.py's service: `python benchmarks/arms/serve.py --adapter DIR --data DIR`.

It loads the adapter as serve.py does, says so in a line, and for each line of JSON on stdin (`frames` at once,
`seconds`, `from_bytes`) calls the model over and over and prints its frames a second and what a call takes.
"""

import argparse
import json
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from data_prep.console import results_alone_on_stdout, run_script, stay_offline, stream_alone_on_stdin
from data_prep.files import from_root
from data_prep.media.images import read_image
from data_prep.rows.jsonl import read_rows
from recipes.adapter.folder import find_adapter
from recipes.answering.adapted_model import AdaptedModel, load_for_frames


def main(argv: list[str]) -> int:
    """Load, then measure what is asked for, until nothing more is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args(argv)
    stay_offline()
    data = from_root(args.data)
    encoded = [(data / row.image).read_bytes() for row in read_rows(data / "test.jsonl")]
    with results_alone_on_stdout() as results, stream_alone_on_stdin() as lines:
        adapter = find_adapter(from_root(args.adapter))
        adapted = load_for_frames(adapter, compiled=args.compile, frames=args.batch_size)
        print(json.dumps({"loaded": True}), file=results, flush=True)
        for line in lines:
            print(json.dumps(measure(adapted, encoded, **json.loads(line))), file=results, flush=True)
    return 0


def measure(
    adapted: AdaptedModel, encoded: Sequence[bytes], *, frames: int, seconds: float, from_bytes: bool
) -> dict[str, Any]:
    """Return frames a second, and the median seconds of a call with so many frames, from their bytes or decoded."""
    calls, turn = list[float](), 0
    images = [read_image(content) for content in encoded[: 4 * frames]]
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        places = [(turn + number) % len(images) for number in range(frames)]
        adapted.p_unsafe([read_image(encoded[place]) if from_bytes else images[place] for place in places])
        calls.append(time.perf_counter() - now)
        turn += frames
    return {"frames_per_second": frames * len(calls) / sum(calls), "call_seconds": median(calls), "calls": len(calls)}


if __name__ == "__main__":
    run_script(main, reads_stdin=True)
