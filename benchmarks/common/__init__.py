"""What the rooms of the benchmarks share."""
