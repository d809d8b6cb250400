"""`python -m tests.recipes.answering.asking_at_once BASE` prints what threads are answered at once, and one by one.

A process of its own, whose maths libraries have one thread: the teams of threads that they make for each thread of
Python were seen to spin for each other, without end, where other programs kept the cores busy.
"""

import json
import sys
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from PIL import Image

from data_prep.labels import PROMPT
from recipes.adapter.lora import lora_config
from recipes.answering import scoring
from recipes.answering.scoring import Scorer, label_token_ids
from recipes.batches.collator import VisionCollator
from recipes.layers.sizes import LLM_LINEARS
from recipes.model import loading
from recipes.model.base import find_base
from tests.recipes.model.test_cuda_graphs import Graphs

THREADS = 8
SIZES = [(640, 360), (360, 640), (200, 200), (1280, 720), (57, 90), (640, 360), (28, 28)]


def asked_at_once(scorer: Scorer, batches: list[Any]) -> list[float]:
    """Return P(UNSAFE) of each batch, asked by THREADS threads that begin together."""
    found = [float("nan")] * len(batches)
    begin = Barrier(THREADS)

    def ask(thread: int) -> None:
        begin.wait(60)
        for number in range(thread, len(batches), THREADS):
            found[number] = float(scorer(batches[number])[0])

    asking = [Thread(target=ask, args=[thread]) for thread in range(THREADS)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    return found


def random_adapter(small_base: Path) -> torch.nn.Module:
    """Return the small base, in 4 bits, with an adapter whose weights are all random: it changes every answer."""
    base = loading.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    torch.manual_seed(0)
    config = lora_config(r=4, alpha=8, dropout=0.0, target_modules=LLM_LINEARS, use_rslora=False)
    config.init_lora_weights = False
    return get_peft_model(base, config)


def noise_rows() -> list[dict[str, Any]]:
    """Return a row of each of SIZES, each brighter than the one before: noise of one size looks much the same."""
    random = np.random.default_rng(0)
    frames = [
        random.integers(30 * number, 256, (height, width, 3), dtype=np.uint8)
        for number, (width, height) in enumerate(SIZES)
    ]
    return [{"image": Image.fromarray(frame), "prompt": PROMPT} for frame in frames]


def main(small_base: Path) -> None:
    """Print a JSON object: for each way to answer, P(UNSAFE) of 32 batches one by one, and at once."""
    setattr(scoring, "GraphedFunction", Graphs)  # noqa: B010 (a type can't be assigned to)
    collator = VisionCollator(loading.load_processor(small_base), 100352)
    model = random_adapter(small_base)
    rows = noise_rows()
    batches = [collator.prompts([rows[number]]) for number in (0, 5, 1, 3)] * 8
    found = {}
    for way, replayed in {"called": False, "replayed": True}.items():
        scorer = Scorer(model, label_token_ids(collator), cuda_graphs=replayed)
        one_by_one = [float(scorer(batch)[0]) for batch in batches]
        found[way] = {"one_by_one": one_by_one, "at_once": asked_at_once(scorer, batches)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
