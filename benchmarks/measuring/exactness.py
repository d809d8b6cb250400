"""Is the fast path the plain one? Loss and LoRA gradients of one batch at full size, each option alone and together.

What is compared with is the plain path in fp32: PEFT's own modules, transformers' own forward, every logit. The plain
path in bf16 stands beside ours, so that what rounding alone costs can be seen.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from torch.nn.functional import cross_entropy
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLDecoderLayer, Qwen2VLRMSNorm, VisionAttention

from data_prep.hub.source import open_dataset
from recipes.adapter.lora import lora_config
from recipes.batches.collator import VisionCollator
from recipes.layers.fused_lora import fuse_lora
from recipes.layers.fused_modules import FrameAttention, FusedRMSNorm, LastDecoderLayer, use_fused_modules
from recipes.layers.host_weights import keep_on_host
from recipes.layers.joined_lora import join_adapters
from recipes.layers.losses import IGNORED
from recipes.layers.sizes import LLM_LINEARS
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.compiling import compile_layers
from recipes.model.cuda_graphs import ORDINARY_CALLS, GraphedFunction
from recipes.model.forward import image_features
from recipes.model.loss import answer_loss, training_inputs
from recipes.model.quantized import unpack_quantized

Batch = dict[str, torch.Tensor]


class Pass(NamedTuple):
    """What a forward and backward pass gives: the loss, and the gradients by the adapter matrix's name."""

    loss: float
    gradients: dict[str, torch.Tensor]


def exactness(out: Path, max_pixels: int) -> dict[str, Any]:
    """Return, for each way to compute, the relative error of loss and gradients against the plain path in fp32."""
    truth = _fp32(out, _batch(out, max_pixels, torch.float32))
    torch.cuda.empty_cache()
    plain: Pass | None = None
    found = {}
    for name, figures in _bf16(out, _batch(out, max_pixels, torch.bfloat16)):
        plain = plain or figures
        found[name] = {"to_fp32": _errors(figures, truth), "to_plain_bf16": _errors(figures, plain)}
        print(f"{name}: {found[name]}", file=sys.stderr)  # what is known already, should a later way fail
    return found


def _fp32(out: Path, batch: Batch) -> Pass:
    model = _adapted(out, torch.float32)
    _use_own_modules(model)
    unpack_quantized(model, torch.float32)
    model.gradient_checkpointing_enable({"use_reentrant": False})  # exact, and 80 GB don't hold it all otherwise
    return _pass(model, lambda: _plain_loss(model, batch))


def _bf16(out: Path, batch: Batch) -> Iterator[tuple[str, Pass]]:
    """Yield every way in bf16. Each builds on the model that the one before left."""
    model = _adapted(out, torch.bfloat16)
    base = model.get_base_model()
    _use_own_modules(model)
    with torch.autocast("cuda", torch.bfloat16):
        yield "plain", _pass(model, lambda: _plain_loss(model, batch))
    use_fused_modules(model)
    fuse_lora(model)
    features = image_features(base.model.visual, batch["pixel_values"].cuda(), batch["image_grid_thw"]).cpu()
    cached = {name: tensor for name, tensor in batch.items() if name != "pixel_values"} | {"image_features": features}
    yield from _each_option(model, base, batch, cached)
    yield from _small_cards(model, base, batch, cached)
    yield from _large_card(model, base, batch, cached)


def _each_option(model: Any, base: Any, batch: Batch, cached: Batch) -> Iterator[tuple[str, Pass]]:
    yield "fused", _our_pass(model, base, batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    yield "fused, checkpointing", _our_pass(model, base, batch)
    model.gradient_checkpointing_disable()
    with _on_host(base):
        yield "fused, embedding and head on the host", _our_pass(model, base, batch)
    yield "fused, features kept", _our_pass(model, base, cached)


def _small_cards(model: Any, base: Any, batch: Batch, cached: Batch) -> Iterator[tuple[str, Pass]]:
    _adapters_in(model, torch.bfloat16)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with _on_host(base):
        name = "the 8 GB recipe's: adapter in bf16, checkpointing, embedding and head on the host"
        yield name, _our_pass(model, base, batch)
        yield "the 6 GB recipe's: the same, features kept", _our_pass(model, base, cached)
    model.gradient_checkpointing_disable()
    _adapters_in(model, torch.float32)


def _large_card(model: Any, base: Any, batch: Batch, cached: Batch) -> Iterator[tuple[str, Pass]]:
    unpack_quantized(model, torch.bfloat16)
    join_adapters(model, base.model.language_model)
    yield "fused, unpacked", _our_pass(model, base, batch)
    compile_layers(model)
    yield "the 80 GB recipe's: fused, unpacked, compiled", _our_pass(model, base, batch)
    yield "the 80 GB recipe's, features kept", _our_pass(model, base, cached)
    yield "the 80 GB recipe's, as a CUDA graph", _from_graph(model, base, batch)


@contextmanager
def _on_host(base: Any) -> Iterator[None]:
    """Keep embedding and LM head on the host for a while."""
    embedding, head = base.get_input_embeddings(), base.lm_head
    keep_on_host(base, embedding=True, head=True)
    yield
    base.set_input_embeddings(embedding)
    base.lm_head = head


def _batch(out: Path, max_pixels: int, dtype: torch.dtype) -> Batch:
    rows = open_dataset(str(out / "data")).rows("train")
    collator = VisionCollator(loading.load_processor(out / "base"), max_pixels, dtype=dtype)
    return collator([rows[0], rows[len(rows) - 1]])


def _adapted(out: Path, dtype: torch.dtype) -> Any:
    """Return the base with an adapter whose weights are all random: with B at zero A would get no gradient."""
    base = loading.load_base(
        find_base(str(out / "base")), dtype=dtype, load_in_4bit=True, device=torch.device("cuda", 0)
    )
    config = lora_config(r=16, alpha=32, dropout=0.0, target_modules=LLM_LINEARS, use_rslora=False)
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad:
            drawn = torch.randn(weight.shape, generator=generator) * 0.01
            weight.data = drawn.to(torch.bfloat16).float().to(weight.device)
    return model.train()


def _use_own_modules(model: torch.nn.Module) -> None:
    """Give transformers' own modules back to a model as loaded."""
    own = {FrameAttention: VisionAttention, FusedRMSNorm: Qwen2VLRMSNorm, LastDecoderLayer: Qwen2VLDecoderLayer}
    for module in model.modules():
        module.__class__ = own.get(type(module), type(module))


def _adapters_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(dtype)


def _plain_loss(model: Any, batch: Batch) -> torch.Tensor:
    inputs = {name: tensor.cuda() for name, tensor in batch.items()}
    labels, weights, _ = (inputs.pop(name) for name in ("labels", "loss_weights", "rivals"))
    logits = model(**inputs, use_cache=False).logits[:, -labels.shape[1] - 1 : -1].float()
    losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return (losses * weights).sum() / len(labels)


def _our_pass(model: torch.nn.Module, base: torch.nn.Module, batch: Batch) -> Pass:
    return _pass(model, lambda: answer_loss(base, training_inputs(base, batch))[0])


def _pass(model: torch.nn.Module, loss_of: Callable[[], torch.Tensor]) -> Pass:
    model.zero_grad()
    loss = loss_of()
    loss.backward()
    gradients = _gradients(model)
    model.zero_grad()
    return Pass(float(loss), gradients)


def _from_graph(model: torch.nn.Module, base: torch.nn.Module, batch: Batch) -> Pass:
    """Return loss and gradients as the third call leaves them, the first that is a graph's replay."""

    def loss_and_gradients(inputs: Any, _variant: None) -> torch.Tensor:
        loss, _ = answer_loss(base, inputs)
        loss.backward()
        return loss.detach()

    graphed = GraphedFunction(loss_and_gradients)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    for _ in range(ORDINARY_CALLS + 1):
        for weight in trained:
            weight.grad.zero_()
        loss = graphed(training_inputs(base, batch))
    return Pass(float(loss), _gradients(model))


def _gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return every adapter matrix's gradient. Raises RuntimeError where one has none, or nothing but zeros."""
    gradients = {
        name: weight.grad.float().cpu() for name, weight in model.named_parameters() if weight.grad is not None
    }
    expected = sum(weight.requires_grad for weight in model.parameters())
    if len(gradients) != expected or not all(gradient.any() for gradient in gradients.values()):
        raise RuntimeError(f"{len(gradients)} of {expected} adapter matrices got a gradient")
    return gradients


def _errors(found: Pass, truth: Pass) -> dict[str, float]:
    """Return the relative errors of the loss, of all gradients as one vector, and of the worst single matrix."""
    names = sorted(truth.gradients)
    differences = {name: float((found.gradients[name] - truth.gradients[name]).norm()) for name in names}
    norms = {name: float(truth.gradients[name].norm()) for name in names}

    def whole(values: dict[str, float]) -> float:
        return sum(value**2 for value in values.values()) ** 0.5

    return {
        "loss": abs(found.loss - truth.loss) / abs(truth.loss),
        "gradients": whole(differences) / whole(norms),
        "worst_matrix": max(differences[name] / norms[name] for name in names),
    }
