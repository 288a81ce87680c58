"""Post-training for code models: reads recipes, runs their stages in order, and implements the stages."""

__version__ = "0.2.0"
