from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image

from data_prep.labels import LABELS, PROMPT
from recipes import modeling
from recipes.base_model import find_base
from recipes.collator import VisionCollator
from recipes.scoring import label_of, label_token_ids, score, score_rows

SIZES = [(640, 360), (360, 640), (200, 200), (1280, 720), (57, 90), (640, 360), (28, 28)]


@pytest.fixture(scope="module")
def collator(small_base: Path) -> VisionCollator:
    return VisionCollator(modeling.load_processor(small_base), 100352)


@pytest.fixture(scope="module")
def model(small_base: Path) -> Any:
    """An adapter whose weights are all random, so that it changes every answer."""
    base = modeling.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    torch.manual_seed(0)
    config = modeling.lora_config(r=4, alpha=8, dropout=0.0, target_modules=modeling.LLM_LINEARS, use_rslora=False)
    config.init_lora_weights = False
    return get_peft_model(base, config)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    return [{"image": Image.fromarray(frame), "prompt": PROMPT} for frame in frames]


def test_mixed_sizes_score_as_one_frame_at_a_time(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    together = score_rows(model, collator, rows, batch_size=len(rows))
    alone = score_rows(model, collator, rows, batch_size=1)
    in_threes = score_rows(model, collator, rows, batch_size=3)
    assert np.abs(together - alone).max() < 1e-4
    assert np.abs(in_threes - alone).max() < 1e-4
    assert len(set(alone.round(4))) == len(rows), "frames that differ must score differently, or this shows nothing"


def test_score_is_the_plain_forward_s_softmax_over_the_two_labels(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    batch = collator.prompts(rows[:2])
    with torch.no_grad():
        logits = model(**batch).logits[:, -1]
    safe, unsafe = (logits[:, token].exp() for token in label_token_ids(collator))
    torch.testing.assert_close(score(model, batch, label_token_ids(collator)), unsafe / (safe + unsafe))


def test_score_sees_the_picture_and_the_adapter(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    row = rows[0]
    blank = {**row, "image": Image.new("RGB", row["image"].size)}
    seen, unseen = score_rows(model, collator, [row, blank], batch_size=1)
    assert abs(seen - unseen) > 1e-3
    with model.disable_adapter():
        (without,) = score_rows(model, collator, [row], batch_size=1)
    assert abs(seen - without) > 1e-3


def test_scoring_leaves_training_mode_as_it_was(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    for mode in (True, False):
        model.train(mode)
        score_rows(model, collator, rows[:1], batch_size=1)
        assert model.training is mode


def test_labels_that_begin_alike_are_refused(collator: VisionCollator) -> None:
    alike = VisionCollator(collator.processor, collator.max_pixels)
    alike.answer_ids = {label: [7, 8] for label in LABELS}
    with pytest.raises(ValueError, match="with the same token 7"):
        label_token_ids(alike)


@pytest.mark.parametrize(("p_unsafe", "answer"), [(0.49, "SAFE"), (0.5, "UNSAFE"), (0.51, "UNSAFE")])
def test_threshold_itself_is_unsafe(p_unsafe: float, answer: str) -> None:
    assert label_of(p_unsafe, 0.5) == answer
