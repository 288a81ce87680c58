"""Reads rows of datasets, determines their kind, and extracts their text, for builders, training and evaluation."""
