"""Text rows: grounding, mathematics, general text, and the classifiers that select them."""
