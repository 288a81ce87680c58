"""Writes reports about a chain: an HTML page with scores, curves and lineage, and a picture that compares seeds."""
