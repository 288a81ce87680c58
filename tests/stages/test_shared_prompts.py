"""Log-probabilities with the prompt of a group computed once are those of the padded batch, and so are the
gradients.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignment.models import loading
from alignment.models.source import RandomInit
from alignment.stages import shared_prompts
from alignment.stages.shared_prompts import PromptGroup, pack_groups

PAD = 0
TEMPERATURE = 0.7


@pytest.fixture
def deep_model(tiny_tokenizer):
    """A model with two query heads for each key head, and with biases that are not 0."""
    init = RandomInit(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    model = loading.random_model(init, tiny_tokenizer, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


def batch(rows, width):
    """Prompts padded on the left to the longest, completions on the right to `width`; returns ids and mask."""
    longest = max(len(prompt) for prompt, _ in rows)
    ids, mask = [], []
    for prompt, completion in rows:
        left, right = longest - len(prompt), width - len(completion)
        ids.append([PAD] * left + prompt + completion + [PAD] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask)


LONG, SHORT = list(range(20, 39)), list(range(50, 55))
ROWS = [(LONG, [60, 61, 62]), (SHORT, [70]), (LONG, [60, 99, 98, 97, 96]), (SHORT, []), (LONG, [5])]


def expected(model, ids, mask, width):
    """Log-probabilities and entropies of the completions' tokens from the full logits of each row alone."""
    log_probs, entropies = torch.zeros(len(ids), width), torch.zeros(len(ids), width)
    rows = []
    for row in range(len(ids)):
        real = ids[row][mask[row].bool()]
        length = int(mask[row, -width:].sum())
        if length:
            logits = model(real[None]).logits[0, -length - 1 : -1].float() / TEMPERATURE
            values = logits.log_softmax(-1)
            rows.append((row, length, values.gather(-1, real[-length:, None])[:, 0]))
            entropies[row, :length] = -(values.exp() * values).sum(-1).detach()
    for row, length, values in rows:
        log_probs = log_probs.index_put((torch.tensor(row), torch.arange(length)), values)
    return log_probs, entropies


def gradients(model, log_probs):
    """Gradients of a sum that weighs every token differently."""
    model.zero_grad()
    (log_probs * torch.arange(1, log_probs.numel() + 1).view(log_probs.shape)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_equal_prompts_of_a_batch_are_packed_once():
    ids, mask = batch(ROWS, 5)
    packed = pack_groups(ids, mask, 5)
    assert packed.groups == (PromptGroup(19, (3, 5, 1)), PromptGroup(5, (1, 0)))
    assert packed.ids[0].tolist() == [*LONG, 60, 61, 62, 60, 99, 98, 97, 96, 5, *SHORT, 70]
    assert packed.positions[0, 19:28].tolist() == [19, 20, 21, 19, 20, 21, 22, 23, 19]
    assert packed.targets.tolist() == [60, 61, 62, 70, 60, 99, 98, 97, 96, 5]
    assert packed.sources.tolist() == [18, 19, 20, 32, 18, 22, 23, 24, 25, 18]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_log_probabilities_and_gradients_equal_those_of_the_rows_alone(deep_model, lora, checkpointing):
    model = deep_model
    if lora:
        model = get_peft_model(deep_model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:  # PEFT starts them at zero
                    parameter.normal_(std=0.1)
    ids, mask = batch(ROWS, 5)
    want, want_entropies = expected(model, ids, mask, 5)
    want_gradients = gradients(model, want)
    shared_prompts.enable(deep_model, TEMPERATURE)
    if checkpointing:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed = pack_groups(ids, mask, 5)
    values, entropies = model(packed_groups=packed)
    log_probs = torch.zeros(packed.learned.shape).masked_scatter(packed.learned, values)
    torch.testing.assert_close(log_probs, want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropies, want_entropies[packed.learned], atol=1e-4, rtol=1e-4)
    found = gradients(model, log_probs)
    assert found.keys() == want_gradients.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, want_gradients[name], atol=2e-3, rtol=1e-3, msg=name)


def test_a_batch_without_a_token_to_learn_has_gradients_of_zero(deep_model):
    shared_prompts.enable(deep_model, 1.0)
    ids, mask = batch([(LONG, []), (SHORT, [])], 2)
    values, _ = deep_model(packed_groups=pack_groups(ids, mask, 2))
    values.sum().backward()
    assert values.shape == (0,)


def test_other_calls_compute_what_they_did(deep_model):
    ids, mask = batch(ROWS[:3], 5)
    before = deep_model(ids, attention_mask=mask).logits
    continued = deep_model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    shared_prompts.enable(deep_model, 1.0)
    assert torch.equal(deep_model(ids, attention_mask=mask).logits, before)
    assert torch.equal(deep_model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False), continued)


def test_models_that_attend_otherwise_are_not_supported(deep_model):
    assert shared_prompts.supports(deep_model)
    deep_model.set_attn_implementation("eager")
    assert not shared_prompts.supports(deep_model)
