"""Write a Qwen2-VL of a given configuration with random bf16 weights, at full size, for measuring memory and speed.

    python benchmarks/made/random_qwen2vl.py --like Qwen/Qwen2-VL-7B-Instruct --out cache/random-7b
    python benchmarks/made/random_qwen2vl.py --like Qwen/Qwen2-VL-7B-Instruct --size 2b --out cache/random-2b

Such a model answers at random: it says what the architecture costs, never how well it answers.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import from_root, write_json
from recipes.model.published_layout import published_name

SHARD_BYTES = 4 * 1024**3
STANDARD_DEVIATION = 0.02

# What the 2B's config.json has otherwise than the 7B's; tokenizer and processor are the same.
SIZE_OF_THE_2B: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def main(argv: list[str]) -> int:
    """Copy configuration, tokenizer and processor from --like and write random weights beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", required=True, help="a Hub id or a folder with config.json and the tokenizer's files")
    parser.add_argument("--size", choices=("own", "2b"), default="own", help="2b: the 2B's sizes with a 7B's files")
    parser.add_argument("--out", required=True, help="folder to write; 16.6 GB for the 7B, 4.4 for the 2B")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {args.out} is not empty; name another folder")
    begin = time.perf_counter()
    companions = companion_folder(args.like)
    copy_companions(companions, out)
    if args.size == "2b":
        shrink_to_2b(out / "config.json")
    parameters = write_random_weights(out, args.seed)
    print(f"{parameters:,} parameters in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print(args.out)
    return 0


def companion_folder(like: str) -> Path:
    """Return the folder with a model's configuration and tokenizer, its weights left where they are."""
    folder = from_root(like)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(like, allow_patterns=["*.json", "*.jinja", "*.txt"]))


def copy_companions(folder: Path, out: Path) -> None:
    """Copy a model's configuration, tokenizer and processor into a folder, which may be missing."""
    out.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.suffix in (".json", ".jinja", ".txt") and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)


def shrink_to_2b(config_file: Path) -> None:
    """Turn the 7B's published config.json into the 2B's."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    vision = {**config["vision_config"], "hidden_size": SIZE_OF_THE_2B["hidden_size"]}
    write_json(config_file, {**config, **SIZE_OF_THE_2B, "vision_config": vision})


def write_random_weights(folder: Path, seed: int) -> int:
    """Write weights for the configuration in `folder` as safetensors shards with an index; return their number.

    An LM head that is tied to the embedding isn't written, nor counted.
    """
    import torch
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    shapes = tensor_shapes(folder)
    weight_map: dict[str, str] = {}
    shards = list(_shards(shapes))
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _random_tensor(name, shapes[name], generator).cpu() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    total = sum(shape.numel() for shape in shapes.values())
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
    )
    _set_dtype(folder / "config.json")
    return total


def tensor_shapes(folder: Path) -> dict[str, Any]:
    """Return the torch.Size of each tensor that a model of the configuration in `folder` is published with."""
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(folder))
    return {
        published_name(name): tensor.shape
        for name, tensor in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }


def _random_tensor(name, shape, generator):  # type: ignore[no-untyped-def]  # torch is imported late
    """Draw a tensor as transformers would initialise it: norms at one, biases at zero, the rest normal."""
    import torch

    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    if "norm" in name or "ln_q" in name:
        return torch.ones(shape, dtype=torch.bfloat16)
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return (drawn * STANDARD_DEVIATION).to(torch.bfloat16)


def _shards(shapes: dict[str, Any]) -> Iterator[list[str]]:
    """Part parameter names into lists of at most SHARD_BYTES in bf16."""
    shard: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if shard and size + 2 * shape.numel() > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += 2 * shape.numel()
    yield shard


def _set_dtype(config_file: Path) -> None:
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["torch_dtype"] = "bfloat16"
    write_json(config_file, config)


if __name__ == "__main__":
    run_script(main)
