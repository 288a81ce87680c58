"""The loss of pretraining and SFT where there is no Triton: cross-entropy in tiles, with its gradients made on the way.

TRL's tiled loss is written for Triton; in plain torch it scores every position, those that nothing is learned from too, and
projects each twice. Here only what is learned is scored, and the gradients of a tile are made while its logits are there,
as Liger's fused linear cross-entropy does (arXiv 2410.10989, section 3.2). The numbers are those of the full logits.
"""

from __future__ import annotations

import functools
import types
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor

from alignment.models.formats import IGNORED
from alignment.planning.memory import OWN_LEAST_ROWS, OWN_TILE


class Found(NamedTuple):
    """Sums over the tokens that are learned, each a tensor of no dimensions."""

    loss: torch.Tensor
    """Negative log-likelihood, which gradients flow from."""
    entropy: torch.Tensor
    """Of the predicted distributions, in nats."""
    correct: torch.Tensor
    """Tokens than which none was likelier: unlike in TRL's metric, a tie counts."""
    learned: torch.Tensor
    """Tokens that are learned."""


def tiled_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> Found:
    """Cross-entropy of each position's next token.

    Args:
        hidden: [batch, length, hidden], the last layer's output.
        weight: [vocabulary, hidden], of a head without bias.
        labels: [batch, length], not shifted; -100 is not learned.
    """
    targets = labels[:, 1:]
    learned = targets != IGNORED
    rows = hidden[:, :-1][learned]
    if not torch.is_grad_enabled():  # which the function below can't ask
        rows, weight = rows.detach(), weight.detach()
    loss, entropy, correct = _Tiles.apply(rows, weight, targets[learned])
    return Found(loss, entropy, correct, learned.sum())


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> Any:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        with torch.autocast(kind, enabled=False):
            return _Tiles._forward(ctx, hidden, weight, targets, dtype)

    @staticmethod
    def _forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype
    ) -> Any:
        head = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        loss, entropy, correct = (hidden.new_zeros((), dtype=torch.float32) for _ in range(3))
        step = max(OWN_TILE // weight.shape[0], OWN_LEAST_ROWS)
        for start in range(0, hidden.shape[0], step):
            rows, target = hidden[start : start + step].to(dtype), targets[start : start + step, None]
            logits = (rows @ head.t()).float()
            logits -= logits.amax(-1, keepdim=True)
            aimed = logits.gather(-1, target)
            powers = logits.exp()
            total = powers.sum(-1, keepdim=True)
            logarithm = total.log()
            loss += (logarithm - aimed).sum()
            entropy += (logarithm - (torch.linalg.vecdot(powers, logits)[:, None] / total)).sum()
            correct += (aimed >= 0).sum()
            if grad_hidden is None and grad_weight is None:
                continue
            # The gradient is powers / total, less 1 at the target. Its division is left to the smaller products.
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
            raise RuntimeError("the gradients of this loss were made with it, for one backward pass")
        return *(
            None if found is None else found.mul_(grad).to(dtype)
            for found, dtype in zip(gradients, ctx.dtypes, strict=True)
        ), None


def takes(model: Any) -> bool:
    """Whether a model's head is what `tiled_loss` is written for: a linear layer of the Qwen2 family, without bias."""
    head = model.get_output_embeddings()
    return model.config.model_type == "qwen2" and type(head) is torch.nn.Linear and head.bias is None


def is_sharded(weight: torch.Tensor) -> bool:
    """Whether only a part of a weight is here, as under ZeRO-3 and FSDP."""
    return hasattr(weight, "ds_id") or isinstance(weight, DTensor)


def add_to(model: Any) -> None:
    """Let `model(**inputs, labels=labels, tiled=True)` return a `Found`; all else stays as it is.

    It goes through `forward`, so that what wraps the model (DDP, PEFT, autocast) takes part.
    """
    before = model.forward

    @functools.wraps(before)
    def forward(self: Any, *arguments: Any, tiled: bool = False, **more: Any) -> Any:
        if not tiled:
            return before(*arguments, **more)
        labels = more.pop("labels")
        hidden = self.base_model(*arguments, **more).last_hidden_state
        return tiled_loss(hidden, self.get_output_embeddings().weight, labels)

    model.forward = types.MethodType(forward, model)
