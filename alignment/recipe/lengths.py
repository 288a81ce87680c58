"""Nothing is dropped in silence: lengths against the positions that the model holds, packing against attention that would leak.

Settings that would make a model see less than the recipe says (or more, from a neighbour in the pack) are mistakes of
the recipe, found before anything runs where the model's length is known, and when the stage starts where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from alignment.models.shapes import MAX_POSITION_EMBEDDINGS
from alignment.recipe import launch_file
from alignment.recipe.problems import Mistake
from alignment.recipe.schema import GrpoStage, Recipe, TrainingStage
from alignment.recipe.stage_graph import BASE, StageGraph


def positions_of(recipe: Recipe) -> int | None:
    """Positions that the recipe's base model holds; None where only a download could tell."""
    model = recipe.model
    if model.init is not None:
        return model.init.max_position_embeddings
    if model.path is None:
        return None
    file = model.path.path() / "config.json"
    if file.is_file():
        try:
            found = json.loads(file.read_text()).get("max_position_embeddings")
        except (OSError, ValueError, AttributeError):
            return None
        return found if isinstance(found, int) else None
    return MAX_POSITION_EMBEDDINGS if "qwen2.5-coder-" in str(model.path).lower() else None


def check(recipe: Recipe, graph: StageGraph) -> Iterator[Mistake]:
    """Every stage that asks for more positions than its model holds by then, and every layout that would leak."""
    held: dict[str, int | None] = {BASE: positions_of(recipe)}
    shared = _shared_sequences(recipe)
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, TrainingStage):
            continue
        positions = _after(held.get(graph.stages[index].model or BASE), stage)
        held[stage.name] = positions
        if positions is not None:
            yield from ((("stages", index, *path), text) for path, text in _too_long(stage, positions))
        if isinstance(stage, GrpoStage) and stage.context is not None and stage.train.get("use_vllm"):
            yield (
                ("stages", index, "context"),
                "vLLM loads the model as the stage before saved it, without these settings, and would sample from another "
                "model: stretch the context in an earlier stage, or set use_vllm: false",
            )
        if shared:
            yield from ((("stages", index, *path), text) for path, text in _sharing(stage, shared))


def _after(positions: int | None, stage: TrainingStage) -> int | None:
    """Positions after the stage's own `context:`; see `alignment.models.loading.apply_context`, which does the same."""
    context = stage.context
    if context is None or positions is None:
        return positions
    if context.max_position_embeddings is not None:
        return context.max_position_embeddings
    if context.yarn_factor is not None:
        return max(positions, int((context.original_max_position_embeddings or positions) * context.yarn_factor))
    return positions


def _too_long(stage: TrainingStage, positions: int) -> Iterator[Mistake]:
    length = stage.train.get("max_length")
    if isinstance(length, int) and length > positions:
        factor = -(-length // positions)
        yield (
            ("train", "max_length"),
            f"{length} tokens, and the model holds {positions} positions: beyond them it sees noise. Shorten it, or stretch "
            f"the model with `context: {{yarn_factor: {factor}.0}}`",
        )
    if isinstance(stage, GrpoStage) and stage.max_prompt_length is not None:
        completion = stage.train.get("max_completion_length", 256)
        if isinstance(completion, int) and stage.max_prompt_length + completion > positions:
            yield (
                ("max_prompt_length",),
                f"{stage.max_prompt_length} tokens of prompt and {completion} of completion are more than the model's {positions}",
            )
        window = stage.train.get("vllm_max_model_length")
        cut = isinstance(window, int) and isinstance(completion, int) and stage.max_prompt_length + completion > window
        if stage.train.get("use_vllm") and cut:
            yield (
                ("train", "vllm_max_model_length"),
                f"{window} tokens hold no prompt of {stage.max_prompt_length} with a completion of {completion}: vLLM "
                f"would cut completions short. Give {stage.max_prompt_length + completion}",
            )


def _shared_sequences(recipe: Recipe) -> dict[str, Any]:
    """The launch file's sequence parallelism; empty where there is none, or no file that can be read."""
    if recipe.launch is None or not recipe.launch.path().is_file():
        return {}
    try:
        parallel = launch_file.read(recipe.launch.path()).get("parallelism_config") or {}
    except ValueError:
        return {}
    return parallel if int(parallel.get("parallelism_config_sp_size", 1)) > 1 else {}


def _sharing(stage: TrainingStage, parallel: dict[str, Any]) -> Iterator[Mistake]:
    kind = stage.kind  # type: ignore[attr-defined]
    if kind in ("dpo", "grpo"):
        # TRL 1.16: GRPO makes its inputs after generation; DPO's loss is not reduced over the parts of a sequence.
        yield (
            (),
            "sequence parallelism is for pretraining and SFT (TRL's trainers of preferences and rewards don't split "
            "sequences): give this stage a recipe with another `launch:`",
        )
        return
    packed = stage.train.get("packing", kind == "pretrain")
    attention = str(parallel.get("parallelism_config_sp_attn_implementation") or "sdpa")
    if packed and "flash" not in attention:
        # DeepSpeed 0.19 drops the mask (ulysses_sp.py), and sdpa knows no sample boundaries without one.
        yield (
            ("train", "packing"),
            f"under sequence parallelism {attention} gets no mask, so packed samples would see each other: set "
            "parallelism_config_sp_attn_implementation: flash_attention_2 in the launch file, or packing: false",
        )


def check_loaded(config: Any, train: dict[str, Any]) -> None:
    """The same for a model whose length was not known before. Raises ValueError."""
    length, held = train.get("max_length"), getattr(config, "max_position_embeddings", None)
    if isinstance(length, int) and isinstance(held, int) and length > held:
        raise ValueError(
            f"max_length is {length} and the model holds {held} positions: shorten it, or add `context: {{yarn_factor: ...}}`"
        )
