"""The tiled loss has the values and gradients of the full logits, computed from learned positions only."""

import pytest
import torch
from torch.nn import functional

from alignment.stages import loss


def _case(rows, length, hidden, vocabulary, dtype=torch.float32):
    draw = torch.Generator().manual_seed(rows)
    states = torch.randn(rows, length, hidden, generator=draw).to(dtype).requires_grad_()
    head = (torch.randn(vocabulary, hidden, generator=draw) * 0.3).to(dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (rows, length), generator=draw)
    labels[torch.rand(rows, length, generator=draw) < 0.4] = loss.IGNORED
    return states, head, labels


def _full(states, head, labels):
    logits = (states @ head.t()).float()[:, :-1]
    targets = labels[:, 1:]
    learned = targets != loss.IGNORED
    logits, targets = logits[learned], targets[learned]
    chances = logits.softmax(-1)
    entropy = torch.special.entr(chances).sum()
    return functional.cross_entropy(logits, targets, reduction="sum"), entropy, (logits.argmax(-1) == targets).sum()


@pytest.mark.parametrize("shape", [(3, 40, 16, 50), (2, 700, 8, 2000), (1, 2, 8, 30)])
def test_sums_and_gradients_are_those_of_the_full_logits(shape):
    states, head, labels = _case(*shape)
    labels[:, -1] = 7
    sums, (value, entropy, correct) = loss.tiled_loss(states, head, labels), _full(states, head, labels)
    torch.testing.assert_close(sums.loss, value)
    torch.testing.assert_close(sums.entropy, entropy)
    assert sums.correct == correct
    assert sums.learned == (labels[:, 1:] != loss.IGNORED).sum()
    ours = torch.autograd.grad(sums.loss * 0.25, (states, head))
    full = torch.autograd.grad(value * 0.25, (states, head))
    for gradient, reference in zip(ours, full, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_it_is_as_close_to_float32_as_they_allow(dtype):
    states, head, labels = _case(4, 100, 32, 3000, dtype)
    sums = loss.tiled_loss(states, head, labels)
    exact = [tensor.detach().float().requires_grad_() for tensor in (states, head)]
    value, _, _ = _full(*exact, labels)
    assert sums.loss.item() == pytest.approx(value.item(), rel=5e-3)
    ours, full = torch.autograd.grad(sums.loss, (states, head)), torch.autograd.grad(value, exact)
    for gradient, reference in zip(ours, full, strict=True):
        assert gradient.dtype == dtype
        assert (gradient.float() - reference).norm() < 0.02 * reference.norm()


def test_with_autocast_gradients_have_the_type_of_the_weights():
    states, head, labels = _case(2, 60, 32, 500)
    with torch.autocast("cpu", torch.bfloat16):
        sums = loss.tiled_loss(states, head, labels)
    value, _, _ = _full(states, head, labels)
    assert sums.loss.item() == pytest.approx(value.item(), rel=5e-3)
    assert [grad.dtype for grad in torch.autograd.grad(sums.loss, (states, head))] == [torch.float32] * 2


def test_without_learned_tokens_loss_and_gradients_are_0():
    states, head, labels = _case(2, 10, 8, 30)
    sums = loss.tiled_loss(states, head, torch.full_like(labels, loss.IGNORED))
    assert sums.loss == 0 and sums.learned == 0
    assert all(not grad.any() for grad in torch.autograd.grad(sums.loss, (states, head)))


def test_a_frozen_head_gets_no_gradient():
    states, head, labels = _case(2, 30, 8, 40)
    sums = loss.tiled_loss(states, head.detach(), labels)
    value, _, _ = _full(states, head, labels)
    torch.testing.assert_close(torch.autograd.grad(sums.loss, states), torch.autograd.grad(value, states))


def test_without_gradients_none_is_computed(monkeypatch):
    states, head, labels = _case(2, 30, 8, 40)
    created = []
    monkeypatch.setattr(torch, "zeros_like", lambda *_, **__: created.append(1))
    with torch.no_grad():
        sums = loss.tiled_loss(states, head, labels)
    assert not created and not sums.loss.requires_grad


def test_a_second_backward_pass_is_an_error():
    states, head, labels = _case(1, 20, 8, 40)
    sums = loss.tiled_loss(states, head, labels)
    sums.loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        sums.loss.backward()
