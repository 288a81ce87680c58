"""Check sequence lengths: they do not exceed the model's positions, and packed samples do not attend to each other.

If the model's number of positions is known, the checks run before the first stage. Otherwise `check_loaded` runs when a
stage has loaded its model. Rows are never truncated or dropped without being counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignment.models.shapes import MAX_POSITION_EMBEDDINGS
from alignment.models.stored_config import stored_config
from alignment.recipe import launch_file
from alignment.recipe.problems import Mistake
from alignment.recipe.schema import (
    BuildStage,
    DpoStage,
    EvaluateStage,
    GrpoStage,
    KtoStage,
    PretrainStage,
    Recipe,
    TrainingStage,
)
from alignment.recipe.stage_graph import BASE, StageGraph

# TRL's default of max_completion_length (GRPOConfig of TRL 1.16).
_MAX_COMPLETION_LENGTH = 256


def positions_of(recipe: Recipe) -> int | None:
    """Return the number of positions of the recipe's base model, or None if the model would have to be downloaded to
    find the number.
    """
    model = recipe.model
    if model.init is not None:
        return model.init.max_position_embeddings
    if model.path is None:
        return None
    config = stored_config(model.path.path())
    if config is not None:
        positions = config.get("max_position_embeddings")
        return positions if isinstance(positions, int) else None
    return MAX_POSITION_EMBEDDINGS if "qwen2.5-coder-" in str(model.path).lower() else None


def check_lengths(recipe: Recipe, graph: StageGraph) -> Iterator[Mistake]:
    """Yield the mistakes of all training stages: too many tokens for the model, or a layout that mixes samples."""
    positions: dict[str, int | None] = {BASE: positions_of(recipe)}
    parallel = _sequence_parallelism(recipe)
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, TrainingStage):
            continue
        available = _positions_after(positions.get(graph.stages[index].model or BASE), stage)
        positions[stage.name] = available
        mistakes = [] if available is None else [*_too_long(stage, available)]
        mistakes += _context_without_effect(stage)
        mistakes += _check_parallel(stage, parallel) if parallel else []
        yield from ((("stages", index, *place), message) for place, message in mistakes)
    yield from _check_generation(recipe, graph, positions)


def _check_generation(recipe: Recipe, graph: StageGraph, positions: Mapping[str, int | None]) -> Iterator[Mistake]:
    """Yield a mistake for each benchmark or builder that generates more tokens than its model has positions."""
    for index, node in enumerate(graph.stages):
        available = positions.get(node.model or BASE)
        if isinstance(node.stage, EvaluateStage):
            for number, benchmark in enumerate(node.stage.benchmarks):
                if message := _too_many(benchmark.max_new_tokens, available):
                    yield ("stages", index, "benchmarks", number, "max_new_tokens"), message
        tokens = node.stage.settings.get("max_new_tokens") if isinstance(node.stage, BuildStage) else None
        if message := _too_many(tokens, available):
            yield ("stages", index, "settings", "max_new_tokens"), message
    for number, benchmark in enumerate(recipe.evaluate):
        if message := _too_many(benchmark.max_new_tokens, positions[BASE]):
            yield ("evaluate", number, "max_new_tokens"), message


def _too_many(tokens: Any, positions: int | None) -> str:
    if not isinstance(tokens, int) or positions is None or tokens < positions:
        return ""
    return f"{tokens} new tokens leave no prompt in the model's {positions} positions: reduce it"


def _positions_after(positions: int | None, stage: TrainingStage) -> int | None:
    """Return the number of positions that the model has after the stage's `context:` is applied.

    The result must agree with `alignment.models.loading.apply_context`.
    """
    context = stage.context
    if context is None or positions is None:
        return positions
    if context.max_position_embeddings is not None:
        return context.max_position_embeddings
    if context.yarn_factor is not None:
        return max(positions, int((context.original_max_position_embeddings or positions) * context.yarn_factor))
    return positions


def _too_long(stage: TrainingStage, positions: int) -> Iterator[Mistake]:
    """Yield the settings that need more positions than the model has. Places are relative to the stage."""
    length = stage.train.get("max_length")
    if isinstance(length, int) and length > positions:
        factor = -(-length // positions)
        yield (
            ("train", "max_length"),
            f"{length} tokens are more than the model's {positions} positions: reduce it, or extend the model with "
            f"`context: {{yarn_factor: {factor}.0}}`",
        )
    completion = stage.train.get("max_completion_length", _MAX_COMPLETION_LENGTH)
    if isinstance(stage, GrpoStage) and isinstance(completion, int) and completion >= positions:
        yield (
            ("train", "max_completion_length"),
            f"{completion} tokens of completion leave no prompt in the model's {positions} positions: reduce it",
        )
        return
    if not isinstance(stage, GrpoStage) or stage.max_prompt_length is None or not isinstance(completion, int):
        return
    total = stage.max_prompt_length + completion
    if total > positions:
        yield (
            ("max_prompt_length",),
            f"{stage.max_prompt_length} tokens of prompt and {completion} of completion are more than the model's "
            f"{positions} positions: reduce one of them",
        )
    window = stage.train.get("vllm_max_model_length")
    if stage.train.get("use_vllm") and isinstance(window, int) and total > window:
        yield (
            ("train", "vllm_max_model_length"),
            f"{window} tokens are fewer than {stage.max_prompt_length} of prompt and {completion} of completion, so vLLM "
            f"would cut completions short: set it to {total}",
        )


def _context_without_effect(stage: TrainingStage) -> Iterator[Mistake]:
    if isinstance(stage, GrpoStage) and stage.context is not None and stage.train.get("use_vllm"):
        yield (
            ("context",),
            "vLLM loads the model as the earlier stage saved it, without these settings, and would sample from a different "
            "model: set `context` in an earlier stage, or use_vllm: false",
        )


def _sequence_parallelism(recipe: Recipe) -> Mapping[str, Any]:
    """Return the launch file's `parallelism_config` if it splits sequences between devices, else an empty mapping."""
    if recipe.launch is None or not recipe.launch.path().is_file():
        return {}
    try:
        parallel = launch_file.read(recipe.launch.path()).get("parallelism_config") or {}
    except ValueError:
        return {}
    return parallel if int(parallel.get("parallelism_config_sp_size", 1)) > 1 else {}


def _check_parallel(stage: TrainingStage, parallel: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield mistakes of a stage that arise from sequence parallelism. Places are relative to the stage."""
    if isinstance(stage, DpoStage | KtoStage | GrpoStage):
        # TRL 1.16: GRPO builds its inputs after generation; DPO's loss is not reduced over the parts of a sequence.
        yield (
            (),
            f"sequence parallelism works for pretrain and sft only, and TRL's trainer for {stage.kind} does not split "
            "sequences: put this stage into a recipe with another `launch:`",
        )
        return
    packed = stage.train.get("packing", isinstance(stage, PretrainStage))
    attention = str(parallel.get("parallelism_config_sp_attn_implementation") or "sdpa")
    if packed and "flash" not in attention:
        # DeepSpeed 0.19 drops the mask (ulysses_sp.py), and sdpa needs one to separate samples.
        yield (
            ("train", "packing"),
            f"with sequence parallelism, {attention} gets no mask, so packed samples would attend to each other: set "
            "parallelism_config_sp_attn_implementation: flash_attention_2 in the launch file, or packing: false",
        )


def check_loaded(config: Any, train: Mapping[str, Any]) -> None:
    """Compare `max_length` with the config of a loaded model, whose number of positions may not have been known before.

    Raises:
        ValueError: the model has fewer positions than `max_length`.
    """
    length, positions = train.get("max_length"), getattr(config, "max_position_embeddings", None)
    if isinstance(length, int) and isinstance(positions, int) and length > positions:
        raise ValueError(
            f"max_length is {length} and the model has {positions} positions: reduce it, or add "
            "`context: {yarn_factor: ...}` to the stage"
        )
