"""Trackers that a run logs to."""
