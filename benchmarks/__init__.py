"""Measurements of the toolkit itself: speed, overhead and memory. List them with `python -m benchmarks --help`."""
