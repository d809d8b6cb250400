"""A finished run's folder with an adapter of random weights, for benchmarks that only ask how fast it answers."""

from pathlib import Path

import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen2VLForConditionalGeneration

from data_prep.labels import LABELS, PROMPT
from recipes.adapter.lora import lora_config
from recipes.adapter.safety_record import SafetyRecord
from recipes.layers.sizes import LLM_LINEARS
from recipes.metrics.threshold import PLAIN_THRESHOLD
from recipes.model import loading
from recipes.model.base import find_base

SIZE_OF_A, SIZE_OF_B = 0.02, 0.01  # standard deviations: outputs differ from the base's, and stay of its size


def write_random_adapter(folder: Path, base_folder: Path, *, max_pixels: int, dtype: str = "bfloat16") -> None:
    """Write adapter, processor and safety.json as training leaves them. The base's own weights aren't read."""
    base = find_base(str(base_folder))
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(base.folder, local_files_only=True))
        config = lora_config(r=16, alpha=32, dropout=0.0, target_modules=LLM_LINEARS, use_rslora=False)
        shapes = get_peft_model_state_dict(get_peft_model(model, config), save_embedding_layers=False)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(weight.shape, generator=generator) * (SIZE_OF_A if "lora_A" in name else SIZE_OF_B)
        for name, weight in shapes.items()
    }
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.base_model_name_or_path = base.name
    config.save_pretrained(folder)
    loading.load_processor(base.folder).save_pretrained(folder)
    SafetyRecord(
        prompt=PROMPT,
        labels=LABELS,
        max_pixels=max_pixels,
        base_model=base.name,
        base_revision=base.revision,
        dtype=dtype,
        load_in_4bit=True,
        threshold=PLAIN_THRESHOLD,
        threshold_from="nothing: the weights are random",
        training_prior=0.5,
        dataset="none",
        dataset_revision=None,
        dataset_hash="",
        seed=0,
    ).write(folder)
