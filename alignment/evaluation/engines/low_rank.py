"""LoRA adapters beside packed weights: the products of small matrices are added, the frozen weights stay as they are.

Merging an adapter into bfloat16 weights would round most of its change away: early in training it is smaller than half of
the last bit of a weight. The products are computed in float32 here, as PEFT computes them in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Layers of a Qwen2 model that may have an adapter."""


def adapter_reason(model: Any) -> str | None:
    """Return why a model's adapter cannot be computed by `LowRank`. Returns None if it can, or if there is no adapter.

    Args:
        model: a model of transformers or PEFT.
    """
    adapted = {path: module for path, module in model.named_modules() if hasattr(module, "lora_A")}
    for path, module in adapted.items():
        name = path.removeprefix("base_model.model.")
        if path.rpartition(".")[2] not in PROJECTIONS or not isinstance(module.base_layer, torch.nn.Linear):
            return f"an adapter on {name}"
        if len(module.active_adapters) != 1 or module.merged:
            return f"several adapters, or a merged one, on {name}"
        if module.lora_variant:
            return f"an adapter of the kind {type(next(iter(module.lora_variant.values()))).__name__}"
    for path, parameter in model.named_parameters() if adapted else ():
        if parameter.requires_grad and ".lora_A." not in path and ".lora_B." not in path:
            return f"{path.removeprefix('base_model.model.')} is trained beside the adapter"
    return None


def base_layer(layer: Any) -> Any:
    """Return the linear layer without its adapter."""
    return getattr(layer, "base_layer", layer)


class LowRank:
    """The sum of the adapters' products for layers with one input, whose outputs are one behind the other.

    Shapes: I = inputs, O = outputs of all layers, R = ranks of all adapters.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        """Read the adapters of PEFT's layers. Layers without an adapter are allowed beside them."""
        self.layers = layers
        self.down = self.up = torch.empty(0)
        self.refresh()

    @classmethod
    def of(cls, layers: Sequence[Any]) -> LowRank | None:
        """Return the adapters of some layers. Returns None if no layer has one."""
        return cls(layers) if any(hasattr(layer, "lora_A") for layer in layers) else None

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the adapters' weights again, after a training step."""
        downs: list[torch.Tensor] = []
        ups: list[torch.Tensor] = []
        for layer in self.layers:
            outputs = base_layer(layer).weight.shape[0]
            if not hasattr(layer, "lora_A"):
                ups.append(torch.zeros((outputs, 0)))
                continue
            (name,) = layer.active_adapters
            downs.append(layer.lora_A[name].weight.float())
            ups.append(layer.lora_B[name].weight.float() * layer.scaling[name])
        self.down = torch.cat(downs).t().contiguous()  # (I, R)
        self.up = torch.block_diag(*ups).t().contiguous()  # (R, O)

    def add(self, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the layers' output with the adapters' products added.

        Args:
            output: (rows, O), without the adapters.
            x: (rows, I).
        """
        return torch.addmm(output.float(), x.float() @ self.down, self.up).to(output.dtype)
