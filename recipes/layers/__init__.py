"""Qwen2-VL's layers computed otherwise: fused, joined, in 4 bits, on the host."""
