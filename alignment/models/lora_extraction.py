"""Write the difference between two models as a LoRA adapter, so that a whole chain of stages can be served as one
adapter.

For every linear layer the difference of the weights is factored by a singular value decomposition, of which the largest
values are kept. If every stage of a chain trained an adapter, the sum of their ranks reproduces the chain exactly, up
to the rounding of the saved weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from alignment.models.open_tensors import open_tensors

OVERSAMPLING, ITERATIONS = 16, 4
"""Extra columns and power iterations of the randomized decomposition (Halko et al., 2011, arXiv 0909.4061, section
4)."""
SAME = 1e-6
"""Differences below this share of the largest weight count as no change: rounding of saved weights."""


@dataclass(frozen=True)
class Extraction:
    """Result of an extraction."""

    rank: int
    layers: int
    """Number of linear layers that differ, each with a pair of matrices."""
    captured: float
    """Share of the squared differences that the adapter reproduces, from 0 to 1."""
    worst_layer: str
    """The layer of which the smallest share is reproduced."""
    worst_captured: float


@torch.no_grad()
def extract_adapter(trained: Path, base: Path, out: Path, rank: int, seed: int = 0) -> Extraction:
    """Write `trained - base` as a PEFT adapter of the given rank.

    Args:
        trained: folder of the trained model.
        base: folder of the model to which the adapter will be added.
        out: folder to write, which must not exist.
        rank: rank of the adapter.
        seed: seed of the randomized decomposition.

    Raises:
        ValueError: the folders are not models of one shape, nothing differs, or something else than linear layers
            differs, which a LoRA adapter cannot hold.
    """
    if out.exists():
        raise ValueError(f"{out} exists already: choose another folder")
    tensors: dict[str, Tensor] = {}
    layers: list[str] = []
    shares: dict[str, float] = {}
    kept = total = 0.0
    with open_tensors(trained) as ours, open_tensors(base) as theirs, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _check_same(ours, theirs, trained, base)
        for name in sorted(ours):
            first, second = ours[name].get_tensor(name).float(), theirs[name].get_tensor(name).float()
            difference = first - second
            if difference.abs().max() <= SAME * second.abs().max():
                continue
            module = name.removesuffix(".weight")
            if not _is_linear(name, difference):
                raise ValueError(
                    f"{name} differs between {trained} and {base}, and a LoRA adapter holds differences of linear layers only: "
                    "serve the merged model, or train with `peft:`"
                )
            up, down = _factors(difference, rank)
            lost = (difference - up @ down).square().sum().item()
            energy = difference.square().sum().item()
            kept, total = kept + energy - lost, total + energy
            shares[module] = 1 - lost / energy
            layers.append(module)
            tensors[f"base_model.model.{module}.lora_A.weight"] = down.contiguous()
            tensors[f"base_model.model.{module}.lora_B.weight"] = up.contiguous()
    if not layers:
        raise ValueError(f"the models {trained} and {base} are equal: there is no difference to extract")
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # a scale of 1
        target_modules=sorted({layer.rpartition(".")[2] for layer in layers}),
        base_model_name_or_path=str(base),
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    out.mkdir(parents=True)
    config.save_pretrained(str(out))
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    worst = min(shares, key=lambda layer: shares[layer])
    result = Extraction(rank, len(layers), kept / total, worst, shares[worst])
    (out / "extraction.json").write_text(json.dumps(result.__dict__, indent=2) + "\n", encoding="utf-8")
    return result


def _factors(difference: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return matrices [rows, rank] and [rank, columns] whose product approximates a difference [rows, columns]."""
    smallest = min(difference.shape)
    if 2 * (rank + OVERSAMPLING) >= smallest:
        u, values, v = torch.linalg.svd(difference, full_matrices=False)
        v = v.mT
    else:
        u, values, v = torch.svd_lowrank(difference, q=rank + OVERSAMPLING, niter=ITERATIONS)
    kept = min(rank, smallest)
    root = values[:kept].sqrt()
    up, down = u[:, :kept] * root, (v[:, :kept] * root).mT
    padding = rank - kept
    if padding:  # PEFT expects `rank` columns in every layer
        up = torch.nn.functional.pad(up, (0, padding))
        down = torch.nn.functional.pad(down, (0, 0, 0, padding))
    return up, down


def _is_linear(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is the weight of a linear layer inside the network, not of the embedding or the output layer."""
    return name.endswith("_proj.weight") and tensor.dim() == 2


def _check_same(ours: dict[str, safe_open], theirs: dict[str, safe_open], trained: Path, base: Path) -> None:
    if set(ours) != set(theirs):
        name = sorted(set(ours) ^ set(theirs))[0]
        raise ValueError(f"only one of {trained} and {base} has the tensor {name}: they are models of other shapes")
    for name in ours:
        shapes = [files[name].get_slice(name).get_shape() for files in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} has the shape {shapes[0]} in {trained} and {shapes[1]} in {base}")
