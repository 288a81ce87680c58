"""Repair tasks of whole repositories: commits of the history, and bugs that are put into functions."""
