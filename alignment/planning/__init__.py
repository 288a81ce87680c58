"""Predict what a recipe needs before it runs: device and host memory, disk, tokens and steps."""
