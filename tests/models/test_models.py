"""Random weights, long-context settings, merging and stop tokens."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, Qwen2Config

from alignment.models import formats, loading
from alignment.models.source import Context, ModelSource, RandomInit

INIT = RandomInit(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
    max_position_embeddings=512,
    initializer_range=0.1,
)
SOURCE = ModelSource(init=INIT, dtype="float32")


def saved(folder):
    """The source of a checkpoint in float32."""
    return ModelSource(path=str(folder), dtype="float32")


@pytest.fixture
def source(tmp_path, tiny_tokenizer):
    loading.write_random(SOURCE, tiny_tokenizer, 1, tmp_path / "base")
    return saved(tmp_path / "base")


def test_random_weights_depend_only_on_the_seed(tiny_tokenizer):
    torch.manual_seed(123)
    first = loading.random_model(INIT, tiny_tokenizer, 5)
    second = loading.random_model(INIT, tiny_tokenizer, 5)
    other = loading.random_model(INIT, tiny_tokenizer, 6)
    key = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[key], second.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
    assert first.state_dict()[key].std().item() == pytest.approx(0.1, rel=0.1)


def test_a_random_model_has_a_row_for_every_token_or_more_if_configured(tiny_tokenizer):
    size = len(tiny_tokenizer)
    assert loading.random_model(INIT, tiny_tokenizer, 0).get_input_embeddings().weight.shape[0] == size
    wider = loading.random_model(INIT.model_copy(update={"vocab_size": size + 30}), tiny_tokenizer, 0)
    assert wider.get_input_embeddings().weight.shape[0] == size + 30
    narrower = loading.random_model(INIT.model_copy(update={"vocab_size": 5}), tiny_tokenizer, 0)
    assert narrower.get_input_embeddings().weight.shape[0] == size


def test_written_random_weights_load_back_bit_for_bit(tiny_tokenizer, source):
    loaded = loading.load(source, tiny_tokenizer).state_dict()
    for name, tensor in loading.random_model(INIT, tiny_tokenizer, 1).state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_a_tokenizer_larger_than_the_model_is_refused(tiny_tokenizer, source):
    tiny_tokenizer.add_tokens([f"<extra-{number}>" for number in range(5)])
    with pytest.raises(ValueError, match="only"):
        loading.load(source, tiny_tokenizer)


def test_a_tokenizer_without_code_tokens_is_refused(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0}, []))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no token"):
        loading.load_tokenizer(saved(tmp_path))


def test_a_missing_model_is_an_error_of_one_line(tmp_path, tiny_tokenizer):
    with pytest.raises(ValueError, match="no model can be loaded from"):
        loading.load(saved(tmp_path / "nowhere"), tiny_tokenizer)


@pytest.mark.parametrize("context", [None, Context(yarn_factor=2.0)])
@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("model.safetensors", lambda text: text[:1000], "deserializing header"),
        ("model.safetensors", None, "no file named model.safetensors"),
        ("config.json", lambda text: b"{", "not a valid JSON"),
        ("config.json", lambda text: text.replace(b'"qwen2"', b'"nonsense"'), "nonsense"),
        (
            "config.json",
            lambda text: text.replace(b'"hidden_size": 64', b'"hidden_size": 32'),
            "do not have the shapes",
        ),
    ],
)
def test_a_damaged_checkpoint_is_an_error_of_one_line(file, damage, message, context, tmp_path, tiny_tokenizer):
    loading.write_random(SOURCE, tiny_tokenizer, 0, tmp_path)
    text = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if damage:
        assert damage(text) != text
        (tmp_path / file).write_bytes(damage(text))
    with pytest.raises(ValueError, match=f"no model can be loaded from {tmp_path}: .*{message}"):
        loading.load_with_context(saved(tmp_path), context, tiny_tokenizer)


@pytest.mark.parametrize(
    ("template", "replaced"),
    [(formats.CHAT_TEMPLATE, False), (None, False), ("{{ messages }}", True), ("{{ raise_exception('no') }}", True)],
)
def test_a_chat_template_with_other_output_is_detected(template, replaced, tiny_tokenizer):
    tiny_tokenizer.chat_template = template
    assert loading.replaces_template(tiny_tokenizer) == replaced


def test_the_rope_base_can_be_raised_but_not_lowered():
    config = Qwen2Config(rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
    assert loading.apply_context(config, Context(rope_theta=1_000_000.0)) == ["RoPE base 10000 -> 1e+06"]
    assert config.rope_parameters["rope_theta"] == 1_000_000.0
    with pytest.raises(ValueError, match="lowering"):
        loading.apply_context(config, Context(rope_theta=500_000.0))
    assert config.rope_parameters["rope_theta"] == 1_000_000.0


def test_yarn_is_written_to_config_json_and_shapes_the_loaded_model(tmp_path, tiny_tokenizer, source):
    model, changes = loading.load_with_context(source, Context(yarn_factor=4.0), tiny_tokenizer)
    assert changes == ["YaRN factor 4 over 512 tokens"]
    plain = loading.load(source, tiny_tokenizer)
    assert not torch.equal(model.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
    loading.save(model, tiny_tokenizer, tmp_path / "long")
    stored = json.loads((tmp_path / "long" / "config.json").read_text())
    assert stored["max_position_embeddings"] == 2048
    rope = AutoConfig.from_pretrained(tmp_path / "long").rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 4.0, 512)
    again = loading.load(saved(tmp_path / "long"), tiny_tokenizer)
    assert torch.equal(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_yarn_applied_twice_stretches_the_original_length():
    config = Qwen2Config(max_position_embeddings=512)
    loading.apply_context(config, Context(yarn_factor=2.0))
    loading.apply_context(config, Context(yarn_factor=4.0))
    assert config.rope_parameters["original_max_position_embeddings"] == 512
    assert config.max_position_embeddings == 2048


def _adapter(source, tokenizer, folder, **settings):
    torch.manual_seed(0)
    model = get_peft_model(
        loading.load(source, tokenizer),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, **settings),
    )
    model.save_pretrained(folder)
    probe = torch.tensor([tokenizer.encode("def f(x): return x")])
    with torch.no_grad():
        return probe, model.eval()(input_ids=probe).logits


def test_merged_model_has_the_logits_of_model_and_adapter(tmp_path, tiny_tokenizer, source):
    probe, expected = _adapter(source, tiny_tokenizer, tmp_path / "adapter")
    merged, figures = loading.merge_adapter(source, tmp_path / "adapter", tiny_tokenizer, None)
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=probe).logits, expected, rtol=1e-4, atol=1e-4)
        plain = loading.load(source, tiny_tokenizer)(input_ids=probe).logits
    assert (plain - expected).abs().max() > 0.01, "the adapter must change the logits"
    assert 0 <= figures["merge_logit_difference"] <= loading.MERGE_TOLERANCE
    assert figures["merge_rounding"] == 0


def test_a_merge_into_bfloat16_reports_the_share_lost_to_rounding(tmp_path, tiny_tokenizer, source):
    _adapter(source, tiny_tokenizer, tmp_path / "adapter")
    rounded = source.model_copy(update={"dtype": "bfloat16"})
    merged, figures = loading.merge_adapter(rounded, tmp_path / "adapter", tiny_tokenizer, None)
    assert merged.dtype == torch.bfloat16
    assert 0 < figures["merge_rounding"] < 0.5
    assert figures["merge_logit_difference"] <= loading.MERGE_TOLERANCE


def test_a_merge_that_changes_the_model_is_refused(tmp_path, tiny_tokenizer, source, monkeypatch):
    from peft.tuners.lora import Linear

    _adapter(source, tiny_tokenizer, tmp_path / "adapter")
    right = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, adapter: right(self, adapter) * 1.5)
    with pytest.raises(ValueError, match="merging the adapter changed the model"):
        loading.merge_adapter(source, tmp_path / "adapter", tiny_tokenizer, None)


@pytest.mark.parametrize(("chat", "name"), [(False, formats.ENDOFTEXT), (True, formats.IM_END)])
def test_tokenizer_config_and_generation_config_have_the_same_stop_tokens(tiny_tokenizer, chat, name):
    model = loading.random_model(INIT, tiny_tokenizer, 0)
    loading.set_stop_tokens(model, tiny_tokenizer, chat)
    stop = formats.token_id(tiny_tokenizer, name)
    assert tiny_tokenizer.eos_token == name
    assert model.config.eos_token_id == stop
    stops = model.generation_config.eos_token_id
    assert stop == stops or stop in stops
    assert tiny_tokenizer.pad_token == formats.ENDOFTEXT, "padding with <|im_end|> would hide answers that do not end"
