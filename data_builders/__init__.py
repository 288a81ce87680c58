"""From private repositories to rows that a model can learn from."""
