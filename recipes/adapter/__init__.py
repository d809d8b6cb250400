"""LoRA and what stands beside it."""
