"""Check the settings `peft:` of a stage: the named modules exist, and the trained adapter can be merged and exported.

`alignment.recipe.trainer_fields` checks the types of the settings. `tests/stages/test_adapters.py` trains, resumes,
merges and exports a small model with every setting that these checks accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from alignment.recipe.adapter_targets import BaseShape, adapted_modules, base_shape, has_module, matches, name_list
from alignment.recipe.problems import Mistake
from alignment.recipe.schema import DpoStage, GrpoStage, KtoStage, Recipe, TrainingStage
from alignment.wording import did_you_mean

# Settings that no stage can train, merge or save, and why. They are refused with any value, since PEFT turns some
# empty values into defaults.
_REFUSED: Mapping[str, str] = {
    "layer_replication": "the model would get more layers than its base, and could not be saved as one of its kind",
    "trainable_token_indices": "PEFT can't merge single tokens into the embedding: train it with `modules_to_save`, or all weights",
    "alora_invocation_tokens": "an activated LoRA can't be merged into the weights",
    "megatron_config": "Megatron's layers are not used here",
    "megatron_core": "Megatron's layers are not used here",
    "eva_config": "EVA needs its own pass over the data, which no stage does",
    "loftq_config": "LoftQ quantizes the base, and the merged weights would not be those that were trained",
    "corda_config": "CorDA needs its own pass over the data, which no stage does",
    "lora_ga_config": "LoRA-GA needs its own pass over the data, which no stage does",
    "kasa_config": "KaSA removes parts of the base weights for good, and needs terms in the loss that no trainer adds",
    "velora_config": "its adapters hold more tensors than those of LoRA, with which resuming is not tested",
    "monteclora_config": "MonteCLoRA needs terms in the loss that no trainer adds",
    "arrow_config": "Arrow routes between several trained adapters, and a stage trains one",
    "use_bdlora": "block-diagonal LoRA is for servers that split a model over devices",
    "target_parameters": "it is for weights outside of linear layers, such as those of experts, which Qwen2 does not have: use "
    "`target_modules`",
    "runtime_config": "PEFT takes it as an object of Python, which YAML can't hold",
}
_REFUSED_IF_TRUE: Mapping[str, str] = {
    "use_qalora": "QALoRA needs a base in GPTQ form",
    "fan_in_fan_out": "Qwen2 has no layers of that form, so PEFT would ignore it",
}
_REFUSED_STARTS: Mapping[str, str] = {
    "eva": _REFUSED["eva_config"],
    "loftq": _REFUSED["loftq_config"],
    "corda": _REFUSED["corda_config"],
    "lora_ga": _REFUSED["lora_ga_config"],
}
"""Values of `init_lora_weights` that are not supported, each with the reason for the error message."""
_EMBEDDING = "model.embed_tokens"
_DECOMPOSED = ("pissa", "olora", "mica")
"""Beginnings of the values of `init_lora_weights` that decompose the base weights."""


def changes_base(peft: Mapping[str, Any] | None) -> bool:
    """Whether the adapter's start changes the base weights: PiSSA and OLoRA move a part of them into the adapter."""
    start = (peft or {}).get("init_lora_weights")
    return isinstance(start, str) and start.startswith(("pissa", "olora"))


def check_adapter(recipe: Recipe, stage: TrainingStage) -> Iterator[Mistake]:
    """Yield the mistakes in `peft:` of one stage. Places are relative to the stage."""
    peft = stage.peft
    if peft is None:
        return
    refused = [(name, reason) for name, reason in _REFUSED.items() if peft.get(name) is not None]
    refused += [(name, reason) for name, reason in _REFUSED_IF_TRUE.items() if peft.get(name) is True]
    for name, reason in refused:
        yield ("peft", name), f"{name} is not supported: {reason}. Remove it"
    if "qalora_group_size" in peft:
        yield ("peft", "qalora_group_size"), "is used only by QALoRA, which needs a base in GPTQ form: remove it"
    yield from _check_start(peft, stage)
    yield from _check_reference(peft, stage)
    if wrong := list(_wrong_types(peft)):
        yield from wrong
        return
    yield from _check_layer_choice(peft)
    shape = base_shape(recipe)
    if shape is not None:
        yield from _check_modules(peft, shape)


def _check_start(peft: Mapping[str, Any], stage: TrainingStage) -> Iterator[Mistake]:
    """Yield the mistakes in `init_lora_weights`, and settings that do not work with its value."""
    start = peft.get("init_lora_weights")
    if not isinstance(start, str):
        return
    place = ("peft", "init_lora_weights")
    if start.lower() in _REFUSED_STARTS:
        yield place, f"{start} is not supported: {_REFUSED_STARTS[start.lower()]}"
    if stage.quantization and start.startswith(_DECOMPOSED):
        yield place, f"{start} decomposes the base weights, which are rounded to 4 bits here: remove one of the two"
    if changes_base(peft) and peft.get("use_dora"):
        yield place, f"{start} changes the base weights, whose norms DoRA trains: remove one of the two"
    if changes_base(peft) and peft.get("lora_bias"):
        yield ("peft", "lora_bias"), f"does not work with init_lora_weights: {start}: remove one of the two"
    if start == "orthogonal":
        for setting, rank in _ranks(peft):
            if isinstance(rank, int) and rank % 2:
                yield ("peft", setting), f"`init_lora_weights: orthogonal` needs even ranks, not {rank}"


def _check_reference(peft: Mapping[str, Any], stage: TrainingStage) -> Iterator[Mistake]:
    """Yield settings with which the base model, which is the reference of DPO, KTO and GRPO, is no longer the base model.

    TRL computes the reference with the adapter switched off. PEFT then still uses the trained biases, and base
    weights from which PiSSA or OLoRA has subtracted a part.
    """
    grpo = isinstance(stage, GrpoStage) and bool(stage.train.get("beta", 0.0))
    if not grpo and not isinstance(stage, DpoStage | KtoStage):
        return
    way = "use another start, or `beta: 0`" if grpo else "use another start"
    if changes_base(peft):
        yield (
            ("peft", "init_lora_weights"),
            f"{peft['init_lora_weights']} changes the base weights, and the base is the reference model of this stage: {way}",
        )
    if peft.get("bias", "none") != "none":
        yield (
            ("peft", "bias"),
            "PEFT does not switch trained biases off, so the reference model would change with the training: use `bias: none`",
        )


_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "target_modules": ((str, list), "`all-linear`, a pattern or a list of names"),
    "exclude_modules": ((str, list), "a pattern or a list of names"),
    "modules_to_save": ((list,), "a list of names"),
    "rank_pattern": ((dict,), "a mapping of patterns"),
    "alpha_pattern": ((dict,), "a mapping of patterns"),
    "layers_pattern": ((str, list), "a name or a list of names"),
    "layers_to_transform": ((int, list), "a number or a list of numbers"),
}
"""Settings that name modules. Maps each setting to its allowed types, and to a description of these types for the error
message."""


def _wrong_types(peft: Mapping[str, Any]) -> Iterator[Mistake]:
    for setting, (types, text) in _TYPES.items():
        value = peft.get(setting)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            yield ("peft", setting), f"must be {text}, not {value!r}"
    for setting in ("target_modules", "exclude_modules"):
        if isinstance(pattern := peft.get(setting), str):
            try:
                re.compile(pattern)
            except re.error as error:
                yield ("peft", setting), f"{pattern!r} is not a regular expression: {error}"
    for setting, kinds, noun in (("rank_pattern", (int,), "rank"), ("alpha_pattern", (int, float), "number")):
        values = peft.get(setting)
        for name, value in values.items() if isinstance(values, dict) else ():
            if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
                yield ("peft", setting), f"{name}: must be a {noun} above 0, not {value!r}"


def _check_layer_choice(peft: Mapping[str, Any]) -> Iterator[Mistake]:
    if peft.get("layers_pattern") and peft.get("layers_to_transform") is None:
        yield ("peft", "layers_pattern"), "is used only with `layers_to_transform`: set that, or remove this"
    targets = peft.get("target_modules")
    if isinstance(targets, str) and targets != "all-linear" and peft.get("layers_to_transform") is not None:
        yield (
            ("peft", "layers_to_transform"),
            "can't be used with a pattern: name the layers in the pattern of `target_modules`, or give a list of modules",
        )


def _check_modules(peft: Mapping[str, Any], shape: BaseShape) -> Iterator[Mistake]:
    """Yield names and patterns that fit no module of the base, and modules that can't be adapted and merged."""
    yield from _check_names(peft, shape)
    adapted = adapted_modules(peft, shape)
    if not adapted:
        narrowing = [
            name for name in ("exclude_modules", "layers_to_transform") if peft.get(name) not in (None, [], "")
        ]
        setting = narrowing[0] if narrowing else "target_modules"
        yield ("peft", setting), f"no module of the model is left to adapt.{_has(shape)}"
    ends = {name.rpartition(".")[2] for name in adapted}
    if any(end.endswith("norm") for end in ends):
        yield ("peft", "target_modules"), "LoRA adapts linear layers, not norms: use `modules_to_save`"
    if shape.tied and ends & {"embed_tokens", "lm_head"}:
        yield (
            ("peft", "target_modules"),
            "embed_tokens and lm_head share one matrix in this model, so an adapter can't be merged into one of them",
        )
    elif "lm_head" in ends:
        yield (
            ("peft", "target_modules"),
            "TRL computes the loss from the weights of lm_head alone, so an adapter there would not be trained: name lm_head "
            "in `modules_to_save`",
        )
    if peft.get("lora_bias") and (without := sorted(ends - {"q_proj", "k_proj", "v_proj"})):
        yield (
            ("peft", "lora_bias"),
            f"{', '.join(without)} have no bias into which lora_bias could be merged: name only q_proj, k_proj and v_proj in "
            "`target_modules`, or remove it",
        )
    start = peft.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_DECOMPOSED):
        if "embed_tokens" in ends:
            yield (
                ("peft", "target_modules"),
                f"`init_lora_weights: {start}` decomposes linear layers, not the embedding",
            )
        narrowest = min((shape.narrow_side(end) for end in ends), default=0)
        for setting, rank in _ranks(peft):
            if narrowest and isinstance(rank, int) and rank > narrowest:
                yield (
                    ("peft", setting),
                    f"{start} has no rank above {narrowest} here, the smaller side of a layer's weights",
                )


def _check_names(peft: Mapping[str, Any], shape: BaseShape) -> Iterator[Mistake]:
    """Yield names and patterns of `peft:` that fit no module."""
    names, known = shape.names, shape.last_names
    targets = peft.get("target_modules", "all-linear")
    if isinstance(targets, str) and targets != "all-linear" and not any(matches(targets, name) for name in names):
        hint = did_you_mean(targets, ["all-linear"]) or _has(shape)
        yield ("peft", "target_modules"), f"{targets!r} is a pattern that no module of the model matches.{hint}"
    if targets == []:
        yield ("peft", "target_modules"), "is empty: name modules, or leave it out for all linear layers"
    for setting in ("target_modules", "exclude_modules", "modules_to_save"):
        for value in name_list(peft.get(setting)):
            if not has_module(names, value):
                hint = did_you_mean(str(value), known) or _has(shape)
                yield ("peft", setting), f"{setting}: the model has no module {value!r}.{hint}"
    for setting in ("rank_pattern", "alpha_pattern"):
        for pattern in peft.get(setting) or {}:
            if not any(matches(rf"(.*\.)?({str(pattern).lstrip('^')})", name) for name in names):
                yield (
                    ("peft", setting),
                    f"{setting}: no module of the model matches {pattern!r}.{did_you_mean(str(pattern), known)}",
                )
    for layer in name_list(peft.get("layers_to_transform")):
        if not isinstance(layer, int) or not 0 <= layer < shape.layers:
            yield (
                ("peft", "layers_to_transform"),
                f"the model has no layer {layer!r}, so target_modules match nothing there: it has layers 0 to "
                f"{shape.layers - 1}",
            )
    pattern = peft.get("layers_pattern")
    if pattern is not None and pattern not in ("layers", ["layers"]):
        yield ("peft", "layers_pattern"), f"the layers of the model are called `layers`, not {pattern!r}: remove it"


def _has(shape: BaseShape) -> str:
    return f" The model has {', '.join(shape.last_names)}."


def _ranks(peft: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The ranks of an adapter, each with the setting that gives it."""
    patterns = peft.get("rank_pattern")
    others = [("rank_pattern", rank) for rank in patterns.values()] if isinstance(patterns, dict) else []
    return [("r", peft.get("r", 8)), *others]


def export_refusals(peft: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why an adapter with these settings can't be exported without its base model.

    An adapter of llama.cpp consists of pairs of matrices. `align extract` writes the refused adapters as adapters of one
    rank, if they change linear layers only.
    """
    for name in ("modules_to_save", "use_dora", "lora_bias"):
        if peft.get(name):
            yield f"{name} has no form in an adapter of llama.cpp"
    if peft.get("bias", "none") != "none":
        yield "bias has no form in an adapter of llama.cpp"
    for name in ("rank_pattern", "alpha_pattern"):
        if peft.get(name):
            yield f"{name} gives layers different ranks or scales, and an adapter that is exported alone has one of each"
    start = peft.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(("pissa", "olora")):
        yield f"init_lora_weights: {start} changes the weights of the base during training"
    targets = peft.get("target_modules")
    if isinstance(targets, str):
        adapted = matches(targets, _EMBEDDING)
    else:
        adapted = any(has_module([_EMBEDDING], target) for target in name_list(targets))
    if adapted:
        yield "an adapter of embed_tokens has no form in an adapter of llama.cpp"
