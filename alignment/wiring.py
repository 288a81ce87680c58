"""What the stages of a recipe read from each other: resolved once, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment import recipe as recipes
from alignment.recipe import AnyStage, Benchmark, Recipe, Reference
from alignment.source import Key, did_you_mean, display

Mistake = tuple[tuple[Key, ...], str]
BASE = "base"


def model_before(recipe: Recipe, index: int) -> str:
    """The last stage before `index` that makes a model, or `base`."""
    for stage in reversed(recipe.stages[:index]):
        if stage.kind in recipes.MODEL_KINDS:
            return stage.name
    return BASE


def model_of(recipe: Recipe, index: int) -> str | None:
    """The stage whose model the stage at `index` starts from or reads; None where it needs none."""
    stage = recipe.stages[index]
    if isinstance(stage, recipes.BuildStage):
        from alignment.builders import needs_model

        return (stage.model or model_before(recipe, index)) if needs_model(stage.builder) else None
    return stage.model or model_before(recipe, index)


def references(stage: AnyStage) -> Iterator[tuple[tuple[Key, ...], Reference]]:
    """Every reference in a stage's settings, with its place."""
    if isinstance(stage, recipes.BuildStage):
        from alignment.builders import references as builder_references

        yield from builder_references(stage)
    for key in type(stage).model_fields:
        yield from _references(getattr(stage, key), (key,))


def _references(value: Any, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], Reference]]:
    if isinstance(value, Reference):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _references(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, (*path, index))
    elif isinstance(value, recipes.Settings):
        for key in type(value).model_fields:
            yield from _references(getattr(value, key), (*path, key))


def base_references(recipe: Recipe) -> list[tuple[tuple[Key, ...], Reference]]:
    """What the base model itself reads: a tokenizer may come from a build stage."""
    found: list[tuple[tuple[Key, ...], Reference]] = []
    for key in ("path", "tokenizer"):
        reference = getattr(recipe.model, key)
        if reference is not None:
            found.append((("model", key), reference))
    return found


def is_hub_name(reference: Reference) -> bool:
    """`owner/name` that is no folder here: a model or dataset on the hub."""
    return (
        reference.count("/") == 1 and not reference.startswith((".", "/", "~", "-")) and not reference.endswith("/")
    ) and not reference.path().exists()


def check_wiring(recipe: Recipe) -> Iterator[Mistake]:
    """Yield every reference that leads nowhere, and settings that can't be had together."""
    names = [stage.name for stage in recipe.stages]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("stages", index, "name"), f"two stages are called {name!r}: rename one"
        if name == BASE:
            yield ("stages", index, "name"), "`base` is the recipe's own model: rename the stage"
    yield from _check_base(recipe)
    for index, stage in enumerate(recipe.stages):
        here = ("stages", index)
        earlier = names[:index]
        yield from ((here + path, message) for path, message in _check_model(recipe, index))
        for path, reference in references(stage):
            yield from _check_reference(recipe, here + path, reference, earlier, names, hub=False)
        yield from ((here + path, message) for path, message in _check_stage(recipe, stage, index))
    yield from _check_benchmarks(recipe.evaluate, ("evaluate",))
    for index, benchmark in enumerate(recipe.evaluate):
        if benchmark.data is not None:
            yield from _check_reference(recipe, ("evaluate", index, "data"), benchmark.data, names, names, hub=False)
    yield from _check_gates(recipe)


def _check_base(recipe: Recipe) -> Iterator[Mistake]:
    model = recipe.model
    names = [stage.name for stage in recipe.stages]
    if (model.path is None) == (model.init is None):
        yield ("model",), "give either `path` (a checkpoint) or `init` (random weights)"
    if model.init is not None:
        if model.tokenizer is None:
            yield ("model",), "`init` needs a `tokenizer`"
        if model.revision is not None:
            yield ("model", "revision"), "has no meaning for random weights"
        if model.init.hidden_size % model.init.num_attention_heads:
            yield ("model", "init", "hidden_size"), "must be a multiple of num_attention_heads"
        if model.init.num_attention_heads % model.init.num_key_value_heads:
            yield ("model", "init", "num_attention_heads"), "must be a multiple of num_key_value_heads"
    for path, reference in base_references(recipe):
        yield from _check_reference(recipe, path, reference, names, names, hub=True)


def _check_reference(
    recipe: Recipe,
    path: tuple[Key, ...],
    reference: Reference,
    earlier: Sequence[str],
    names: Sequence[str],
    hub: bool,
) -> Iterator[Mistake]:
    stage = reference.stage(earlier)
    if stage is not None:
        if recipe.stage(stage).kind != "build" and path[-1] in ("data", "tokenizer"):
            yield path, f"stage {stage!r} makes a model, not data: name a build stage or a file"
        return
    if (later := reference.stage(names)) is not None:
        yield path, f"stage {later!r} does not come before this one: move it up, or write ./{reference} for a path"
        return
    if hub and is_hub_name(reference):
        return
    if not reference.path().exists():
        folder = reference.path().parent
        near = [*earlier, *(file.name for file in folder.glob("*"))] if folder.is_dir() else list(earlier)
        hint = did_you_mean(Path(reference).name, near) or did_you_mean(str(reference).split("/")[0], earlier)
        yield path, f"there is no file or folder {display(reference.path())}, and no earlier stage of that name.{hint}"


def _check_model(recipe: Recipe, index: int) -> Iterator[Mistake]:
    stage = recipe.stages[index]
    named = getattr(stage, "model", None)
    if named is None or named == BASE:
        return
    models = [other.name for other in recipe.stages[:index] if other.kind in recipes.MODEL_KINDS]
    names = [other.name for other in recipe.stages]
    if named in models:
        return
    if named == stage.name or named in names[index:]:
        yield ("model",), f"stage {named!r} does not come before this one"
    elif named in names:
        yield ("model",), f"stage {named!r} makes no model"
    else:
        yield ("model",), f"there is no stage {named!r}.{did_you_mean(named, [*models, BASE])}"


def _check_stage(recipe: Recipe, stage: AnyStage, index: int) -> Iterator[Mistake]:
    if isinstance(stage, recipes.BuildStage):
        from alignment.builders import check_settings

        yield from check_settings(stage)
    if isinstance(stage, recipes.TrainingStage):
        if stage.quantization and stage.peft is None:
            yield ("quantization",), "4-bit weights can't be trained: add `peft:` (QLoRA), or leave this out"
        context = stage.context
        if context and context.original_max_position_embeddings is not None and context.yarn_factor is None:
            yield ("context", "original_max_position_embeddings"), "is used only with yarn_factor"
        data = getattr(stage, "data", [])
        given = [source.share for source in data if source.share is not None]
        if given and len(given) != len(data):
            yield ("data",), "give `share` for all sources or for none"
        elif given and abs(sum(given) - 1) > 1e-6:
            yield ("data",), f"the shares add up to {sum(given):g}, not to 1"
        yield from _check_train(stage)
    if isinstance(stage, recipes.EvaluateStage):
        yield from _check_benchmarks(stage.benchmarks, ("benchmarks",))
    if isinstance(stage, recipes.ExportStage):
        yield from _check_formats(stage)


def _check_train(stage: Any) -> Iterator[Mistake]:
    train = stage.train
    if train.get("bf16") and train.get("fp16"):
        yield ("train", "fp16"), "bf16 and fp16 exclude each other"
    if stage.kind == "sft" and train.get("packing") and train.get("packing_strategy") == "wrapped":
        yield ("train", "packing_strategy"), "`wrapped` joins samples so that they see each other: use bfd or bfd_split"
    if stage.kind == "dpo" and train.get("padding_free"):
        yield ("train", "padding_free"), "TRL's DPOTrainer ignores it: leave it out"
    if train.get("max_steps") == 0:
        yield ("train", "max_steps"), "0 steps train nothing: leave it out, or give a positive number"
    if stage.kind == "grpo":
        generations = train.get("num_generations", 8)
        size = train.get("generation_batch_size")
        if isinstance(size, int) and isinstance(generations, int) and generations > 0 and size % generations:
            yield ("train", "generation_batch_size"), f"must be a multiple of num_generations ({generations})"
        for index, reward in enumerate(stage.rewards):
            if reward.name in [other.name for other in stage.rewards[:index]]:
                yield ("rewards", index, "name"), f"{reward.name!r} is listed twice: add up the weights"
            limits = (reward.soft, reward.hard)
            if reward.name == "length_penalty":
                if None in limits or not limits[0] < limits[1]:  # type: ignore[operator]
                    yield ("rewards", index), "length_penalty needs `soft` and `hard`, with soft less than hard"
            elif limits != (None, None):
                yield ("rewards", index), "`soft` and `hard` belong to length_penalty"


def _check_benchmarks(benchmarks: Sequence[Benchmark], path: tuple[Key, ...]) -> Iterator[Mistake]:
    try:
        from alignment.evaluation.catalogue import check_benchmark
    except ImportError:
        return

    for index, benchmark in enumerate(benchmarks):
        if benchmark.name in [other.name for other in benchmarks[:index]]:
            yield (*path, index, "name"), f"two benchmarks are called {benchmark.name!r}"
        if benchmark.n > 1 and benchmark.temperature == 0:
            yield (*path, index, "n"), "greedy samples are all the same: give a temperature above 0, or n: 1"
        for key, message in check_benchmark(benchmark.benchmark, has_data=benchmark.data is not None):
            yield (*path, index, key), message


def _check_formats(stage: recipes.ExportStage) -> Iterator[Mistake]:
    from alignment.export.targets import parse_targets

    for index, name in enumerate(stage.formats):
        try:
            parse_targets([name])
        except ValueError as error:
            yield ("formats", index), str(error)
    if len(set(stage.formats)) < len(stage.formats):
        yield ("formats",), "a format is listed twice"


def _check_gates(recipe: Recipe) -> Iterator[Mistake]:
    measured = [benchmark.name for benchmark in recipe.evaluate]
    for index, stage in enumerate(recipe.stages):
        many = isinstance(stage.gate, list)
        for position, gate in enumerate(stage.gates):
            here: tuple[Key, ...] = ("stages", index, "gate", *((position,) if many else ()))
            if gate.max_drop is None and gate.min_value is None:
                yield here, "give max_drop, min_value or both"
            own = [benchmark.name for benchmark in getattr(stage, "benchmarks", [])]
            trained = isinstance(stage, recipes.TrainingStage) and stage.evaluate
            known = own or (measured if trained else [])
            if gate.metric.split(".")[0] not in known:
                hint = did_you_mean(gate.metric.split(".")[0], known)
                why = "the recipe's `evaluate:` measures" if trained else "this stage measures"
                yield (*here, "metric"), f"{why} {', '.join(known) or 'nothing'}, not {gate.metric!r}.{hint}"
