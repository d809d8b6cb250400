"""The processor, the 4-bit base and the base with its adapter: what stays in 16 bits, what lives where."""

import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.hooks import remove_hook_from_submodules
from bitsandbytes.nn import Linear4bit
from joblib import cpu_count
from peft import LoraConfig, PeftModel, TaskType, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import BitsAndBytesConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLDecoderLayer,
    Qwen2VLVisionBlock,
)
from transformers.processing_utils import ProcessorMixin
from transformers.utils.logging import disable_progress_bar

from data_prep.errors import InputError
from recipes.adapter.folder import WEIGHTS_FILE
from recipes.layers.fused_lora import fuse_lora, unpacked_rows
from recipes.layers.host_weights import keep_on_host
from recipes.layers.joined_linears import join_linears
from recipes.machine.memory import LLM_LINEARS, base_weights, quantization
from recipes.model.base import BaseModel
from recipes.model.base_files import check_precision, weight_files
from recipes.model.forward import use_fused_modules

# Names are matched from the start of a module's path. Any list replaces the built-in protection of the LM head.
KEPT_IN_16_BITS = ["model.visual", "lm_head"]

MERGING_ROOM = 1.4  # times what the weights take in 16 bits; measured for the 7B: 1.25
COMPILED_SHAPES = 64  # of a layer's inputs: frame sizes times batch sizes, in training and in answering


def choose_device() -> torch.device:
    """Return the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def use_all_cores() -> None:
    """Let PyTorch compute with every core that this process has; `accelerate launch` leaves it one thread."""
    torch.set_num_threads(cpu_count())


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
    """Which parts of the base don't lie on the card: in host memory, or nowhere at all."""

    embedding_on_host: bool = False
    head_on_host: bool = False
    without_vision: bool = False

    def device_map(self, device: torch.device, *, tied: bool = False) -> dict[str, torch.device | str]:
        """Return where each part is loaded to, so that none passes through a card that has no room for it.

        An LM head that is `tied` to the embedding is loaded where that is, on the host if either belongs there.
        """
        if device.type == "cpu" or self == Placement():
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
    if not sys.stderr.isatty():
        disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # warns of parts that lie on the host
    device_map = placement.device_map(device, tied=config.tie_word_embeddings)
    model, loading = Qwen2VLForConditionalGeneration.from_pretrained(
        base.folder,
        config=config,
        dtype=dtype,
        quantization_config=quantization_config(dtype) if load_in_4bit and packed_already is None else None,
        device_map=device_map,
        attn_implementation="sdpa",  # a configuration may name a kernel on the Hub, which would be fetched and run
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise InputError(f"base model {base.name!r} lacks {len(missing)} weights, such as {missing[0]}; fetch it again")
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


def _undo_dispatch(model: Qwen2VLForConditionalGeneration, device: torch.device) -> None:
    """Take off the hooks by which accelerate would move the host's parts to the card and back at every use."""
    remove_hook_from_submodules(model)
    for module in model.modules():
        module.__dict__.pop("forward", None)  # left by the hooks, it would stand before the class's own
    model.hf_device_map = {"": device}


def load_tower(base: BaseModel, *, dtype: torch.dtype, device: torch.device) -> Qwen2VisionTransformerPretrainedModel:
    """Load a base's vision tower alone, frozen."""
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
    return tower.to(device).requires_grad_(False).eval()


@torch.no_grad()
def unpack_quantized(model: Qwen2VLForConditionalGeneration, dtype: torch.dtype) -> None:
    """Write every 4-bit weight out in `dtype`, once: the same values as unpacking at each use, 12 GiB for the 7B."""
    for name, module in quantized_modules(model).items():
        ((_, _, weight),) = unpacked_rows((module.weight, module.weight.quant_state), dtype, at_once=True)
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.bias = module.bias
        model.set_submodule(name, plain)


def free_memory(device: torch.device) -> float:
    """Return the bytes that this process may still take of a GPU's memory, by its own cap too where one is set."""
    free, total = torch.cuda.mem_get_info(device)
    return min(float(free), total * torch.cuda.get_per_process_memory_fraction(device))


def free_room(device: torch.device) -> dict[str, float]:
    """Return the bytes that a GPU and the host have free, under the names that room.py takes them by."""
    return {"card_bytes": free_memory(device), "host_bytes": float(psutil.virtual_memory().available)}


def has_room_to_merge(base: BaseModel, device: torch.device) -> bool:
    """Say whether a GPU has memory to spare for all of a base in 16 bits, its 4-bit weights beside it at first."""
    if device.type == "cpu":
        return False
    return free_memory(device) > MERGING_ROOM * 2 * base_weights(base.read_config())


def compile_layers(model: torch.nn.Module) -> None:
    """Have torch.compile fuse each decoder layer's and each vision block's kernels, at the first batch of each shape.

    All layers of a kind share one compilation. Raises InputError where there is no GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("compile_layers needs a GPU; set it to false")
    torch._dynamo.config.recompile_limit = COMPILED_SHAPES  # beyond it, a shape would run uncompiled in silence
    for module in model.modules():
        if isinstance(module, Qwen2VLDecoderLayer | Qwen2VLVisionBlock):
            module.compile(dynamic=False)


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
    expected = {
        f"model.language_model.layers.{layer}.{part}"
        for layer in range(model.config.text_config.num_hidden_layers)
        for part in [f"self_attn.{name}" for name in LLM_LINEARS[:4]] + [f"mlp.{name}" for name in LLM_LINEARS[4:]]
    }
    differing = quantized_modules(model).keys() ^ expected
    if differing:
        raise RuntimeError(f"4-bit loading quantised other modules than expected: {sorted(differing)[:5]}")


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
    with safe_open(weights, framework="pt") as file:
        differing = set(file.keys()) ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if differing:
        raise InputError(
            f"adapter {folder}: {len(differing)} weights are missing or unknown, among them {min(differing)}; "
            f"it is damaged or for another base, train it again"
        )
    for name, weight in adapted.named_parameters():
        if ".lora_" in name and not torch.isfinite(weight).all():
            raise InputError(f"adapter {folder}: {name} holds values that are no numbers; train it again")
    if merge:
        if quantized_modules(model):
            raise RuntimeError("an adapter is never merged into 4-bit weights; unpack_quantized first")
        merged = adapted.merge_and_unload().eval()
        join_linears(merged)
        return merged
    fuse_lora(adapted)
    return adapted.eval()
