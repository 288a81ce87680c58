"""Post-training for code models: recipes, the chain of stages, and what each stage needs."""

__version__ = "0.1.0"
