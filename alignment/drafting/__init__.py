"""Draft a recipe for given repositories, a model and hardware, as `align init` does."""
