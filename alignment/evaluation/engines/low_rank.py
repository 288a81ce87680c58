"""Apply LoRA adapters to layers with packed weights, by adding the adapters' products to the outputs.

The packed weights do not change.

Merging an adapter into bfloat16 weights would round most of the adapter away: early in training, it changes a weight
by less than half of the last bit. The products are computed in float32 here, as PEFT computes them in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the layers of a Qwen2 model that may have an adapter."""


def adapter_reason(model: Any) -> str | None:
    """Return the reason why `LowRank` can't compute a model's adapter. None if it can, or if the model has no adapter.

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
    """Adapters of several layers with the same input. The outputs of the layers are concatenated.

    Shapes: I = inputs, O = outputs of all layers, R = ranks of all adapters.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        """Read the adapters of PEFT's layers. Some of the layers may lack an adapter."""
        self.layers = layers
        self.down = self.up = torch.empty(0)
        self.refresh()

    @classmethod
    def of(cls, layers: Sequence[Any]) -> LowRank | None:
        """Return the adapters of these layers, or None if no layer has an adapter."""
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
            output: output without the adapters. Shape: (rows, O).
            x: input of the layers. Shape: (rows, I).
        """
        return torch.addmm(output.float(), x.float() @ self.down, self.up).to(output.dtype)
