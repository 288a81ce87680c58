"""What can't be had: settings that contradict each other, and what is not where a recipe says. Told before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment.extensions import ExtensionReference
from alignment.recipe import builders, lengths
from alignment.recipe.code_checks import check_code
from alignment.recipe.export_checks import check_stage
from alignment.recipe.problems import Key, Mistake
from alignment.recipe.reference_checks import check_model, check_reference
from alignment.recipe.row_kinds import check_row_kinds
from alignment.recipe.schema import (
    Benchmark,
    BuildStage,
    CustomStage,
    EvaluateStage,
    ExportStage,
    Recipe,
    TrainingStage,
)
from alignment.recipe.stage_graph import BASE, StageGraph, is_hub_name, resolve
from alignment.wording import did_you_mean, display, shown

# What lies beside the stages' links in the folder of a recipe.
_RESERVED = ("artifacts", "prepared", "ladder.json", "report.html", "check.log")


def check(recipe: Recipe) -> Iterator[Mistake]:
    """Yield every reference that leads nowhere, and settings that can't be had together."""
    names = [stage.name for stage in recipe.stages]
    graph = resolve(recipe)
    yield from _check_names(graph, names)
    yield from _check_base(recipe, graph, names)
    for index, node in enumerate(graph.stages):
        here = ("stages", index)
        yield from ((here + path, message) for path, message in check_model(recipe, index))
        for read in node.reads:
            yield from check_reference(recipe, here + read.place, read.reference, names[:index], hub=False)
        yield from ((here + path, message) for path, message in _check_stage(recipe, graph, index))
    yield from _check_evaluate(recipe, graph, names)
    yield from _check_decontamination(recipe, graph, names)
    yield from check_row_kinds(recipe, graph)
    yield from _check_gates(recipe, graph)
    yield from lengths.check(recipe, graph)


def _check_names(graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    inserted = {node.name for node in graph.inserted}
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("stages", index, "name"), f"two stages are called {name!r}: rename one"
        if name == BASE:
            yield ("stages", index, "name"), "`base` is the recipe's own model: rename the stage"
        if name in inserted:
            yield ("stages", index, "name"), f"the recipe's `evaluate:` makes a step {name!r} itself: rename the stage"
        if name in _RESERVED:
            yield ("stages", index, "name"), f"the chain keeps a file {name!r} of its own: rename the stage"


def _check_base(recipe: Recipe, graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    model = recipe.model
    if (model.path is None) == (model.init is None):
        yield ("model",), "give either `path` (a checkpoint) or `init` (random weights)"
    if model.revision is not None and (model.path is None or not is_hub_name(model.path)):
        yield ("model", "revision"), "has a meaning only for a model on the hub"
    if model.init is not None:
        heads = model.init.num_attention_heads
        if model.tokenizer is None:
            yield ("model",), "`init` needs a `tokenizer`"
        if model.init.hidden_size % (2 * heads):
            yield ("model", "init", "hidden_size"), "must be an even multiple of num_attention_heads"
        if heads % model.init.num_key_value_heads:
            yield ("model", "init", "num_attention_heads"), "must be a multiple of num_key_value_heads"
    for read in graph.base_reads:
        yield from check_reference(recipe, read.place, read.reference, names[: graph.first_use_of_base], hub=True)
    if model.path is not None and (folder := model.path.path()).exists():
        yield from _check_checkpoint(folder, model.tokenizer is None)
    if recipe.launch is not None and not recipe.launch.path().is_file():
        folder = recipe.launch.path().parent
        hint = did_you_mean(Path(recipe.launch).name, [file.name for file in folder.glob("*")])
        yield ("launch",), f"there is no file {display(recipe.launch.path())}.{hint}"
    if recipe.output.exists() and not recipe.output.path().is_dir():
        yield ("output",), f"{display(recipe.output.path())} is a file: name a folder"


def _check_checkpoint(folder: Path, with_tokenizer: bool) -> Iterator[Mistake]:
    """What is missing from a folder that is to be a base model; a stage before would take minutes to find out."""
    path = ("model", "path")
    if not folder.is_dir():
        yield path, f"{display(folder)} is a file: name the folder of a checkpoint"
        return
    if not (folder / "config.json").is_file():
        yield path, f"{display(folder)} is no checkpoint: it has no config.json"
        return
    if not any(next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin")):
        yield path, f"{display(folder)} has a config.json but no weights (*.safetensors)"
    if with_tokenizer and not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        yield path, f"{display(folder)} has no tokenizer.json: copy it there, or name another folder as `tokenizer`"


def _check_evaluate(recipe: Recipe, graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    if recipe.evaluate and graph.first_training == len(names):
        yield ("evaluate",), "measures training stages, and there is none: use a stage of kind evaluate"
        return
    yield from _check_benchmarks(recipe.evaluate, ("evaluate",))
    for index, benchmark in enumerate(recipe.evaluate):
        if benchmark.data is not None:
            earlier = names[: graph.first_training]
            yield from check_reference(
                recipe, ("evaluate", index, "data"), benchmark.data, earlier, hub=False,
                before="the first training stage",
            )  # fmt: skip


def _check_decontamination(recipe: Recipe, graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    """Whatever training data is held against must be there before the first training stage."""
    first = graph.first_training
    if recipe.decontaminate and first == len(names):
        yield ("decontaminate",), "is for training data, and no stage trains: leave it out"
        return
    for index, reference in enumerate(recipe.decontaminate):
        yield from check_reference(
            recipe, ("decontaminate", index), reference, names[:first], hub=False,
            before="the first training stage",
        )  # fmt: skip
    for index, stage in enumerate(recipe.stages):
        for position, benchmark in enumerate(stage.benchmarks if isinstance(stage, EvaluateStage) else []):
            made = benchmark.data.stage(names[:index]) if benchmark.data is not None else None
            if made in names[first:] and benchmark.allow_overlap is None:
                place: tuple[Key, ...] = ("stages", index, "benchmarks", position, "data")
                yield place, (f"stage {made!r} makes these rows after training has begun, so that training data can't be "
                              "held against them: move it up, or give `allow_overlap` with the reason")  # fmt: skip


def _check_stage(recipe: Recipe, graph: StageGraph, index: int) -> Iterator[Mistake]:
    stage = recipe.stages[index]
    if isinstance(stage, BuildStage):
        yield from builders.check_settings(stage)
    if isinstance(stage, TrainingStage):
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
    if isinstance(stage, EvaluateStage):
        yield from _check_benchmarks(stage.benchmarks, ("benchmarks",))
    if isinstance(stage, ExportStage):
        yield from _check_export(recipe, stage, graph.stages[index].model)
    if isinstance(stage, CustomStage):
        yield from ((("run",), message) for message in check_code(stage.run, parameters=1))


def _check_train(stage: Any) -> Iterator[Mistake]:
    train = stage.train
    if train.get("bf16") and train.get("fp16"):
        yield ("train", "fp16"), "bf16 and fp16 exclude each other"
    if stage.kind == "sft" and train.get("packing") and train.get("packing_strategy") == "wrapped":
        yield (
            ("train", "packing_strategy"),
            "`wrapped` joins samples so that they see each other: use fill, which is the default",
        )
    if stage.kind == "dpo" and train.get("padding_free"):
        yield ("train", "padding_free"), "TRL's DPOTrainer ignores it: leave it out"
    if train.get("max_steps") == 0:
        yield ("train", "max_steps"), "0 steps train nothing: leave it out, or give a positive number"
    if stage.kind == "grpo":
        generations = train.get("num_generations", 8)
        size = train.get("generation_batch_size")
        if isinstance(size, int) and isinstance(generations, int) and generations > 0 and size % generations:
            yield ("train", "generation_batch_size"), f"must be a multiple of num_generations ({generations})"
        if not any(reward.weight for reward in stage.rewards):
            yield ("rewards",), "all weights are 0: nothing is rewarded"
        for index, reward in enumerate(stage.rewards):
            if (reward.name is None) == (reward.path is None):
                yield ("rewards", index), "give either `name` (a built-in reward) or `path` (your own)"
                continue
            key, named = ("name", reward.name) if reward.path is None else ("path", reward.path.resolved())
            earlier = [other.name or (other.path and other.path.resolved()) for other in stage.rewards[:index]]
            if named in earlier:
                yield ("rewards", index, key), f"{reward.name or reward.path!s} is listed twice: add up the weights"
            if reward.path is not None:
                yield from ((("rewards", index, "path"), message) for message in check_code(reward.path))
            limits = (reward.soft, reward.hard)
            if reward.name == "length_penalty":
                if None in limits or not limits[0] < limits[1]:
                    yield ("rewards", index), "length_penalty needs `soft` and `hard`, with soft less than hard"
            elif limits != (None, None):
                yield ("rewards", index), "`soft` and `hard` belong to length_penalty"
            if reward.isolated and reward.path is None:
                yield ("rewards", index, "isolated"), "built-in rewards need no isolation: leave it out"
            if reward.timeout_seconds is not None and not reward.isolated:
                yield ("rewards", index, "timeout_seconds"), "needs `isolated: true`: only such a reward can be ended"


def _check_benchmarks(benchmarks: Sequence[Benchmark], path: tuple[Key, ...]) -> Iterator[Mistake]:
    from alignment.evaluation.catalogue import check_benchmark

    for index, benchmark in enumerate(benchmarks):
        if benchmark.name in [other.name for other in benchmarks[:index]]:
            yield (*path, index, "name"), f"two benchmarks are called {benchmark.name!r}"
        if benchmark.n > 1 and benchmark.temperature == 0:
            yield (*path, index, "n"), "greedy samples are all the same: give a temperature above 0, or n: 1"
        if isinstance(benchmark.benchmark, ExtensionReference):
            yield from (((*path, index, "benchmark"), message) for message in check_code(benchmark.benchmark))
            continue
        for key, message in check_benchmark(benchmark.benchmark, has_data=benchmark.data is not None):
            yield (*path, index, key), message


def _check_export(recipe: Recipe, stage: ExportStage, model: str | None) -> Iterator[Mistake]:
    yield from check_stage(stage)
    if stage.benchmark is not None:
        for path, message in _check_benchmarks([stage.benchmark], ()):
            yield ("benchmark", *path[1:]), message
    if "adapter" in stage.formats:
        source = None if model in (None, BASE) else recipe.stage(model or "")
        if not isinstance(source, TrainingStage) or source.peft is None:
            yield ("formats",), f"{model!r} trains no adapter: give it `peft:`, or leave `adapter` out"


def _check_gates(recipe: Recipe, graph: StageGraph) -> Iterator[Mistake]:
    for index, stage in enumerate(recipe.stages):
        own = isinstance(stage, EvaluateStage)
        trained = isinstance(stage, TrainingStage) and stage.evaluate
        known = _metrics(stage.benchmarks if isinstance(stage, EvaluateStage) else recipe.evaluate if trained else [])
        for position, gate in enumerate(stage.gates):
            here: tuple[Key, ...] = ("stages", index, "gate", position)
            if gate.max_drop is None and gate.min_value is None:
                yield here, "give max_drop, min_value or both"
            name, _, metric = gate.metric.partition(".")
            if name not in known:
                near = did_you_mean(name, known)
                hint = f" Did you mean '{near.split(chr(39))[1]}.{metric or 'pass@1'}'?" if near else ""
                why = "the recipe's `evaluate:` measures" if trained else "this stage measures"
                yield (*here, "metric"), f"{why} {', '.join(known) or 'nothing'}, not {shown(gate.metric)}.{hint}"
            elif not metric or (metric.startswith("pass@") and metric not in known[name]):
                choices = ", ".join(f"{name}.{possible}" for possible in known[name])
                more = " (pass@k needs n of at least k)" if metric else ""
                yield (*here, "metric"), f"is written benchmark.metric: {choices}{more}, not {shown(gate.metric)}"
            elif gate.max_drop is not None and name not in _measured_before(graph, index, own):
                what = f"{name!r} of the model before" if name else "the model before"
                yield (*here, "max_drop"), f"nothing to compare with: no step measures {what}"


def _metrics(benchmarks: Sequence[Benchmark]) -> dict[str, list[str]]:
    """The pass@k that each benchmark reports, by the benchmark's name; text scores come on top."""
    from alignment.evaluation.statistics.figures import REPORTED_K

    return {benchmark.name: [f"pass@{k}" for k in REPORTED_K if k <= benchmark.n] for benchmark in benchmarks}


def _measured_before(graph: StageGraph, index: int, own: bool) -> set[str]:
    """Names of the benchmarks that measure the model with which the gate of a stage compares.

    A gate of a training stage compares with the model that it starts from; one of an evaluation (`own`) with the model
    that the measured one was trained from.
    """
    model = graph.stages[index].model
    if own:
        model = next((node.model for node in graph.stages if node.name == model), None)
    return {
        benchmark.name
        for node in graph.before(index)
        if model is not None and node.rung == model and isinstance(node.stage, EvaluateStage)
        for benchmark in node.stage.benchmarks
    }
