"""Executable tasks for Python repositories, tested with pytest."""
