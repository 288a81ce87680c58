"""The rewards of GRPO."""
