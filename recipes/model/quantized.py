"""What is held in 4 bits, how it is packed, and what is made sure of after loading."""

from collections.abc import Mapping
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from transformers import BitsAndBytesConfig, Qwen2VLForConditionalGeneration

from recipes.layers.four_bit import Weight, unpacked_rows
from recipes.model.base_files import language_linears

# Names are matched from the start of a module's path. Any list replaces the built-in protection of the LM head.
KEPT_IN_16_BITS = ["model.visual", "lm_head"]


def quantization_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation (QLoRA, arXiv 2305.14314) for the language model's linears alone.

    The vision tower stays as it is: Qwen2-VL answers noticeably worse with a 4-bit one.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=KEPT_IN_16_BITS,
        # Allows a device map that names the host; what lies there isn't among the quantised modules.
        llm_int8_enable_fp32_cpu_offload=True,
    )


def quantization_as_used(published: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return how a base that comes in 4 bits was packed, with what is decided here: what is packed, what computes.

    transformers would take `published` alone, whatever configuration it is given beside it.
    """
    own = quantization_config(dtype).to_dict()
    decided = ("bnb_4bit_compute_dtype", "llm_int8_skip_modules", "llm_int8_enable_fp32_cpu_offload")
    return {**published, **{name: own[name] for name in decided}}


@torch.no_grad()
def unpack_quantized(model: Qwen2VLForConditionalGeneration, dtype: torch.dtype) -> None:
    """Write every 4-bit weight out in `dtype`, once: the same values as unpacking at each use, 12 GiB for the 7B."""
    for name, module in quantized_modules(model).items():
        ((_, _, weight),) = unpacked_rows(Weight(module.weight, module.weight.quant_state), dtype, at_once=True)
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.bias = module.bias
        model.set_submodule(name, plain)


def quantized_modules(model: torch.nn.Module) -> dict[str, Linear4bit]:
    """Return, by path, the modules whose weights bitsandbytes holds in 4 bits."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def compute_exactly_on_cpu(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for its bf16 inference kernel on CPUs with AVX512-BF16.

    bitsandbytes 0.50.2 repacks them at the first evaluation and goes on using that kernel when training continues: it
    rounds to bf16, and passes no gradient back. On other CPUs and on GPUs the switch has no effect.
    """
    for module in quantized_modules(model).values():
        module.support_avx512bf16_for_cpu = False


def compute_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Have a model in 4 bits compute in `dtype`, whatever it was saved in.

    Of a base that comes in 4 bits transformers casts biases alone, and its 4-bit weights name the dtype that they were
    made from, to which bitsandbytes would unpack them.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    for module in quantized_modules(model).values():
        module.weight.quant_state.dtype = dtype


def check_quantized(model: Qwen2VLForConditionalGeneration) -> None:
    """Raise RuntimeError unless the language model's linears, all of them and nothing else, are in 4 bits.

    A misspelt name in a quantisation configuration is ignored in silence, so the outcome is what gets checked.
    """
    expected = {f"model.language_model.{linear}" for linear in language_linears(model.config.to_dict())}
    differing = quantized_modules(model).keys() ^ expected
    if differing:
        raise RuntimeError(f"4-bit loading quantised other modules than expected: {sorted(differing)[:5]}")
