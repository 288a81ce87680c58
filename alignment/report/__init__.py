"""Writes reports about a chain: an HTML page with ladder, curves and lineage, and a picture that compares seeds."""
