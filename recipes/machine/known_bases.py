"""The sizes of the two bases that the project is made for, as far as plans go by them, before they are here. No torch.

As in the config.json that each is published with; tests/recipes/machine compares the 7B's.
"""

from typing import Any

_TOWER = {"embed_dim": 1280, "depth": 32, "mlp_ratio": 4}

KNOWN_BASES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-7B-Instruct": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "vision_config": _TOWER,
    },
    "Qwen/Qwen2-VL-2B-Instruct": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "vision_config": _TOWER,
    },
}
