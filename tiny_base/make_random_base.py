"""Make the demo's base model: a small Qwen2-VL with random weights and a small tokenizer of its own.

    python tiny_base/make_random_base.py --out outputs/random-base

It stands in for a pretrained base so that every step of the job runs anywhere, and it has seen nothing: an adapter on
random features learns little. Its weights are drawn from a seed, so the same seed makes the same model.
"""

import argparse
import shutil
import sys
from pathlib import Path

from data_prep.errors import InputError, run_script
from data_prep.files import from_root

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

# What the byte-level BPE learns its merges from. The answers aren't in it: they are spelled from smaller pieces.
CORPUS = [
    "You are a helpful assistant.",
    "system user assistant",
    "Look at this picture of a plant and answer with one word.",
    "A person walks on the green path. A worker stands beside the press. The forklift carries orange bins.",
]


def main(argv: list[str]) -> int:
    """Write the model, its tokenizer and its processor into --out; keep a folder that is already whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/random-base", help="folder to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out)
    if (out / "model.safetensors").is_file():
        print(f"{args.out} is there already; it is kept", file=sys.stderr)
        return 0
    if out.exists():
        raise InputError(f"--out {args.out} exists and is no model; remove it or name another folder")
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_base(unfinished, args.seed)
    unfinished.rename(out)
    print(f"wrote {args.out}")
    return 0


def write_base(folder: Path, seed: int) -> None:
    """Write the model with fp32 weights drawn from `seed`, and its processor, into a new folder."""
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )
    from transformers.utils.logging import disable_progress_bar

    if not sys.stderr.isatty():
        disable_progress_bar()
    tokenizer = build_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            # One over the square root of the width: at the libraries' 0.02, made for wide models, hardly anything of
            # a frame would reach the last position.
            "initializer_range": 0.09,
            "hidden_size": 128,  # bitsandbytes' 4-bit linears on a CPU need a multiple of 128
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "embed_dim": 64,
            "num_heads": 4,
            "mlp_ratio": 2,
            "hidden_size": 128,
            "initializer_range": 0.125,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)


def build_tokenizer():  # type: ignore[no-untyped-def]  # transformers' class is imported late
    """Train a byte-level BPE tokenizer of a few hundred tokens with Qwen's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS,
        padding_side="left",
        model_max_length=2048,
    )


if __name__ == "__main__":
    run_script(main)
