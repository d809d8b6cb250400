"""A random Qwen2-VL of a few layers with a published one's tokenizer, whose two answers are its likeliest and differ.

What other engines make of an export is seen on it in seconds: nothing but sizes and weights is other than the 7B's.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from benchmarks.made.random_qwen2vl import copy_companions
from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import sample_scene
from data_prep.files import write_json
from data_prep.labels import PROMPT
from recipes.answering.scoring import label_token_ids
from recipes.batches.collator import VisionCollator
from recipes.model import loading
from recipes.model.base_files import CONFIG_FILE, WEIGHT_FILE
from recipes.model.published_layout import published_name

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "torch_dtype": "float32",
}
# Of fewer than three vision blocks llama.cpp's converter has no name for the merger's second linear, its number 2.
VISION_SIZES = {"depth": 3, "embed_dim": 160, "num_heads": 2, "hidden_size": 256}
STANDARD_DEVIATION = 0.05
LOGIT_OF_ANSWERS, SPREAD = 25.0, 2.0  # others' logits are within 2 of 0


def drawn_frames(number: int, size: tuple[int, int] = (560, 336)) -> list[Image.Image]:
    """Return drawn frames of a size that nothing resizes, of all eight behaviours in turn."""
    return [
        Renderer(sample_scene(each % 8, np.random.default_rng([7, each]))).frame(1.0).resize(size)
        for each in range(number)
    ]


@torch.no_grad()
def write_small_qwen2vl(like: Path, folder: Path, *, max_pixels: int, seed: int = 0) -> None:
    """Write the model into a new folder, with the tokenizer, processor and configuration in `like`."""
    copy_companions(like, folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    vision = {**config["vision_config"], **VISION_SIZES}
    write_json(folder / CONFIG_FILE, {**config, **SIZES, "vision_config": vision})
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(folder, local_files_only=True)).eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=STANDARD_DEVIATION)
        elif "norm" not in name and "ln_q" not in name:
            torch.nn.init.zeros_(weight)
    _have_it_answer(model, VisionCollator(loading.load_processor(folder), max_pixels))
    weights = {published_name(name): weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / WEIGHT_FILE, metadata={"format": "pt"})


def _have_it_answer(model: Qwen2VLForConditionalGeneration, collator: VisionCollator) -> None:
    """Make the labels' tokens the likeliest, and the two of them differ by what frames differ in most."""
    hidden = []
    for image in drawn_frames(16):
        batch = collator.prompts([{"image": image, "prompt": PROMPT}])
        hidden.append(model.model(**batch).last_hidden_state[0, -1])
    states = torch.stack(hidden)
    mean = states.mean(0)
    differing = torch.linalg.svd(states - mean).Vh[0]
    differing -= mean * (differing @ mean) / (mean @ mean)
    reach = ((states - mean) @ differing).std()
    for label, sign in zip(label_token_ids(collator), (-1, 1), strict=True):
        row = mean * LOGIT_OF_ANSWERS / (mean @ mean) + sign * SPREAD / 2 * differing / reach
        model.lm_head.weight[label] = row
