"""The base model: found, loaded, one forward pass, its loss."""
