"""LoRA on the language model's linears: its description, and an adapter put on a loaded base."""

import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import Qwen2VLForConditionalGeneration

from data_prep.errors import InputError
from recipes.adapter.folder import WEIGHTS_FILE
from recipes.layers.fused_lora import fuse_lora
from recipes.layers.joined_linears import join_linears
from recipes.layers.sizes import LLM_LINEARS
from recipes.layers.streamed_blocks import modules_of_streamed_blocks
from recipes.model.quantized import quantized_modules


def lora_config(*, r: int, alpha: int, dropout: float, target_modules: list[str], use_rslora: bool) -> LoraConfig:
    """Describe a LoRA adapter on linears of the language model (arXiv 2106.09685).

    Raises InputError for a target that is none of the seven: the vision tower stays frozen.
    """
    unknown = sorted(set(target_modules) - set(LLM_LINEARS))
    if unknown:
        raise InputError(f"lora_target_modules: {', '.join(unknown)} not among {', '.join(LLM_LINEARS)}")
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        use_rslora=use_rslora,
        bias="none",
    )


def load_adapter(
    model: Qwen2VLForConditionalGeneration, folder: Path, *, merge: bool = False
) -> PeftModel | Qwen2VLForConditionalGeneration:
    """Put the adapter in `folder` on a loaded base, in fp32, for inference; with `merge`, add it to the base's weights.

    A base in 4 bits has to be unpacked before its adapter is merged: rounded to 4 bits once more, it would be lost.

    Raises InputError where the adapter's weights are missing or aren't finite, or are not exactly those that its
    configuration needs: PEFT alone would leave what is missing at its random start.
    """
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise InputError(f"adapter {folder}: {weights.name} is missing; train it again")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below, not a warning
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=False, local_files_only=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"adapter {folder}: damaged or for another base ({reason}); train it again") from None
    _check_weights(adapted, weights)
    if merge:
        if quantized_modules(model):
            raise RuntimeError("an adapter is never merged into 4-bit weights; unpack_quantized first")
        if any(modules_of_streamed_blocks(model)):
            raise RuntimeError("an adapter is never merged into streamed weights, of which the card holds two blocks'")
        merged = adapted.merge_and_unload().eval()
        join_linears(merged)
        return merged
    fuse_lora(adapted)
    return adapted.eval()


def _check_weights(adapted: PeftModel, file: Path) -> None:
    """Raise InputError unless an adapter has exactly the weights in its file, and all of them are finite."""
    with safe_open(file, framework="pt") as stored:
        differing = set(stored.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if differing:
        raise InputError(
            f"adapter {file.parent}: {len(differing)} weights are missing or unknown, among them {min(differing)}; "
            f"it is damaged or for another base, train it again"
        )
    for name, weight in adapted.named_parameters():
        if ".lora_" in name and not torch.isfinite(weight).all():
            raise InputError(f"adapter {file.parent}: {name} holds values that are no numbers; train it again")
