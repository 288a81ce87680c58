"""Names of TRL's config classes. This module imports nothing, so that programs that need only the names start quickly."""

from __future__ import annotations

CONFIGS = {"pretrain": "SFTConfig", "sft": "SFTConfig", "dpo": "DPOConfig", "kto": "KTOConfig", "grpo": "GRPOConfig"}
"""TRL's config class for each kind of stage that trains."""
