"""How many floating-point operations a training frame takes, counted from the architecture alone."""

from typing import Any


def flops_per_frame(config: dict[str, Any], trainer: Any, *, recomputed: bool) -> dict[str, float]:
    """Return the operations of one frame's forward and backward pass by part; a multiply-add counts as two.

    The vision tower only goes forward, and the language model's weights get no gradient: its backward pass costs what
    its forward pass does, and checkpointing adds another forward pass. Adapters, norms and the LM head, which together
    stay below a hundredth, are left out. `trainer` gives one frame, whose length and patches are what is counted.
    """
    batch = trainer.data_collator([trainer.train_dataset[0]])
    tokens = batch["input_ids"].shape[1]
    patches = int(batch["image_grid_thw"].prod())
    text = config.get("text_config", config)
    language = language_flops(text, tokens)
    return {
        "tokens": tokens,
        "patches": patches,
        "vision": vision_flops(config["vision_config"], patches, text["hidden_size"]),
        "language": language * (3 if recomputed else 2),
    }


def language_flops(config: dict[str, Any], tokens: int) -> float:
    """Return the operations of one forward pass through the decoder layers.

    Of the last one only keys and values are computed at every position; the few that answer are left out.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    linears = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    attention = tokens * hidden  # two products over, on average, half the positions
    return tokens * 2 * ((config["num_hidden_layers"] - 1) * (linears + attention) + 2 * hidden * keys)


def vision_flops(config: dict[str, Any], patches: int, hidden: int) -> float:
    """Return the operations of one forward pass through the vision tower."""
    width = config["embed_dim"]
    block = 4 * width * width + 2 * width * int(width * config["mlp_ratio"]) + 2 * patches * width
    merged = 4 * width
    merger = (merged * merged + merged * hidden) / 4
    return patches * 2 * (config["depth"] * block + merger)
