"""Log-probabilities of tokens, computed tile by tile, for a frozen output layer on devices without Triton.

TRL's function computes the logits a second time in the backward pass. This function computes the gradient of each
log-probability with respect to its row of `hidden` in the forward pass, while the logits are in memory. The backward
pass then only multiplies each row by the gradient that arrives at its log-probability.

Shapes: M = tokens, D = model width, V = vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch

from alignment.planning.memory import TILE_LOGITS, TILE_MIN_ROWS


def token_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each target, through which gradients flow, and the entropy of each distribution,
    which has no gradient.

    Args:
        hidden: [M, D], outputs of the last layer.
        weight: [V, D], weight of a frozen output layer without bias.
        targets: [M]
        temperature: number by which the logits are divided.

    Returns:
        Log-probabilities, [M], and entropies, [M], in float32.
    """
    assert not weight.requires_grad, "this function has no gradient for the output layer"
    if not torch.is_grad_enabled():  # inside an autograd function gradients are always disabled: detach here
        hidden = hidden.detach()
    log_probs, entropies = _TokenLogProbs.apply(hidden, weight, targets, temperature)
    return log_probs, entropies


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float) -> Any:
        """Compute the values and, if needed, the gradient of each log-probability with respect to its row of `hidden`.

        Matrix products use the dtype of autocast if autocast is on.
        """
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            head = weight.to(dtype)
            log_probs = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
            entropies = torch.empty_like(log_probs)
            gradient = torch.empty_like(hidden, dtype=torch.float32) if ctx.needs_input_grad[0] else None
            step = max(TILE_LOGITS // weight.shape[0], TILE_MIN_ROWS)
            for start in range(0, hidden.shape[0], step):
                tile = slice(start, start + step)
                target = targets[tile, None]
                logits = (hidden[tile].to(dtype) @ head.t()).float()
                if temperature != 1:
                    logits.div_(temperature)
                logits -= logits.amax(-1, keepdim=True)
                target_logits = logits.gather(-1, target)
                powers = logits.exp()
                total = powers.sum(-1, keepdim=True)
                log_total = total.log()
                log_probs[tile] = (target_logits - log_total)[:, 0]
                entropies[tile] = log_total[:, 0] - torch.linalg.vecdot(powers, logits) / total[:, 0]
                if gradient is not None:
                    # The gradient of the logits is 1 at the target minus the probabilities.
                    powers.mul_(-1 / total).scatter_add_(-1, target, torch.ones_like(target_logits))
                    gradient[tile] = (powers.to(dtype) @ head).float().div_(temperature)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad[:, None]).to(ctx.dtype), None, None, None
