"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ALIGN_DATA_DIR", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Public benchmarks and the real tokenizer, where the developer has them."""
    if not DATA.is_dir():
        pytest.skip(f"no reference data at {DATA}: set ALIGN_DATA_DIR to its folder")
    return DATA


@pytest.fixture(scope="session")
def real_tokenizer(data_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data_dir / "qwen2.5-coder-tokenizer")
