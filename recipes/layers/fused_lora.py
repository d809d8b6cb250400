"""PEFT's LoRA linears, and MLPs of three of them, computed as single functions. PEFT keeps and saves the adapter."""

from typing import Any

import torch
from bitsandbytes.functional import QuantState
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from recipes.layers.lora_functions import LoraLinearFunction, LoraMlpFunction


class FusedLora:
    """What both of the fused modules below share: PEFT's parts under short names."""

    def parts(self: Any) -> tuple[torch.Tensor, QuantState | None, torch.Tensor | None, Any, Any, float]:
        """Return (weight, its quantisation, bias, A, B, scaling) of the one active adapter."""
        (name,) = self.active_adapters
        base = self.get_base_layer()
        return (
            base.weight,
            getattr(base.weight, "quant_state", None),
            base.bias,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
        )

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute as PEFT's module would, for `x` of shape (…, in)."""
        if self.disable_adapters:
            return self.base_layer(x)
        return LoraLinearFunction.apply(x, *self.parts())


class FusedLinear(FusedLora, PeftLinear):
    """PEFT's LoRA linear on 16 or 32-bit weights, computed as one function."""


class FusedLinear4bit(FusedLora, PeftLinear4bit):
    """PEFT's LoRA linear on 4-bit weights, computed as one function."""


class FusedMlp(Qwen2MLP):
    """A decoder layer's MLP whose three linears all bear an adapter, computed as one function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the MLP's output, of the shape of `x`: (batch, length, hidden)."""
        if self.gate_proj.disable_adapters:
            return super().forward(x)
        layers = [layer.parts() for layer in (self.gate_proj, self.up_proj, self.down_proj)]
        tensors = [part for weight, _, _, a, b, _ in layers for part in (weight, a, b)]
        return LoraMlpFunction.apply(
            x, *tensors, tuple(layer[1] for layer in layers), tuple(layer[5] for layer in layers)
        )


_FUSED = {PeftLinear: FusedLinear, PeftLinear4bit: FusedLinear4bit}


def fuse_lora(model: torch.nn.Module) -> None:
    """Have the LoRA modules of a PEFT model compute as fused functions, wherever they are plain: see _is_plain.

    Names, parameters and saved files stay PEFT's. Calling it again changes nothing.
    """
    for module in model.modules():
        fused = _FUSED.get(type(module))
        if fused and _is_plain(module):
            module.__class__ = fused
    for module in model.modules():
        if type(module) is Qwen2MLP and all(
            isinstance(layer, FusedLora) for layer in (module.gate_proj, module.up_proj, module.down_proj)
        ):
            module.__class__ = FusedMlp


def _is_plain(module: Any) -> bool:
    """Say whether a LoRA module is W, A, B and a scaling alone: no dropout, no bias of B, no variant such as DoRA."""
    if module.lora_variant or any(module.lora_bias.values()) or module.fan_in_fan_out:
        return False
    return all(isinstance(dropout, torch.nn.Identity) for dropout in module.lora_dropout.values())
