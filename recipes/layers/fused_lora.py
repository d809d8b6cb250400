"""PEFT's LoRA linears, and MLPs of three of them, computed as single functions. PEFT keeps and saves the adapter."""

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from recipes.layers.lora_functions import AdaptedLinear, lora_linear, lora_mlp


class FusedLora:
    """What both of the fused modules below share: PEFT's parts under short names."""

    def parts(self: Any) -> AdaptedLinear:
        """Return the linear with the one active adapter."""
        (name,) = self.active_adapters
        base = self.get_base_layer()
        return AdaptedLinear(
            weight=base.weight,
            state=getattr(base.weight, "quant_state", None),
            bias=base.bias,
            a=self.lora_A[name].weight,
            b=self.lora_B[name].weight,
            scaling=self.scaling[name],
        )

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute as PEFT's module would, for `x` of shape (…, in)."""
        if self.disable_adapters:
            return self.base_layer(x)
        return lora_linear(x, self.parts())


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
        return lora_mlp(x, self.gate_proj.parts(), self.up_proj.parts(), self.down_proj.parts())


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
