"""Experiment trackers to which stages log their metrics."""
