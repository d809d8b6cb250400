"""Damaged clips, made and tried."""
