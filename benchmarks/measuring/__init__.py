"""What benchmarks share: machines, processes, counts."""
