"""Models, adapters and frames that benchmarks make for themselves."""
