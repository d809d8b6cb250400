"""An mp4's container: opening it, its boxes, and what else bears its name."""
