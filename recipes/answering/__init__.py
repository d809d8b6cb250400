"""P(UNSAFE) of frames."""
