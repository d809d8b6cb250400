"""An adapter on its base, or an export that has it in it, ready to answer as its safety.json says."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from recipes.adapter.folder import Adapter
from recipes.adapter.lora import load_adapter
from recipes.adapter.safety_record import SafetyRecord
from recipes.answering.card_options import AS_MANY_AS_MUST, OnHost
from recipes.answering.scoring import Scorer, label_token_ids
from recipes.batches.collator import CPU, VisionCollator
from recipes.layers.joined_linears import join_linears
from recipes.layers.sizes import counted, layers_of, vision_blocks_of
from recipes.machine.answering_memory import AnsweringPlan, plan_answering
from recipes.model import loading
from recipes.model.compiling import compile_layers
from recipes.model.device import choose_device, free_memory, has_room_to_merge
from recipes.model.quantized import unpack_quantized


@dataclass(frozen=True)
class AdaptedModel:
    """A loaded adapter with all that its answers need; `model` is the base with it on, or with it merged in.

    `collator` makes batches on the CPU, also in worker processes; `card_collator` cuts frames up where the model lies.
    `frames` of 1080p have room at once.
    """

    model: PeftModel | Qwen2VLForConditionalGeneration
    collator: VisionCollator
    card_collator: VisionCollator
    record: SafetyRecord
    scorer: Scorer
    frames: int

    def p_unsafe(self, images: Sequence[Image.Image]) -> list[float]:
        """Return P(UNSAFE) of each RGB image, scored as one batch, whichever thread asks.

        Raises NoProbabilityError where one is no number.
        """
        batch = self.card_collator.prompts([{"image": image, "prompt": self.record.prompt} for image in images])
        return self.scorer(batch).tolist()


def load_for_frames(
    adapter: Adapter, *, compiled: bool = False, frames: int = 1, on_host: OnHost = AS_MANY_AS_MUST
) -> AdaptedModel:
    """Load an adapter to answer single frames, or up to `frames` at once, as fast as the machine allows.

    It is merged into its base in 16 bits where the card has room for that, and frames of a size that keeps coming are
    replayed. Else no more of it lies on the host than a single frame asks for. `compiled` takes ten seconds more and is
    a fifth faster. `on_host` is load_for_batches'. Raises InputError as that does.
    """
    device = choose_device()
    merge = has_room_to_merge(adapter.base, device) and not any(on_host)
    if frames > 1 and not merge:
        _, placement = choose_placement(adapter, device, 1, on_host)
        on_host = OnHost(str(placement.layers_on_host), str(placement.vision_blocks_on_host))
    return load_for_batches(
        adapter, merge=merge, cuda_graphs=device.type == "cuda", compiled=compiled, frames=frames, on_host=on_host
    )


def load_for_batches(
    adapter: Adapter,
    *,
    merge: bool = False,
    cuda_graphs: bool = False,
    compiled: bool = False,
    frames: int = 1,
    on_host: OnHost = AS_MANY_AS_MUST,
) -> AdaptedModel:
    """Load the adapter in `folder` on its base, on the GPU where there is one.

    On a GPU the base's embedding and LM head stay in host memory, and what the record says is in 4 bits stays so. Of
    decoder layers and vision blocks as many stay there, too, as are named, or else as must for `frames` of 1080p at
    once to fit, or for as many of them as can. With `merge` everything lies on the card in the record's precision and
    the adapter is part of the weights, as it always is of an export's: three times the memory, and faster.
    `cuda_graphs` replays frames of a size that keeps coming, if nothing is streamed. Raises InputError where the
    adapter is damaged or doesn't fit, and, before anything is loaded, where what streams is to be `compiled`.
    """
    record, dtype, device = adapter.record, getattr(torch, adapter.record.dtype), choose_device()
    placement = loading.Placement()
    if not merge:
        frames, placement = choose_placement(adapter, device, frames, on_host)
    streams = any(placement.streamed.values())
    if compiled and streams:
        raise InputError("--compile is for a model that lies on the card whole, and this one doesn't; leave it out")
    model = loading.load_base(
        adapter.base, dtype=dtype, load_in_4bit=record.load_in_4bit, device=device, placement=placement
    )
    if device.type == "cpu" and record.dtype != "float32":
        print("no GPU that torch can use: answering on the CPU, which takes minutes a frame", file=sys.stderr)
    if merge and record.load_in_4bit:
        unpack_quantized(model, dtype)
    adapted = model if record.merged else load_adapter(model, adapter.folder, merge=merge)
    if record.merged and merge:
        join_linears(model)
    collator, card_collator = _collators(adapter, device)
    if compiled:
        compile_layers(adapted)
    scorer = Scorer(adapted, label_token_ids(collator), cuda_graphs=cuda_graphs and not streams)
    return AdaptedModel(adapted, collator, card_collator, record, scorer, frames)


def _collators(adapter: Adapter, device: torch.device) -> tuple[VisionCollator, VisionCollator]:
    """Return what makes batches of frames as the adapter's record says, on the CPU and on the model's device."""
    record, dtype = adapter.record, getattr(torch, adapter.record.dtype)
    processor = loading.load_processor(adapter.folder)
    collator, card_collator = (
        VisionCollator(processor, record.max_pixels, max_side=record.max_side, dtype=dtype, device=place)
        for place in (CPU, device)
    )
    for each in (collator, card_collator):
        each.prompt_ids(record.prompt)  # kept from now on: a tokenizer takes one thread at a time
    return collator, card_collator


def choose_placement(
    adapter: Adapter, device: torch.device, frames: int, on_host: OnHost
) -> tuple[int, loading.Placement]:
    """Return how many of `frames` to answer at once, and what of an adapter's base stays in host memory meanwhile.

    What isn't named is chosen by the card's free memory, which is said where anything has to pass through the card or
    fewer frames fit. On a CPU nothing is chosen.
    """
    config, on_card = adapter.base.read_config(), device.type == "cuda"
    layers = None if on_host.layers is None else counted(on_host.layers, layers_of(config))
    blocks = None if on_host.vision_blocks is None else counted(on_host.vision_blocks, vision_blocks_of(config))
    plan = AnsweringPlan(frames, layers or 0, blocks or 0)
    if on_card:
        free = free_memory(device)
        plan = plan_answering(adapter.values(), config, free, frames, layers=layers, vision_blocks=blocks)
        _tell(plan, free, frames, chosen=None in on_host)
    return plan.frames, loading.Placement(
        embedding_on_host=on_card,
        head_on_host=on_card,
        layers_on_host=plan.layers_on_host,
        vision_blocks_on_host=plan.vision_blocks_on_host,
    )


def _tell(plan: AnsweringPlan, free: float, asked: int, *, chosen: bool) -> None:
    """Say what a card with so many bytes free makes necessary; of what streams, where that was `chosen`, not named."""
    said = []
    if chosen and (plan.layers_on_host or plan.vision_blocks_on_host):
        parts = f"{plan.layers_on_host} decoder layers and {plan.vision_blocks_on_host} vision blocks"
        said.append(f"{parts} pass through it from host memory")
    if plan.frames < asked:
        said.append(f"{plan.frames} of {asked} frames are answered at once")
    if said:
        print(f"the card has {free / GIB:.1f} GiB free: {', '.join(said)}", file=sys.stderr)
