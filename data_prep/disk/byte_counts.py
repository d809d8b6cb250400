"""Numbers of bytes, of disks in GB and of memory in GiB, as their makers count them."""

GIB = 2**30


def size_in_words(size: float) -> str:
    """Return a number of bytes for people."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
