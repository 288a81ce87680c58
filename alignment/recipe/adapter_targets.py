"""The modules of a Qwen2 model that an adapter's settings select, as PEFT selects them, without loading the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignment.models.stored_config import stored_config
from alignment.recipe.schema import Recipe

_LINEAR = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
"""Linear layers of a block of Qwen2 (transformers 5.23, modeling_qwen2.py)."""
LINEAR = tuple(name for names in _LINEAR.values() for name in names)
"""Names of the linear layers of a block, which `target_modules: all-linear` stands for."""
_NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class BaseShape:
    """The part of a Qwen2 model's shape on which an adapter depends."""

    layers: int
    tied: bool
    """Whether the embedding is also the output layer."""
    width: int
    key_value_width: int
    """Width of keys and values, of all heads together."""
    mlp_width: int

    @cached_property
    def names(self) -> list[str]:
        """Full names of the modules that adapters can select or that can be trained as a whole."""
        names = ["model.embed_tokens", "lm_head", "model.norm"]
        for layer in range(self.layers):
            for part, linear in _LINEAR.items():
                names += [f"model.layers.{layer}.{part}.{name}" for name in linear]
            names += [f"model.layers.{layer}.{name}" for name in _NORMS]
        return names

    @cached_property
    def last_names(self) -> list[str]:
        """The last parts of the modules' names, such as `q_proj`, sorted."""
        return sorted({name.rpartition(".")[2] for name in self.names})

    def narrow_side(self, module: str) -> int:
        """Return the smaller side of the weights of a linear layer, which is their largest rank."""
        if module in ("k_proj", "v_proj"):
            return min(self.width, self.key_value_width)
        return min(self.width, self.mlp_width) if module in _LINEAR["mlp"] else self.width


def base_shape(recipe: Recipe) -> BaseShape | None:
    """Return the shape of a recipe's base model, or None if it is not a Qwen2 model on this machine."""
    config = _base_config(recipe)
    if config is None:
        return None
    try:
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        key_value_heads = int(config.get("num_key_value_heads") or heads)
        return BaseShape(
            layers=int(config["num_hidden_layers"]),
            tied=bool(config.get("tie_word_embeddings")),
            width=width,
            key_value_width=width // heads * key_value_heads,
            mlp_width=int(config["intermediate_size"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _base_config(recipe: Recipe) -> dict[str, Any] | None:
    if recipe.model.init is not None:
        return recipe.model.init.model_dump()
    config = stored_config(recipe.model.path.path()) if recipe.model.path is not None else None
    return config if config is not None and config.get("model_type") == "qwen2" else None


def name_list(value: Any) -> list[Any]:
    """Return a setting's value as a list: one number stands for a list of one, and a pattern for no names."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern fits a whole name. A pattern that is no regular expression fits none."""
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def has_module(names: Iterable[str], value: Any) -> bool:
    """Whether a name is the full name of a module, or the end of one."""
    return any(name == value or name.endswith(f".{value}") for name in names)


def adapted_modules(peft: Mapping[str, Any], shape: BaseShape) -> list[str]:
    """Return the full names of the modules that get an adapter (`check_target_module_exists` of PEFT 0.21)."""
    return list(_adapted(peft, shape))


def _adapted(peft: Mapping[str, Any], shape: BaseShape) -> Iterator[str]:
    targets = peft.get("target_modules", "all-linear")
    excluded, layers = peft.get("exclude_modules"), peft.get("layers_to_transform")
    for name in shape.names:
        if isinstance(targets, str):
            chosen = _by_text(targets, name)
        else:
            chosen = any(has_module([name], target) for target in targets or [])
        if isinstance(excluded, str):
            chosen = chosen and not matches(excluded, name)
        elif excluded:
            chosen = chosen and not any(has_module([name], other) for other in excluded)
        for saved in name_list(peft.get("modules_to_save")):
            chosen = chosen and not re.match(rf"(^|.*\.){re.escape(str(saved))}($|\..*)", name)
        if layers is not None and layers != []:
            number = re.match(r"model\.layers\.(\d+)\.", name)
            chosen = chosen and number is not None and int(number[1]) in name_list(layers)
        if chosen:
            yield name


def _by_text(targets: str, name: str) -> bool:
    """Whether `all-linear` or a pattern selects a module."""
    if targets == "all-linear":
        return name.rpartition(".")[2] in LINEAR
    return matches(targets, name)
