"""The forward pass of ours against transformers' own, on the small base in fp32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.labels import PROMPT
from recipes.batches.collator import VisionCollator
from recipes.layers.fused_modules import use_fused_modules
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.forward import image_features, language_inputs, last_hidden

SIZES = [(640, 360), (640, 360), (300, 200), (640, 360)]


@pytest.fixture(scope="module")
def model(small_base: Path) -> Any:
    base = find_base(str(small_base))
    return loading.load_base(base, dtype=torch.float32, load_in_4bit=False, device=torch.device("cpu"))


def batch_of(small_base: Path, sizes: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    frames = [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]
    collator = VisionCollator(loading.load_processor(small_base), 100352)
    return collator.prompts([{"image": frame, "prompt": PROMPT} for frame in frames])


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:2], SIZES[2:3]], ids=["mixed", "alike", "one"])
def test_features_are_the_tower_s_own(model: Any, small_base: Path, sizes: list[tuple[int, int]]) -> None:
    batch = batch_of(small_base, sizes)
    with torch.no_grad():
        expected = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"]).pooler_output
    found = image_features(model.model.visual, batch["pixel_values"], batch["image_grid_thw"])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # features are of about 13
    assert not found.requires_grad


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:2]], ids=["mixed", "alike"])
@pytest.mark.parametrize("positions", [1, 8])
def test_last_hidden_states_are_the_model_s_own(
    model: Any, small_base: Path, sizes: list[tuple[int, int]], positions: int
) -> None:
    batch = batch_of(small_base, sizes)
    with torch.no_grad():
        expected = model.model(**batch, use_cache=False).last_hidden_state[:, -positions:]
        found = last_hidden(model, language_inputs(model, batch), positions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_kept_features_stand_in_for_the_tower(model: Any, small_base: Path) -> None:
    batch = batch_of(small_base, SIZES)
    features = image_features(model.model.visual, batch["pixel_values"], batch["image_grid_thw"])
    kept = {name: tensor for name, tensor in batch.items() if name != "pixel_values"} | {"image_features": features}
    with torch.no_grad():
        of_kept, of_pixels = (last_hidden(model, language_inputs(model, each), 1) for each in (kept, batch))
    assert torch.equal(of_kept, of_pixels)


def test_features_that_do_not_fit_the_prompt_are_an_error(model: Any, small_base: Path) -> None:
    batch = batch_of(small_base, SIZES[:1])
    features = torch.zeros(7, model.config.text_config.hidden_size)
    with pytest.raises(ValueError, match="120 image tokens in the batch, but 7 features"):
        language_inputs(model, {**batch, "image_features": features})


def test_fusing_again_changes_nothing(model: Any) -> None:
    before = [type(module) for module in model.modules()]
    use_fused_modules(model)
    assert [type(module) for module in model.modules()] == before
