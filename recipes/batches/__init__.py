"""Rows to tensors; kept vision features."""
