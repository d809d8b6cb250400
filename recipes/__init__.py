"""From labelled frames to an adapter, its report and its answers."""
