"""The processor, the 4-bit base and the base with its adapter: what stays in 16 bits, what lives in host memory."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from joblib import cpu_count
from peft import LoraConfig, PeftModel, TaskType, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoProcessor, BitsAndBytesConfig, Qwen2VLForConditionalGeneration
from transformers.processing_utils import ProcessorMixin
from transformers.utils.logging import disable_progress_bar

from data_prep.errors import InputError
from recipes.base_model import BaseModel

# Names are matched from the start of a module's path. Any list replaces the built-in protection of the LM head.
KEPT_IN_16_BITS = ["model.visual", "lm_head"]

# The seven linears of a decoder layer. None of the vision tower's modules bears one of these names.
LLM_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def choose_device() -> torch.device:
    """Return the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def use_all_cores() -> None:
    """Let PyTorch compute with every core that this process has; `accelerate launch` leaves it one thread."""
    torch.set_num_threads(cpu_count())


def load_processor(folder: Path) -> ProcessorMixin:
    """Load the processor of a base model or an adapter, padding on the left: the last position is the one read."""
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    processor.tokenizer.padding_side = "left"
    return processor


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
    )


def load_base(
    base: BaseModel,
    *,
    dtype: torch.dtype,
    load_in_4bit: bool,
    device: torch.device,
    attn_implementation: str | None = None,
) -> Qwen2VLForConditionalGeneration:
    """Load a base model onto one device, frozen; in 4-bit, check which modules were quantised."""
    if not sys.stderr.isatty():
        disable_progress_bar()
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        base.folder,
        dtype=dtype,
        quantization_config=quantization_config(dtype) if load_in_4bit else None,
        device_map={"": device},
        attn_implementation=attn_implementation,
        local_files_only=True,
        use_safetensors=True,
    )
    model.name_or_path = model.config._name_or_path = base.name  # what PEFT writes beside adapters, not a path here
    model.requires_grad_(False)
    if load_in_4bit:
        check_quantized(model)
        compute_exactly_on_cpu(model)
    return model.eval()


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


class HostEmbedding(torch.nn.Embedding):
    """A token embedding that stays in host memory wherever its model is moved.

    Looking a batch up there and sending its rows over the bus costs little; the 7B's table takes 1 GiB of a card.
    """

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of `input_ids`, of shape (batch, length), on the device of `input_ids`."""
        return super().forward(input_ids.to("cpu")).to(input_ids.device)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "HostEmbedding":
        return self  # what moves or casts a module's weights; accelerate does so with the whole model


def keep_embedding_on_host(model: Qwen2VLForConditionalGeneration) -> None:
    """Move the frozen token embedding to host memory for good.

    Raises InputError for a model whose LM head shares the embedding's weights.
    """
    embedding = model.get_input_embeddings()
    if embedding.weight is model.get_output_embeddings().weight:
        raise InputError("embedding_on_host: this base ties its LM head to the embedding; set it to false")
    model.set_input_embeddings(HostEmbedding.from_pretrained(embedding.weight.detach().cpu()))


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


def load_adapter(model: Qwen2VLForConditionalGeneration, folder: Path) -> PeftModel:
    """Put the adapter in `folder` on a loaded base, in fp32, for inference.

    Raises InputError where the adapter's weights are missing, or are not exactly those that its configuration needs:
    PEFT alone would leave what is missing at its random start.
    """
    weights = folder / "adapter_model.safetensors"
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
    return adapted.eval()
