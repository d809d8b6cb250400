"""What is measured, each arm in a process of its own."""
