"""Experiment trackers that stages log to."""
