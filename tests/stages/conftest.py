"""Stages' data sources without a recipe."""

import json
from types import SimpleNamespace

import pytest

from alignment.models import loading
from alignment.models.source import RandomInit


@pytest.fixture
def source(tmp_path):
    """Function that writes rows as JSONL, and returns what a stage gets for an entry of `data:` in a recipe."""

    def write(rows, name="rows.jsonl", share=None, limit=None, form=None):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SimpleNamespace(data=str(path), share=share, rows=limit, format=form)

    return write


@pytest.fixture
def model(tiny_tokenizer):
    """A model without a cache, as stages train it. With a cache, transformers would not find samples by positions."""
    init = RandomInit(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    model = loading.random_model(init, tiny_tokenizer, 0)
    model.config.use_cache = False
    return model
