"""From P(UNSAFE) and labels to numbers. Imports no torch."""
