"""Rows of datasets: reading files, kinds of rows, and their texts; for builders, training and evaluation."""
