"""How fast the crew is, as ratios against its peers in one run: `python -m benchmarks`."""
