"""Environments for GRPO: tools that a model calls during a rollout, built in or from the user's code."""
