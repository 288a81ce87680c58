"""Executable tasks for JavaScript and TypeScript repositories."""
