"""Tiled cross-entropy for pretraining and SFT without Triton, with gradients computed in the forward pass.

TRL's tiled loss needs Triton. TRL's plain torch version computes logits for every position, including positions whose
label is not learned, and computes them twice. This loss computes logits for learned positions only, and computes the
gradients of a tile while the tile's logits are in memory, as Liger's fused linear cross-entropy does (arXiv 2410.10989,
section 3.2). Loss and gradients equal those of a loss that keeps all logits in memory.

Shapes: B = rows of a batch, T = tokens of a row, N = learned tokens of a batch, D = model width, V = vocabulary.
"""

from __future__ import annotations

import functools
import types
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor

from alignment.models.formats import IGNORED
from alignment.planning.memory import TILE_LOGITS, TILE_MIN_ROWS


class LossSums(NamedTuple):
    """Sums over the learned tokens of a batch. Each sum is a scalar tensor."""

    loss: torch.Tensor
    """Negative log-likelihood in nats. The only sum with gradients."""
    entropy: torch.Tensor
    """Entropies of the predicted distributions, in nats."""
    correct: torch.Tensor
    """Number of tokens whose logit is the largest at their position.

    Unlike in TRL's metric, a tie counts as correct.
    """
    learned: torch.Tensor
    """N, the number of learned tokens."""


def tiled_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> LossSums:
    """Compute the cross-entropy of predicting the next token at each learned position, summed over the batch.

    Args:
        hidden: [B, T, D], output of the last layer.
        weight: [V, D], weight of an output layer without bias.
        labels: [B, T], label t is the token at position t (not shifted). Tokens with label -100 are not learned.
    """
    targets = labels[:, 1:]
    learned = targets != IGNORED
    rows = hidden[:, :-1][learned]
    if not torch.is_grad_enabled():  # inside an autograd function gradients are always disabled: detach here
        rows, weight = rows.detach(), weight.detach()
    loss, entropy, correct = _TiledLoss.apply(rows, weight, targets[learned])
    return LossSums(loss, entropy, correct, learned.sum())


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> Any:
        """Compute the sums for [N, D] hidden states and [N] targets.

        Matrix products use the dtype of autocast if autocast is on.
        """
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            return _TiledLoss._forward(ctx, hidden, weight, targets, dtype)

    @staticmethod
    def _forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype
    ) -> Any:
        head = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        loss, entropy, correct = (hidden.new_zeros((), dtype=torch.float32) for _ in range(3))
        step = max(TILE_LOGITS // weight.shape[0], TILE_MIN_ROWS)
        for start in range(0, hidden.shape[0], step):
            rows, target = hidden[start : start + step].to(dtype), targets[start : start + step, None]
            logits = (rows @ head.t()).float()
            logits -= logits.amax(-1, keepdim=True)
            target_logits = logits.gather(-1, target)
            powers = logits.exp()
            total = powers.sum(-1, keepdim=True)
            log_total = total.log()
            loss += (log_total - target_logits).sum()
            entropy += (log_total - (torch.linalg.vecdot(powers, logits)[:, None] / total)).sum()
            correct += (target_logits >= 0).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            # The gradient of the logits is powers / total, minus 1 at the target. Dividing the [rows, D] products by
            # the total is cheaper than dividing the [rows, V] powers.
            powers.scatter_add_(-1, target, -total)
            share = 1 / total
            if dtype != torch.float32:
                powers, share = powers.mul_(share).to(dtype), torch.ones_like(share)
            if grad_hidden is not None:
                grad_hidden[start : start + step] = (powers @ head).float().mul_(share)
            if grad_weight is not None:
                grad_weight.addmm_(powers.t().float(), rows.float() * share)
        ctx.gradients = grad_hidden, grad_weight
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.mark_non_differentiable(entropy, correct)
        return loss, entropy, correct

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "backward() was called twice: this loss computes its gradients in the forward pass and frees them "
                "after one backward pass. Compute the loss again"
            )
        return *(
            None if gradient is None else gradient.mul_(grad).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ), None


def supports(model: Any) -> bool:
    """Whether `tiled_loss` can be used with a model: a Qwen2 model whose output layer is linear and has no bias."""
    head = model.get_output_embeddings()
    return model.config.model_type == "qwen2" and type(head) is torch.nn.Linear and head.bias is None


def is_sharded(weight: torch.Tensor) -> bool:
    """Whether this process holds only a part of a weight, as under ZeRO-3 and FSDP."""
    return hasattr(weight, "ds_id") or isinstance(weight, DTensor)


def add_tiled_forward(model: Any) -> None:
    """Make `model(**inputs, labels=labels, tiled=True)` return `LossSums`. Calls without `tiled` are unchanged.

    The loss is computed inside `forward`, so that wrappers of the model (DDP, PEFT, autocast) apply to the loss too.
    """
    original = model.forward

    @functools.wraps(original)
    def forward(self: Any, *arguments: Any, tiled: bool = False, **more: Any) -> Any:
        if not tiled:
            return original(*arguments, **more)
        labels = more.pop("labels")
        hidden = self.base_model(*arguments, **more).last_hidden_state
        return tiled_loss(hidden, self.get_output_embeddings().weight, labels)

    model.forward = types.MethodType(forward, model)
