"""The small base as others come: with a tied LM head, or in 4 bits already."""

import json
import shutil
from pathlib import Path
from typing import Any


def write_tied(small_base: Path, folder: Path) -> None:
    """Write the small base with an LM head that shares the embedding's weights, as the 2B comes: without its own."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(small_base, folder)
    weights = load_file(small_base / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, tie_word_embeddings=True)


LANGUAGE_MODEL_ALONE = ["model.visual", "lm_head"]  # what else has linears


def write_packed(
    base: Path, folder: Path, *, kept: list[str] = LANGUAGE_MODEL_ALONE, save: dict[str, Any] | None = None, **how: Any
) -> None:
    """Write a base in bitsandbytes' 4 bits as transformers saves it, `kept` modules in 32 bits."""
    import torch
    from transformers import BitsAndBytesConfig, Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(
        base,
        dtype=torch.float32,
        device_map={"": "cpu"},
        local_files_only=True,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=kept, **how),
    )
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(folder, **(save or {}))


def change_config(folder: Path, **changed: Any) -> None:
    """Change entries of a base's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
