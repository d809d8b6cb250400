"""The processor and the base, loaded: which parts lie where, in 4 bits or 16."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.hooks import remove_hook_from_submodules
from safetensors import safe_open
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLDecoderLayer,
    Qwen2VLVisionBlock,
)
from transformers.processing_utils import ProcessorMixin
from transformers.utils.logging import disable_progress_bar

from data_prep.errors import InputError
from recipes.layers.fused_modules import use_fused_modules
from recipes.layers.host_weights import keep_on_host
from recipes.layers.sizes import quantization
from recipes.model.base import BaseModel
from recipes.model.base_files import check_precision, weight_files
from recipes.model.quantized import (
    check_quantized,
    compute_exactly_on_cpu,
    compute_in,
    quantization_as_used,
    quantization_config,
)
from recipes.model.streaming import stream_blocks, streamed_while_loading


def load_processor(folder: Path) -> ProcessorMixin:
    """Load the processor of a base model or an adapter, padding on the left: the last position is the one read.

    Code that its files name is never run. Raises InputError where they are missing or damaged, or can't do without.
    """
    try:
        processor = Qwen2VLProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file raises whatever its reader does
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: its tokenizer or processor files are missing or damaged, or want code of their own, which is "
            f"never run ({reason}); fetch the base again, or train the adapter again"
        ) from None
    processor.tokenizer.padding_side = "left"
    return processor


@dataclass(frozen=True)
class Placement:
    """Which parts of the base don't lie on the card: in host memory, or nowhere at all.

    Of decoder layers and vision blocks, it says how many are streamed: see StreamedBlocks.
    """

    embedding_on_host: bool = False
    head_on_host: bool = False
    without_vision: bool = False
    layers_on_host: int = 0
    vision_blocks_on_host: int = 0

    @property
    def streamed(self) -> dict[type[torch.nn.Module], int]:
        """How many blocks of each kind pass through the card instead of lying there."""
        vision_blocks = 0 if self.without_vision else self.vision_blocks_on_host
        return {Qwen2VLDecoderLayer: self.layers_on_host, Qwen2VLVisionBlock: vision_blocks}

    def device_map(self, device: torch.device, *, tied: bool = False) -> dict[str, torch.device | str]:
        """Return where each part is loaded to, so that none passes through a card that has no room for it.

        An LM head that is `tied` to the embedding is loaded where that is, on the host if either belongs there.
        """
        if device.type == "cpu" or not (self.embedding_on_host or self.head_on_host or self.without_vision):
            return {"": device}
        return self.by_part(device, tied=tied)

    def by_part(self, device: torch.device, *, tied: bool) -> dict[str, torch.device | str]:
        """Return where each part is loaded to, by its module's path."""
        either = tied and (self.embedding_on_host or self.head_on_host)
        on_host = {
            "model.language_model.embed_tokens": self.embedding_on_host or either,
            "lm_head": self.head_on_host or either,
            "model.visual": self.without_vision,
        }
        on_card = ["model.language_model.layers", "model.language_model.norm", "model.language_model.rotary_emb"]
        return dict.fromkeys(on_card, device) | {
            name: "cpu" if elsewhere else device for name, elsewhere in on_host.items()
        }


def load_base(
    base: BaseModel,
    *,
    dtype: torch.dtype,
    load_in_4bit: bool,
    device: torch.device,
    placement: Placement = Placement(),
) -> Qwen2VLForConditionalGeneration:
    """Load a base model, frozen, its parts where `placement` wants them; in 4-bit, check which modules were quantised.

    A base that comes in 4 bits is used as it is. Raises InputError where such a one is wanted in 16 bits, and where
    weights are missing, which transformers would leave at random values.
    """
    published = base.read_config()
    check_precision(base.name, published, load_in_4bit=load_in_4bit)
    packed_already = quantization(published)
    config = Qwen2VLConfig.from_pretrained(base.folder, local_files_only=True)
    if packed_already is not None:
        config.quantization_config = quantization_as_used(packed_already, dtype)
    device_map = placement.device_map(device, tied=config.tie_word_embeddings)
    pack = load_in_4bit and packed_already is None
    with streamed_while_loading(placement.streamed, device):
        model = _from_files(base, config, dtype=dtype, pack=pack, device_map=device_map)
    if len(device_map) > 1:
        _undo_dispatch(model, device)
    model.name_or_path = model.config._name_or_path = base.name  # what PEFT writes beside adapters, not a path here
    model.requires_grad_(False)
    if load_in_4bit:
        check_quantized(model)
        compute_in(model, dtype)
        compute_exactly_on_cpu(model)
    keep_on_host(model, embedding=placement.embedding_on_host, head=placement.head_on_host)
    if placement.without_vision:
        del model.model.visual
    use_fused_modules(model)
    return model.eval()


def _from_files(
    base: BaseModel,
    config: Qwen2VLConfig,
    *,
    dtype: torch.dtype,
    pack: bool,
    device_map: dict[str, torch.device | str],
) -> Qwen2VLForConditionalGeneration:
    """Load a base as its files have it, or packed in 4 bits. Raises InputError where weights are missing."""
    if not sys.stderr.isatty():
        disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # warns of parts that lie on the host
    model, loading = Qwen2VLForConditionalGeneration.from_pretrained(
        base.folder,
        config=config,
        dtype=dtype,
        quantization_config=quantization_config(dtype) if pack else None,
        device_map=device_map,
        attn_implementation="sdpa",  # a configuration may name a kernel on the Hub, which would be fetched and run
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise InputError(f"base model {base.name!r} lacks {len(missing)} weights, such as {missing[0]}; fetch it again")
    return model


def _undo_dispatch(model: Qwen2VLForConditionalGeneration, device: torch.device) -> None:
    """Take off the hooks by which accelerate would move the host's parts to the card and back at every use."""
    remove_hook_from_submodules(model)
    for module in model.modules():
        module.__dict__.pop("forward", None)  # left by the hooks, it would stand before the class's own
    model.hf_device_map = {"": device}


def load_tower(
    base: BaseModel, *, dtype: torch.dtype, device: torch.device, blocks_on_host: int = 0
) -> Qwen2VisionTransformerPretrainedModel:
    """Load a base's vision tower alone, frozen; so many of its blocks pass through the device from host memory."""
    config = Qwen2VLConfig.from_pretrained(base.folder, local_files_only=True).vision_config
    tower = Qwen2VisionTransformerPretrainedModel._from_config(config, dtype=dtype)
    weights = {}
    for file in weight_files(base.folder):
        with safe_open(base.folder / file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118  # no mapping
                _, found, inner = f".{name}".partition(".visual.")
                if found:
                    weights[inner] = shard.get_tensor(name).to(dtype)
    tower.load_state_dict(weights)
    use_fused_modules(tower)
    stream_blocks(tower.blocks, blocks_on_host, device)
    return tower.to(device).requires_grad_(False).eval()
