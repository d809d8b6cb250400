"""Does a streamed model train as a plain one? Loss and gradients at full size, to the bit where kernels allow it.

A kernel that adds in an order of its own gives other gradients every time, so plain passes are compared with each
other, too: as they are, with torch's deterministic kernels, and with each way to compute attention alone.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from recipes.layers.sizes import ALL, counted
from recipes.model.loss import answer_loss, training_inputs

FRAMES = (1, 4, 8)  # at once
RECOMPUTED = (ALL, "14", "0")  # layers, from the first
PAIRED_FRAMES, PAIRS = 4, 10
BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)
ATTENTION_KERNELS = ("flash", "fmha", "attention", "softmax", "sdpa", "cudnn")
ADAPTER_SIZE = 0.01  # standard deviation


class Pass(NamedTuple):
    """What a forward and backward pass gives: the loss, and all gradients as one vector."""

    loss: torch.Tensor
    gradients: torch.Tensor


class Trained(NamedTuple):
    """A model that trains: the base that bears the adapter, the adapter's weights, and how batches are made."""

    base: torch.nn.Module
    weights: list[torch.Tensor]
    batch: Callable[[int], dict[str, torch.Tensor]]


def streamed_equality(models: dict[str, Trained]) -> dict[str, Any]:
    """Compare each model with the one named `plain`; their adapters become the same random one."""
    for model in models.values():
        randomise(model.weights)
    plain = models["plain"]
    return {
        "pairs": dict(pairs(plain)),
        "ways": [row for frames in FRAMES for row in ways(models, frames)],
        "attention_kernels": attention_kernels(plain),
    }


def randomise(weights: Sequence[torch.Tensor]) -> None:
    """Draw an adapter whose B isn't zero: with B at zero A would get no gradient."""
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * ADAPTER_SIZE)


def pairs(plain: Trained) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield how far ten plain pairs are from each other at most: usual, deterministic, and by each attention."""
    yield "usual kernels", told(compared_pairs(plain, PAIRED_FRAMES))
    with deterministic_but_for_attention():
        yield "deterministic kernels but for attention", told(compared_pairs(plain, PAIRED_FRAMES))
    with deterministic():
        yield "deterministic kernels", told(compared_pairs(plain, PAIRED_FRAMES))
    for backend in BACKENDS:
        with sdpa_kernel(backend):
            yield f"attention by {backend.name}", told(compared_pairs(plain, PAIRED_FRAMES))


def compared_pairs(model: Trained, frames: int, recomputed: str = ALL) -> dict[str, Any]:
    """Return how many of ten pairs of passes are equal to the bit, and how far any is from its other at most.

    The reason stands alone where the kernels that are allowed can't compute it.
    """
    try:
        each = [
            difference(one_pass(model, frames, recomputed), one_pass(model, frames, recomputed)) for _ in range(PAIRS)
        ]
    except RuntimeError as error:
        return {"refused": str(error).splitlines()[0]}
    return {
        "pairs": PAIRS,
        "equal": sum(pair["equal"] for pair in each),
        "largest": max(pair["gradients"] for pair in each),
        "losses": max(pair["loss"] for pair in each),
    }


def ways(models: dict[str, Trained], frames: int) -> Iterator[dict[str, Any]]:
    """Yield how far each model is from the plain one, at so many frames at once.

    With deterministic kernels that is the plain one that recomputes every layer; with the usual ones the plain one that
    recomputes as many, and beside it stands how far ten plain pairs are from each other.
    """
    plain = models["plain"]
    with deterministic():
        exact = one_pass(plain, frames, ALL)
    for recomputed in RECOMPUTED:
        noise = compared_pairs(plain, frames, recomputed)
        usual = one_pass(plain, frames, recomputed)
        for name, model in models.items():
            with deterministic():
                to_the_bit = difference(one_pass(model, frames, recomputed), exact)
            row = {"frames": frames, "model": name, "recomputed": recomputed, "deterministic": to_the_bit}
            row["usual"] = difference(one_pass(model, frames, recomputed), usual)
            yield told({**row, "plain_pairs": noise})


def one_pass(model: Trained, frames: int, recomputed: str) -> Pass:
    """Return loss and gradients of a batch. Raises RuntimeError where a matrix has none, or nothing but zeros."""
    recompute_first(model.base, recomputed)
    for weight in model.weights:
        weight.grad = None
    loss, _ = answer_loss(model.base, training_inputs(model.base, model.batch(frames)))
    loss.backward()
    gradients = [weight.grad for weight in model.weights if weight.grad is not None and weight.grad.any()]
    if len(gradients) != len(model.weights):
        raise RuntimeError(f"{len(gradients)} of {len(model.weights)} adapter matrices got a gradient")
    return Pass(loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]))


def recompute_first(base: torch.nn.Module, recomputed: str) -> None:
    """Have the first layers be recomputed in the backward pass, and the others keep what they need."""
    base.train()
    base.activation_checkpointing_enable({"use_reentrant": False})
    layers = base.model.language_model.layers
    for layer in layers[counted(recomputed, len(layers)) :]:
        layer.gradient_checkpointing = False


def difference(found: Pass, expected: Pass) -> dict[str, Any]:
    """Say whether two passes are equal to the bit, and how far loss and gradients are apart, by the expected's size."""
    apart = (found.gradients.double() - expected.gradients.double()).norm() / expected.gradients.double().norm()
    equal = torch.equal(found.loss, expected.loss) and torch.equal(found.gradients, expected.gradients)
    loss = (found.loss - expected.loss).abs() / expected.loss.abs()
    return {"equal": equal, "gradients": float(apart), "loss": float(loss)}


@contextmanager
def deterministic() -> Iterator[None]:
    """Have torch take kernels that add in the same order each time, and attention by matrix products.

    The backward pass of cuDNN's attention isn't deterministic, nor is the memory-efficient one's, and torch's switch
    leaves both be where it only warns.
    """
    with deterministic_but_for_attention(), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def deterministic_but_for_attention() -> Iterator[None]:
    """Have torch take kernels that add in the same order each time, where it has some, and name the others."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def attention_kernels(model: Trained) -> list[str]:
    """Return the names of the kernels by which attention goes forward and backward."""
    one_pass(model, PAIRED_FRAMES, ALL)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        one_pass(model, PAIRED_FRAMES, ALL)
        torch.cuda.synchronize()
    names = {event.key for event in profiled.key_averages()}
    return sorted(name for name in names if any(part in name.lower() for part in ATTENTION_KERNELS))


def told(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row, said on stderr as well: it is known then, should a later one fail."""
    print(row, file=sys.stderr)
    return row
