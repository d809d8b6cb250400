"""What a run needs, and what is there."""
