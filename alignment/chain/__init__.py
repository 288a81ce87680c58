"""Run a recipe: find the steps that are stale, run each in fresh processes, check gates, and keep the ladder of figures."""
