"""Executable tasks made from the tests of a repository."""
