"""Runs a recipe: plans its steps, runs outdated steps in new processes, checks gates, and writes scores by stage."""
