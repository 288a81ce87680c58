"""Check the settings `peft:` of a stage: the named modules exist, and the trained adapter can be merged and
exported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignment.models.stored_config import stored_config
from alignment.recipe.problems import Mistake
from alignment.recipe.schema import Recipe, TrainingStage
from alignment.wording import did_you_mean

_LINEAR = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
"""Linear layers of a block of Qwen2 (transformers 5.23, modeling_qwen2.py)."""
_NORMS = ("input_layernorm", "post_attention_layernorm")
# Settings that no stage can train, merge or save, and why.
_REFUSED = {
    "layer_replication": "the model would get more layers than its base, and could not be saved as one of its kind",
    "trainable_token_indices": "PEFT can't merge single tokens into the embedding: train it with `modules_to_save`, or all weights",
    "alora_invocation_tokens": "an activated LoRA can't be merged into the weights",
    "megatron_config": "Megatron's layers are not used here",
    "eva_config": "EVA needs its own pass over the data, which no stage does",
    "loftq_config": "LoftQ quantizes the base, and the merged weights would not be those that were trained",
    "corda_config": "CorDA needs its own pass over the data, which no stage does",
}
_REFUSED_STARTS = {
    "eva": _REFUSED["eva_config"],
    "loftq": _REFUSED["loftq_config"],
    "corda": _REFUSED["corda_config"],
}
"""Values of `init_lora_weights` that are not supported, each with the reason for the error message."""


def check_adapter(recipe: Recipe, stage: TrainingStage) -> Iterator[Mistake]:
    """Yield the mistakes in `peft:` of one stage. Places are relative to the stage."""
    peft = stage.peft
    if peft is None:
        return
    for name, reason in _REFUSED.items():
        if peft.get(name):
            yield ("peft", name), f"{name} is not supported: {reason}"
    start = peft.get("init_lora_weights")
    if isinstance(start, str) and start.lower() in _REFUSED_STARTS:
        yield ("peft", "init_lora_weights"), f"{start} is not supported: {_REFUSED_STARTS[start.lower()]}"
    layers, tied = _shape(recipe)
    if layers is None:
        return
    names = list(_module_names(layers))
    yield from _check_modules(peft, names, layers, tied)


def _shape(recipe: Recipe) -> tuple[int | None, bool]:
    """Return the number of layers of the base model, and whether its embeddings are tied.

    The number is None if the base model is not on this machine, or is not a Qwen2 model.
    """
    init = recipe.model.init
    if init is not None:
        return init.num_hidden_layers, init.tie_word_embeddings
    config = stored_config(recipe.model.path.path()) if recipe.model.path is not None else None
    if config is None or config.get("model_type") != "qwen2" or not isinstance(config.get("num_hidden_layers"), int):
        return None, False
    return config["num_hidden_layers"], bool(config.get("tie_word_embeddings"))


def _module_names(layers: int) -> Iterator[str]:
    yield from ("model.embed_tokens", "lm_head", "model.norm")
    for layer in range(layers):
        for part, linear in _LINEAR.items():
            yield from (f"model.layers.{layer}.{part}.{name}" for name in linear)
        yield from (f"model.layers.{layer}.{name}" for name in _NORMS)


_MODULE_SETTINGS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "target_modules": ((str, list), "`all-linear`, a pattern or a list of names"),
    "modules_to_save": ((list,), "a list of names"),
    "rank_pattern": ((dict,), "a mapping of patterns"),
    "alpha_pattern": ((dict,), "a mapping of patterns"),
    "target_parameters": ((list,), "a list of names"),
}
"""Settings that name modules. Maps each setting to its allowed types, and to a description of these types for the error
message."""


def _check_modules(peft: dict[str, Any], names: list[str], layers: int, tied: bool) -> Iterator[Mistake]:
    """Yield the mistakes in settings that name modules. `names` are the names of all modules of the model."""
    wrong = [
        (setting, text)
        for setting, (types, text) in _MODULE_SETTINGS.items()
        if peft.get(setting) is not None and not isinstance(peft[setting], types)
    ]
    if wrong:
        yield from ((("peft", setting), f"must be {text}, not {peft[setting]!r}") for setting, text in wrong)
        return
    targets = peft.get("target_modules", "all-linear")
    known = sorted({name.rpartition(".")[2] for name in names})
    if isinstance(targets, str) and targets != "all-linear":
        if not _matched_by_pattern(targets, names):
            hint = did_you_mean(targets, ["all-linear"]) or f" The model has {', '.join(known)}."
            yield ("peft", "target_modules"), f"{targets!r} is a pattern that no module of the model matches.{hint}"
    elif isinstance(targets, list):
        if not targets:
            yield ("peft", "target_modules"), "is empty: name modules, or leave it out for all linear layers"
        yield from _unknown("target_modules", targets, names, known)
        if tied and any(str(target).endswith(("embed_tokens", "lm_head")) for target in targets):
            yield (
                ("peft", "target_modules"),
                "embed_tokens and lm_head share one matrix in this model, so an adapter can't be merged into one of them",
            )
        if any(str(target).endswith("norm") for target in targets):
            yield ("peft", "target_modules"), "LoRA adapts linear layers, not norms: use `modules_to_save`"
    yield from _unknown("modules_to_save", peft.get("modules_to_save"), names, known)
    for setting in ("rank_pattern", "alpha_pattern"):
        for pattern in peft.get(setting) or {}:
            if not _matched_by_pattern(rf"(.*\.)?({str(pattern).lstrip('^')})", names):
                yield (
                    ("peft", setting),
                    f"{setting}: no module of the model matches {pattern!r}.{did_you_mean(str(pattern), known)}",
                )
    for parameter in peft.get("target_parameters") or []:
        if not any(f"{name}.weight".endswith(str(parameter)) for name in names):
            yield ("peft", "target_parameters"), f"the model has no parameter {parameter!r}"
    chosen = peft.get("layers_to_transform")
    for layer in chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, int) else []:
        if isinstance(layer, int) and not 0 <= layer < layers:
            yield (
                ("peft", "layers_to_transform"),
                f"the model has no layer {layer}, so target_modules match nothing there: it has layers 0 to {layers - 1}",
            )


def _matched_by_pattern(pattern: str, names: Iterable[str]) -> bool:
    try:
        return any(re.fullmatch(pattern, name) for name in names)
    except re.error:
        return False


def _unknown(setting: str, values: Any, names: list[str], known: list[str]) -> Iterator[Mistake]:
    for value in values if isinstance(values, list) else []:
        if not any(name == value or name.endswith(f".{value}") for name in names):
            hint = did_you_mean(str(value), known) or f" It has {', '.join(known)}."
            yield ("peft", setting), f"{setting}: the model has no module {value!r}.{hint}"


def export_refusals(peft: dict[str, Any]) -> Iterator[str]:
    """Yield the reasons why an adapter with these settings can't be exported without its base model.

    An adapter of llama.cpp consists of pairs of matrices that all have the same rank.
    """
    for name in ("modules_to_save", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias", "target_parameters"):
        if peft.get(name):
            yield f"{name} has no form in an adapter of llama.cpp"
    if peft.get("bias", "none") != "none":
        yield "bias has no form in an adapter of llama.cpp"
    start = peft.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(("pissa", "olora")):
        yield f"init_lora_weights: {start} changes the weights of the base, which the adapter alone does not hold"
