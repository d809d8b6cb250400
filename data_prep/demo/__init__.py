"""The drawn clips of the demo."""
