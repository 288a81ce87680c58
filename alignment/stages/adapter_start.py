"""Keep the initial adapter of PiSSA and OLoRA, and turn the trained adapter into an adapter of the unchanged base
model.

PiSSA and OLoRA start from matrices A0 and B0 that are not zero, and subtract s * B0 @ A0 from the base weights W,
where s is the scale of the adapter. Training thus ends with the weights W + s * (B @ A - B0 @ A0). The saved matrices
A and B alone do not give these weights: whoever loads them would have to compute exactly the same A0 and B0 again,
which the randomized decomposition of `pissa_niter_N` does not do. After training, [A; A0] and [B, -B0] are therefore
saved: a plain LoRA adapter of twice the rank, with the same effect on the unchanged base model.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignment.files import write_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""Names of the files in an adapter's folder."""


def keep_start(model: Any, file: Path, *, write: bool) -> None:
    """Save the initial adapter of a model. If a file exists from an interrupted run, set the model to that file's
    adapter.

    Args:
        model: a PEFT model that was not trained yet.
        file: the file with the initial adapter.
        write: whether this process writes the file if it does not exist.
    """
    from peft import get_peft_model_state_dict

    if file.is_file():
        restore_start(model, load_file(file))
    elif write:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        start = get_peft_model_state_dict(model, save_embedding_layers=False)
        matrices = {name: tensor.detach().cpu().contiguous() for name, tensor in start.items() if ".lora_" in name}
        save_file(matrices, temporary)
        temporary.replace(file)


@torch.no_grad()
def restore_start(model: Any, start: dict[str, Tensor]) -> None:
    """Set adapter and base weights to those with which an interrupted run began.

    Another machine may decompose the base weights differently. The checkpoint's adapter then belongs to other base
    weights than those of this model.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import gather_params_ctx

    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer) or f"{name}.lora_A.weight" not in start:
            continue
        layer: Any = module
        now = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        first = tuple(start[f"{name}.lora_{kind}.weight"].to(now[0]) for kind in "AB")
        if all(torch.equal(one, other) for one, other in zip(now, first, strict=True)):
            continue
        with gather_params_ctx(layer.get_base_layer().weight):
            weight = layer.get_base_layer().weight
            weight += (layer.scaling["default"] * (now[1] @ now[0] - first[1] @ first[0])).to(weight)
        for parameter, value in zip(now, first, strict=True):
            parameter.copy_(value)


def subtract_start(adapter: Path, file: Path) -> None:
    """Turn a trained PiSSA or OLoRA adapter into a plain LoRA adapter of the unchanged base model, in its folder.

    Args:
        adapter: folder of the trained adapter.
        file: the initial adapter, as `keep_start` saved it.
    """
    config = json.loads((adapter / CONFIG).read_text())
    start, trained = load_file(file), load_file(adapter / WEIGHTS)
    joined = {}
    for name, tensor in trained.items():
        if ".lora_A." in name:
            joined[name] = torch.cat([tensor, start[name].to(tensor)], dim=0)
        elif ".lora_B." in name:
            joined[name] = torch.cat([tensor, -start[name].to(tensor)], dim=1)
        else:
            joined[name] = tensor
    # The scale stays the same at twice the rank: it is alpha / rank, or alpha / sqrt(rank) with `use_rslora`.
    factor = math.sqrt(2) if config.get("use_rslora") else 2
    config["init_lora_weights"] = True
    config["r"] *= 2
    config["lora_alpha"] *= factor
    config["rank_pattern"] = {name: rank * 2 for name, rank in (config.get("rank_pattern") or {}).items()}
    config["alpha_pattern"] = {name: alpha * factor for name, alpha in (config.get("alpha_pattern") or {}).items()}
    save_file(joined, adapter / WEIGHTS, metadata={"format": "pt"})
    write_json(adapter / CONFIG, config)
