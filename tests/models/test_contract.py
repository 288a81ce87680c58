"""The contract reports every broken clause of a saved model, and nothing for a sound one."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment.models import contract, loading
from alignment.models.formats import CHAT_TEMPLATE
from alignment.models.source import RandomInit

INIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "tie_word_embeddings": True,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}


def _save(folder, tokenizer, chat=True, **init):
    model = loading.random_model(RandomInit(**{**INIT, **init}), tokenizer, 0)
    loading.set_stop_tokens(model, tokenizer, chat)
    loading.save(model, tokenizer, folder)
    return folder


@pytest.fixture
def saved(tmp_path, tiny_tokenizer):
    return _save(tmp_path / "model", tiny_tokenizer)


def _edit_weights(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def _edit_json(folder, name, **changes):
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_sound_model_passes(tmp_path, tiny_tokenizer, chat, tied):
    folder = _save(tmp_path / "model", tiny_tokenizer, chat, tie_word_embeddings=tied)
    figures = contract.check(folder, chat=chat, must_stop=False)
    assert figures["parameters"] > 0 and figures["tensors"] > 0


def _nan(tensors):
    tensors["model.norm.weight"][3] = torch.nan


def _empty(tensors):
    tensors["model.norm.weight"] = torch.zeros(0)


def _missing(tensors):
    del tensors["model.layers.0.mlp.up_proj.weight"]


def _other_head(tensors):
    tensors["lm_head.weight"] = torch.randn_like(tensors["model.embed_tokens.weight"])


def _fewer_rows(tensors):
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-4].clone()


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (_nan, "NaN"),
        (_empty, "empty tensors"),
        (_missing, "missing keys"),
        (_other_head, "tied"),
        (_fewer_rows, "embed_tokens"),
    ],
)
def test_broken_weights_are_reported(saved, change, clause):
    _edit_weights(saved, change)
    with pytest.raises(ValueError, match=clause):
        contract.check(saved, chat=True, must_stop=False)


def test_a_missing_untied_head_is_reported(tmp_path, tiny_tokenizer):
    folder = _save(tmp_path / "model", tiny_tokenizer, tie_word_embeddings=False)
    _edit_weights(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ValueError, match="lm_head"):
        contract.check(folder, chat=True, must_stop=False)


def test_fewer_embedding_rows_than_tokens_are_reported(saved, tiny_tokenizer):
    tiny_tokenizer.add_tokens([f"<extra-{number}>" for number in range(3)])
    tiny_tokenizer.save_pretrained(saved)
    with pytest.raises(ValueError, match="embedding"):
        contract.check(saved, chat=True, must_stop=False)


@pytest.mark.parametrize(
    ("file", "changes", "clause"),
    [
        ("config.json", {"eos_token_id": 0}, "config.json says"),
        ("generation_config.json", {"eos_token_id": [0]}, "generation_config.json says"),
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}, "tokenizer says"),
    ],
)
def test_every_file_with_another_end_token_is_named(saved, file, changes, clause):
    _edit_json(saved, file, **changes)
    with pytest.raises(ValueError, match=clause):
        contract.check(saved, chat=True, must_stop=False)


def test_another_chat_template_is_reported(saved):
    assert (saved / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    (saved / "chat_template.jinja").write_text(CHAT_TEMPLATE + " ")
    with pytest.raises(ValueError, match="chat template"):
        contract.check(saved, chat=True, must_stop=False)


def test_all_broken_clauses_are_reported_at_once(saved):
    _edit_weights(saved, _nan)
    _edit_json(saved, "config.json", eos_token_id=0)
    with pytest.raises(ValueError, match=r"(?s)NaN.*config\.json says"):
        contract.check(saved, chat=True, must_stop=False)


def test_a_model_that_never_stops_is_reported_only_if_it_must_stop(saved):
    # With a final norm of zero all logits are equal, and greedy decoding repeats token 0 forever.
    _edit_weights(saved, lambda tensors: tensors["model.norm.weight"].zero_())
    contract.check(saved, chat=True, must_stop=False)
    with pytest.raises(ValueError, match="no end after"):
        contract.check(saved, chat=True, must_stop=True)
