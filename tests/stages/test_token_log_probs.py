"""Tiled log-probabilities of a frozen output layer: values and gradients are those of the full logits and of TRL."""

import pytest
import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from alignment.stages import token_log_probs as module
from alignment.stages.token_log_probs import token_log_probs


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return torch.randn(70, 16), torch.randn(300, 16), torch.randint(0, 300, (70,)), torch.randn(70)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_equal_those_of_the_full_logits(inputs, temperature, monkeypatch):
    monkeypatch.setattr(module, "TILE_LOGITS", 300 * 16)
    monkeypatch.setattr(module, "TILE_MIN_ROWS", 16)
    hidden, weight, targets, scale = inputs
    first, second = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    log_probs, entropies = token_log_probs(first, weight, targets, temperature)
    expected = (second @ weight.t() / temperature).log_softmax(-1)
    (log_probs * scale).sum().backward()
    (expected.gather(-1, targets[:, None])[:, 0] * scale).sum().backward()
    torch.testing.assert_close(log_probs, expected.gather(-1, targets[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropies, -(expected.exp() * expected).sum(-1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(first.grad, second.grad, atol=1e-5, rtol=1e-4)
    assert not entropies.requires_grad


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_close_to_float32_as_trls_function(inputs, autocast):
    """Also for tokens that are nearly certain, whose gradient is the small difference of two numbers."""
    hidden, weight, targets, scale = inputs
    targets = torch.cat([(hidden[:35] @ weight.t()).argmax(-1), targets[35:]])
    exact = hidden.clone().requires_grad_()
    (token_log_probs(exact, weight, targets, 0.5)[0] * scale).sum().backward()
    errors = []
    for function in (ours, trl):
        rows = hidden.clone().to(torch.float32 if autocast else torch.bfloat16).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values = function(rows, weight if autocast else weight.bfloat16(), targets)
        (values * scale).sum().backward()
        errors.append(float((rows.grad.float() - exact.grad).norm() / exact.grad.norm()))
    assert errors[0] < 1.1 * errors[1] < 0.1


def ours(rows, weight, targets):
    return token_log_probs(rows, weight, targets, 0.5)[0]


def trl(rows, weight, targets):
    return ChunkedLogProbFunction.apply(rows, weight, None, targets, 0.5, 32768, None, 1.0, ("log_probs",))[0]


def test_without_gradients_none_are_computed(inputs):
    hidden, weight, targets, _ = inputs
    with torch.no_grad():
        log_probs, _ = token_log_probs(hidden.requires_grad_(), weight, targets, 1.0)
    assert not log_probs.requires_grad
