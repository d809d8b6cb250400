"""The small Qwen2-VL that the demo fine-tunes."""
