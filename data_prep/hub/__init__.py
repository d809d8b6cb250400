"""The local Hub cache: its layout, pushing, loading."""
