"""Measurements of the toolkit itself. Run `python -m benchmarks --help`."""
