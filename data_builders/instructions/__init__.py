"""Instruction rows made from the code of a repository."""
