"""Fixtures: a tiny random Qwen2 with a byte-level tokenizer, and a writer of benchmark rows."""

import copy
import json

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A checkpoint folder: one layer, 64 wide, ChatML template, FIM tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from alignment.models import formats

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=formats.IM_END, pad_token=formats.ENDOFTEXT)
    tokenizer.add_special_tokens({"additional_special_tokens": [formats.IM_START]})
    tokenizer.add_tokens([token for token, special in formats.ADDED_TOKENS if not special])
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=288,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.convert_tokens_to_ids(formats.IM_END),
            initializer_range=0.3,
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in (formats.IM_END, formats.ENDOFTEXT)]
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_tokenizer(real_tokenizer):
    """The real tokenizer with the template of its instruct models."""
    from alignment.models import formats

    tokenizer = copy.copy(real_tokenizer)
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def write_rows(tmp_path):
    """A function that writes rows as JSONL and returns the path."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
