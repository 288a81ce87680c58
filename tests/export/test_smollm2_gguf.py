"""GGUF files of Llama models with SmolLM2's tokenizer: the same weights, tokens and logits as in the model folder."""

import numpy as np
import pytest
import torch
from export_models import training_text
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment.export.checkpoint import open_checkpoint
from alignment.export.exporter import export
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import get_level
from alignment.export.runtimes import LlamaCppRuntime
from alignment.export.texts import HARD_CORPUS
from alignment.models import formats, loading
from alignment.models.gguf_import import import_gguf
from alignment.models.model_family import SMOLLM2, family_of
from alignment.models.rope_layout import neighbours, split_halves


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama model with random weights, and a tokenizer with SmolLM2's split rule and added tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SMOLLM2.added_tokens]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([training_text()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SMOLLM2.begin, eos_token=SMOLLM2.end_of_turn)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    )  # fmt: skip
    torch.manual_seed(1)
    model = LlamaForCausalLM(config).float()
    model.apply(lambda layer: torch.nn.init.normal_(layer.weight, std=0.2) if hasattr(layer, "weight") else None)
    loading.set_stop_tokens(model, fast, chat=True)
    out = tmp_path_factory.mktemp("llama") / "model"
    loading.save(model, fast, out)
    return out


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    return write_gguf(open_checkpoint(folder), get_level("f32"), tmp_path_factory.mktemp("gguf") / "m.gguf").files[0]


@pytest.mark.parametrize(("rows", "heads"), [(8, 1), (16, 2), (192, 3)])
def test_the_two_orders_of_rows_undo_each_other(rows, heads):
    order = np.arange(rows)
    assert (order[neighbours(rows, heads)][split_halves(rows, heads)] == order).all()


def test_llama_cpp_pairs_the_two_halves_of_a_head():
    assert neighbours(8, 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert neighbours(8, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_import_of_an_export_is_the_same_model(folder, file, tmp_path):
    import_gguf(file, tmp_path / "copy", "float32")
    original, copy = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, tmp_path / "copy"))
    weights = copy.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in original.state_dict().items())
    first, second = (AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path / "copy"))
    assert family_of(second) is SMOLLM2
    for text in (*HARD_CORPUS, training_text()[:3000]):
        assert first(text)["input_ids"] == second(text)["input_ids"]
    assert second.chat_template == formats.training_template(first)
    assert copy.generation_config.eos_token_id == original.generation_config.eos_token_id


def test_llama_cpp_has_the_same_tokens_and_logits(folder, file):
    runtime = LlamaCppRuntime(file, 256, 1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in HARD_CORPUS:
        assert runtime.tokenize(text) == tokenizer.encode(text, add_special_tokens=False)
    ids = tokenizer.encode(training_text()[:300])[:100]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(runtime.logits(ids) - expected).max() < 1e-2 * np.abs(expected).max()


def test_formats_with_prompts_of_qwen_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"ollama:q8_0: llama models can be exported to GGUF levels only"):
        export(folder, ["ollama:q8_0"], tmp_path / "out")
