"""The small base's parts before any training: its tokenizer, its processor, and its shape."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from recipes.model.base_files import WEIGHT_FILE
from recipes.model.published_layout import published_files, published_name

MAX_PIXELS = 100352  # a frame of 640 by 360 becomes 420 by 224: 120 visual tokens of 28 by 28 pixels

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
VOCABULARY_SIZE = 768

# Qwen's chat layout: ChatML turns, a default system turn, one placeholder an image.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `texts`, with Qwen's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    bpe.train_from_iterator(["You are a helpful assistant.", "system user assistant", *texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS,
        padding_side="left",
        model_max_length=2048,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """Put the tokenizer, the chat template and an image processor at the demo frames' size together."""
    size = {"shortest_edge": 56 * 56, "longest_edge": MAX_PIXELS}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLConfig:
    """Return the shape of the small base: Qwen2-VL's own architecture with under 8 million parameters."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 256,  # bitsandbytes' 4-bit linears on a CPU need a multiple of 128
            "initializer_range": 0.04,  # the libraries' 0.02 is made for wide models
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 6,
            "embed_dim": 192,
            "num_heads": 6,
            "mlp_ratio": 4,
            "hidden_size": 256,
            "initializer_range": 0.04,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )


def write_model(folder: Path, model: Qwen2VLForConditionalGeneration, processor: Qwen2VLProcessor) -> None:
    """Write model and processor into a new folder, in the layout that Qwen publishes its own in."""
    for how_it_was_loaded in ("is_local", "local_files_only"):
        processor.tokenizer.init_kwargs.pop(how_it_was_loaded, None)
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary)
        model.save_pretrained(saved)
        processor.save_pretrained(saved)
        files = published_files("small base", saved, str(model.dtype).removeprefix("torch."))
        weights = load_file(saved / WEIGHT_FILE)
    folder.mkdir(parents=True)
    save_file(
        {published_name(name): tensor for name, tensor in weights.items()}, folder / WEIGHT_FILE, {"format": "pt"}
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
