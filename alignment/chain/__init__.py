"""Runs a recipe: plans the steps, runs each outdated step in new processes, checks gates, and writes the ladder."""
