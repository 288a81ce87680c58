"""Dataset builders: make rows for training and evaluating a model from private repositories."""
