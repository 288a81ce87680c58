"""Builders of text rows (grounding, mathematics, general text, good code) and the classifiers that select them."""
