"""Merge the weights of several models of one shape, tensor by tensor.

The arithmetic of task vectors, TIES and DARE is PEFT's (`peft.utils.merge_utils`). Only the first model is in memory
completely; the tensors of the other models are read one at a time. Merging computes in float32, and the result is saved
in the type of the first model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from peft.utils import merge_utils
from safetensors import safe_open
from torch import Tensor

from alignment.models.merge_methods import TASK_VECTOR_METHODS, MergeMethod
from alignment.models.open_tensors import open_tensors

COLLINEAR = 0.9995
"""Two tensors with at least this cosine are interpolated linearly: spherical interpolation divides by the sine of the
angle between the tensors, which is close to 0 for parallel tensors."""


def merge_tensors(
    method: MergeMethod, tensors: Sequence[Tensor], weights: Sequence[float], base: Tensor | None, density: float
) -> Tensor:
    """Merge the tensors that have the same name in several models.

    Args:
        method: the arithmetic; see `alignment.recipe.MergeStage.method`.
        tensors: one float32 tensor for each model, all of one shape.
        weights: one weight for each model.
        base: the base model's tensor, from which differences are taken. None for `linear` and `slerp`.
        density: share of each difference that `ties` and the `dare` methods keep.
    """
    if method == "slerp":
        return _slerp(tensors[0], tensors[1], weights[1] / sum(weights))
    if method == "linear":
        total = sum(weights)
        scaled: Tensor = merge_utils.task_arithmetic(
            list(tensors), torch.tensor([weight / total for weight in weights])
        )
        return scaled
    assert base is not None
    differences = [tensor - base for tensor in tensors]
    factors = torch.tensor(list(weights), dtype=torch.float32)
    if method == "task_arithmetic":
        change: Tensor = merge_utils.task_arithmetic(differences, factors)
    else:
        change = getattr(merge_utils, method)(differences, factors, density)
    return base + change


def _slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Interpolate between two tensors along the arc between their directions.

    sin((1 - t) a) / sin(a) * first + sin(t a) / sin(a) * second, where a is the angle between the flattened tensors and
    t is `share` (Shoemake, Animating rotation with quaternion curves, 1985).
    """
    lengths = first.norm() * second.norm()
    cosine = torch.dot(first.flatten(), second.flatten()) / lengths.clamp(min=torch.finfo(torch.float32).tiny)
    if lengths == 0 or abs(cosine) > COLLINEAR:
        return (1 - share) * first + share * second
    angle = torch.arccos(cosine)
    weights = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (weights[0] * first + weights[1] * second) / torch.sin(angle)


@torch.no_grad()
def merge_into(
    model: Any,
    folders: Sequence[Path],
    weights: Sequence[float],
    *,
    method: MergeMethod,
    base: Path | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> None:
    """Replace the weights of a loaded model by the merge of several checkpoints.

    Args:
        model: a transformers model of the right shape, for example the first of the checkpoints.
        folders: folders of the checkpoints.
        weights: one weight for each checkpoint.
        method: the arithmetic; see `alignment.recipe.MergeStage.method`.
        base: folder of the base model, for methods that use differences from it.
        density: share of each difference that `ties` and the `dare` methods keep.
        seed: seed of the random choice in the `dare` methods.

    Raises:
        ValueError: the checkpoints do not have the same tensors, or a file is damaged.
    """
    assert (base is not None) == (method in TASK_VECTOR_METHODS)
    parameters = dict(model.named_parameters())
    with ExitStack() as stack, torch.random.fork_rng(devices=[]):
        opened = []
        for folder in (*folders, *([base] if base else [])):
            opened.append(stack.enter_context(open_tensors(folder)))
            _check_tensors(opened[-1], parameters, folder)
        torch.manual_seed(seed)
        for name, parameter in parameters.items():
            tensors = [files[name].get_tensor(name).float() for files in opened]
            of_base = tensors.pop() if base is not None else None
            parameter.copy_(merge_tensors(method, tensors, weights, of_base, density).to(parameter.dtype))


def _check_tensors(files: Mapping[str, safe_open], parameters: Mapping[str, Any], folder: Path) -> None:
    """Check the tensors of a checkpoint against the parameters of the first model.

    Raises:
        ValueError: names or shapes differ.
    """
    # Some checkpoints store the output layer although it is tied to the embedding.
    stored_names = {name for name in files if name in parameters or name != "lm_head.weight"}
    for name in sorted(stored_names ^ set(parameters)):
        where = f"{folder} has a tensor" if name in stored_names else f"{folder} lacks the tensor"
        raise ValueError(f"{where} {name}, unlike the first model: only models of the same architecture can be merged")
    for name, parameter in parameters.items():
        shape = list(files[name].get_slice(name).get_shape())
        if shape != list(parameter.shape):
            raise ValueError(
                f"{name} has the shape {shape} in {folder} and {list(parameter.shape)} in the first model: "
                "only models of the same size can be merged"
            )
