"""A clip's frames by time, and one frame as a picture."""
