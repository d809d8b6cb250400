"""How many floating-point operations a training frame takes, counted from the architecture alone."""

from typing import Any

from recipes.machine.operations import language_flops, vision_flops


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
