"""Rollouts of the CPU decoder: transformers' tokens and distribution, one computation of a shared prompt, adapters
included.
"""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig
from trl import GRPOConfig

from alignment.evaluation.engines.cpu_decoder import CpuDecoder
from alignment.models import loading
from alignment.models.source import RandomInit
from alignment.stages.cpu_rollouts import CpuRollouts, uses_cpu_decoder

PROMPTS = [list(range(20, 33)), list(range(20, 33)), list(range(40, 44)), list(range(40, 44)), list(range(60, 90))]
END = 7


@pytest.fixture
def base(tiny_tokenizer):
    init = RandomInit(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    return loading.random_model(init, tiny_tokenizer, 0).eval()


@pytest.fixture
def adapted(base):
    """The model with adapters of a size that changes the answers, on layers that share an input and on others."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj", "down_proj", "o_proj"],
                      lora_dropout=0.5, task_type="CAUSAL_LM")  # fmt: skip
    model = get_peft_model(base, lora)
    randomize(model)
    return model


def randomize(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)


def config(**settings):
    return GenerationConfig(
        max_new_tokens=12, do_sample=True, eos_token_id=[END], pad_token_id=0,
        **{"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0} | settings,
    )  # fmt: skip


def rollouts(model, tokenizer, step=0, prompts=PROMPTS, seed=0, cpu=None, **settings):
    torch.manual_seed(seed)
    cpu = cpu or CpuRollouts(model, tokenizer, torch.float32)
    return cpu.generate(prompts, config(**settings), step)


def by_transformers(model, prompt, **settings):
    model.eval()
    ids = torch.tensor([prompt])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config(**settings))
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("lora", [False, True])
def test_the_most_likely_tokens_equal_those_of_transformers(request, tiny_tokenizer, lora):
    model = request.getfixturevalue("adapted" if lora else "base")
    ids, log_probs = rollouts(model, tiny_tokenizer, top_k=1)
    assert ids == [by_transformers(model, prompt, top_k=1) for prompt in PROMPTS]
    assert len({tuple(row) for row in ids}) == 3
    assert all(value == 0 for row in log_probs for value in row), "nothing else could be drawn"


def test_adapters_are_added_exactly(adapted):
    """They are not merged: the logits are those of PEFT's forward pass."""
    assert CpuDecoder(adapted).layers[0].qkv.adapter.down.shape == (64, 8)
    _, logits = CpuDecoder(adapted).prefill(PROMPTS[:1], samples=1, room=1)
    adapted.eval()
    expected = adapted(torch.tensor(PROMPTS[:1])).logits[0, -1]
    with adapted.disable_adapter():
        assert not torch.allclose(adapted(torch.tensor(PROMPTS[:1])).logits[0, -1], expected, atol=0.1)
    torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_weights_are_read_again_after_a_step(request, tiny_tokenizer, lora):
    model = request.getfixturevalue("adapted" if lora else "base")
    cpu = CpuRollouts(model, tiny_tokenizer, torch.float32)
    before = rollouts(model, tiny_tokenizer, cpu=cpu, top_k=1)[0]
    if lora:
        randomize(model)
    else:
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    after = rollouts(model, tiny_tokenizer, step=1, cpu=cpu, top_k=1)[0]
    assert after == [by_transformers(model, prompt, top_k=1) for prompt in PROMPTS] != before


def test_frozen_weights_are_packed_once(adapted, tiny_tokenizer, monkeypatch):
    packed = []
    make = CpuDecoder.__init__
    monkeypatch.setattr(CpuDecoder, "__init__", lambda self, *rest: packed.append(1) or make(self, *rest))
    cpu = CpuRollouts(adapted, tiny_tokenizer, torch.float32)
    for step in range(3):
        rollouts(adapted, tiny_tokenizer, step=step, cpu=cpu)
    assert len(packed) == 1


SETTINGS = [
    {},
    {"temperature": 0.6},
    {"top_k": 5},
    {"top_p": 0.5},
    {"min_p": 0.2},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_log_probabilities_are_those_of_the_distribution_of_transformers(base, tiny_tokenizer, settings):
    ids, log_probs = rollouts(base, tiny_tokenizer, **settings)
    for prompt, tokens, values in zip(PROMPTS, ids, log_probs, strict=True):
        scores = scores_of_transformers(base, prompt, tokens, settings)
        expected = scores.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(values), expected, atol=2e-3, rtol=1e-3)


def scores_of_transformers(model, prompt, tokens, settings):
    """Return transformers' processed scores before each token, [tokens, vocabulary]."""
    rows = []
    for number in range(len(tokens)):
        ids = torch.tensor([[*prompt, *tokens[:number]]])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=one_token(settings),
            output_scores=True,
            return_dict_in_generate=True,
        )
        rows.append(output.scores[0][0])
    return torch.stack(rows)


def one_token(settings):
    result = config(**settings)
    result.max_new_tokens = 1
    return result


def test_tokens_are_drawn_as_often_as_they_are_likely(base, tiny_tokenizer):
    prompt, count = PROMPTS[2], 3000
    torch.manual_seed(1)
    limited = config(temperature=0.8, top_k=6)
    limited.max_new_tokens = 1
    ids, log_probs = CpuRollouts(base, tiny_tokenizer, torch.float32).generate([prompt] * count, limited, 0)
    likely = {row[0]: values[0] for row, values in zip(ids, log_probs, strict=True)}
    assert len(likely) == 6
    for token, value in likely.items():
        share = float(torch.tensor(value).exp())
        drawn = sum(row == [token] for row in ids)
        assert abs(drawn - count * share) < 5 * (count * share * (1 - share)) ** 0.5 + 1, (token, share, drawn)


def test_completions_end_with_the_end_token_or_at_the_limit(base, tiny_tokenizer):
    ids, log_probs = rollouts(base, tiny_tokenizer, prompts=[PROMPTS[0]] * 200)
    assert {len(row) == 12 or row[-1] == END for row in ids} == {True}
    assert any(row[-1] == END for row in ids) and all(END not in row[:-1] for row in ids)
    assert [len(row) for row in ids] == [len(row) for row in log_probs]


def test_random_numbers_come_from_torchs_generator(base, tiny_tokenizer):
    """A resumed run has the generator's state of its checkpoint, and draws the same completions."""
    first = rollouts(base, tiny_tokenizer, seed=3)
    state = torch.get_rng_state()
    cpu = CpuRollouts(base, tiny_tokenizer, torch.float32)
    second = cpu.generate(PROMPTS, config(), 0)
    torch.set_rng_state(state)
    again = CpuRollouts(base, tiny_tokenizer, torch.float32).generate(PROMPTS, config(), 0)
    assert first != second and second == again
    assert second[0][0] != second[0][1], "completions of one prompt have random numbers of their own"


def test_a_shared_prompt_is_computed_once(base, tiny_tokenizer, monkeypatch):
    computed = []
    prefill = CpuDecoder.prefill
    monkeypatch.setattr(
        CpuDecoder, "prefill", lambda self, prompts, *rest: computed.extend(prompts) or prefill(self, prompts, *rest)
    )
    rollouts(base, tiny_tokenizer)
    assert sorted(computed) == sorted({tuple(prompt): prompt for prompt in PROMPTS}.values())


def arguments(tmp_path, **settings):
    return GRPOConfig(str(tmp_path), use_cpu=True, **{"bf16": False} | settings)


def test_auto_is_the_decoder_in_bfloat16_only(base, adapted, tmp_path):
    plain = arguments(tmp_path)
    assert not uses_cpu_decoder("auto", adapted, plain)
    assert uses_cpu_decoder("cpu", adapted, plain)
    assert not uses_cpu_decoder("transformers", adapted.to(torch.bfloat16), plain)
    assert uses_cpu_decoder("auto", adapted, plain)
    assert uses_cpu_decoder("auto", base.float(), arguments(tmp_path, bf16=True))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs: num_beams"),
        ({"cache_implementation": "static"}, "cache_implementation: static"),
        ({"use_transformers_continuous_batching": True}, "use_transformers_continuous_batching"),
    ],
)
def test_settings_that_only_transformers_follows_are_left_to_it(base, tmp_path, caplog, settings, reason):
    args = arguments(tmp_path, **settings)
    with caplog.at_level(logging.INFO):
        assert not uses_cpu_decoder("auto", base.to(torch.bfloat16), args)
    assert reason in caplog.text
    with pytest.raises(ValueError, match=reason):
        uses_cpu_decoder("cpu", base, args)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True, "target_modules": ["q_proj"]}, "adapter of the kind DoraLinearVariant"),
        ({"target_modules": ["embed_tokens"]}, "adapter on model.embed_tokens"),
        ({"target_modules": ["q_proj"], "bias": "all"}, "bias is trained beside the adapter"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "is trained beside the adapter"),
    ],
)
def test_adapters_that_the_decoder_cannot_add_are_left_to_transformers(base, tmp_path, settings, reason):
    model = get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", **settings))
    with pytest.raises(ValueError, match=reason):
        uses_cpu_decoder("cpu", model, arguments(tmp_path))
