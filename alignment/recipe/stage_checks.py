"""Check the settings of one stage, depending on its kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignment.evaluation.catalogue import BENCHMARKS, NEEDS_DATA, check_benchmark
from alignment.extensions import ExtensionReference
from alignment.models.stored_config import is_gguf
from alignment.recipe import builders, export_checks
from alignment.recipe.adapter_checks import check_adapter, export_refusals
from alignment.recipe.code_checks import check_code
from alignment.recipe.fim_checks import check_fim
from alignment.recipe.gate_checks import wrong_metric
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import (
    BenchmarkSettings,
    BuildStage,
    CustomStage,
    DpoStage,
    EvaluateStage,
    ExportStage,
    GrpoStage,
    KtoStage,
    MergeStage,
    PretrainStage,
    Recipe,
    Reward,
    SftStage,
    TrainingStage,
)
from alignment.recipe.stage_graph import BASE, StageGraph
from alignment.recipe.trainer_pairs import check_pairs
from alignment.wording import display

# TRL's default of num_generations (GRPOConfig of TRL 1.16).
_NUM_GENERATIONS = 8


def check_stage(recipe: Recipe, graph: StageGraph, index: int) -> Iterator[Mistake]:
    """Yield the mistakes of one stage. Places are relative to the stage.

    Args:
        recipe: the recipe.
        graph: the recipe's stage graph.
        index: the stage's index in `recipe.stages`.
    """
    stage = recipe.stages[index]
    if isinstance(stage, BuildStage):
        yield from builders.check_settings(stage)
    if isinstance(stage, TrainingStage):
        yield from _check_training(recipe, stage)
    if isinstance(stage, PretrainStage | SftStage | DpoStage | KtoStage | GrpoStage):
        yield from _check_shares(stage)
        yield from _check_sources(stage)
    if isinstance(stage, PretrainStage | SftStage):
        yield from check_fim(stage)
    if isinstance(stage, GrpoStage):
        yield from _check_grpo(stage)
    if isinstance(stage, EvaluateStage):
        yield from check_benchmarks(stage.benchmarks, ("benchmarks",), build_stages(recipe))
    if isinstance(stage, MergeStage):
        yield from _check_merge(recipe, stage)
    if isinstance(stage, ExportStage):
        yield from _check_export(recipe, stage, graph.stages[index].model)
    if isinstance(stage, CustomStage):
        yield from ((("run",), message) for message in check_code(stage.run, parameters=1))


def _check_training(recipe: Recipe, stage: TrainingStage) -> Iterator[Mistake]:
    train, context = stage.train, stage.context
    yield from check_pairs(stage)
    yield from check_adapter(recipe, stage)
    if stage.quantization and stage.peft is None:
        yield ("quantization",), "4-bit weights can't be trained: add `peft:` (QLoRA), or remove `quantization`"
    if context and context.original_max_position_embeddings is not None and context.yarn_factor is None:
        yield ("context", "original_max_position_embeddings"), "is used only with yarn_factor: set that, or remove this"
    if train.get("bf16") and train.get("fp16"):
        yield ("train", "fp16"), "bf16 and fp16 exclude each other: remove one of them"
    if isinstance(stage, SftStage) and train.get("packing") and train.get("packing_strategy") == "wrapped":
        yield (
            ("train", "packing_strategy"),
            "`wrapped` joins samples so that they attend to each other: use `fill`, the default",
        )
    if isinstance(stage, DpoStage) and train.get("padding_free"):
        yield ("train", "padding_free"), "TRL's DPOTrainer ignores it: remove it"
    if train.get("max_steps") == 0:
        yield ("train", "max_steps"), "0 steps train nothing: remove it, or give a positive number"


def _check_merge(recipe: Recipe, stage: MergeStage) -> Iterator[Mistake]:
    """Yield the mistakes of a merge: models that must be imported first, and the benchmark of the search."""
    inputs = [(("models", index), entry) for index, entry in enumerate(stage.models)]
    for place, entry in [*inputs, *([(("base",), stage.base)] if stage.base else [])]:
        if entry.path is None:
            continue
        if is_gguf(entry.path):
            yield (*place, "path"), "a GGUF file can't be merged: write it as a folder first, with `align import`"
        elif entry.path.exists() and not (entry.path.path() / "config.json").is_file():
            yield (*place, "path"), f"{display(entry.path.path())} is not a checkpoint: it has no config.json"
    if stage.search is not None:
        for place, message in check_benchmarks([stage.search.benchmark], (), build_stages(recipe)):
            yield ("search", "benchmark", *place[1:]), message
        metric = f"{stage.search.benchmark.name}.{stage.search.metric}"
        if message := wrong_metric(metric, [stage.search.benchmark], "the search measures"):
            yield ("search", "metric"), message


def _check_sources(stage: PretrainStage | SftStage | DpoStage | KtoStage | GrpoStage) -> Iterator[Mistake]:
    """Yield a mistake for each source that a stage names twice."""
    paths = [source.data.path() for source in stage.data]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            yield ("data", index, "data"), "is named twice: its rows would count twice; use `share` to weight sources"


def _check_shares(stage: PretrainStage | SftStage | DpoStage | KtoStage | GrpoStage) -> Iterator[Mistake]:
    shares = [source.share for source in stage.data if source.share is not None]
    if shares and isinstance(stage, DpoStage | KtoStage | GrpoStage):
        number = next(number for number, source in enumerate(stage.data) if source.share is not None)
        yield ("data", number, "share"), f"is used by pretrain and sft stages only, not by {stage.kind}: use `rows`"
    elif shares and len(shares) != len(stage.data):
        yield ("data",), "give `share` for all sources or for none"
    elif shares and abs(sum(shares) - 1) > 1e-6:
        yield ("data",), f"the shares add up to {sum(shares):g}, not to 1"


def _check_grpo(stage: GrpoStage) -> Iterator[Mistake]:
    generations = stage.train.get("num_generations", _NUM_GENERATIONS)
    size = stage.train.get("generation_batch_size")
    if isinstance(size, int) and isinstance(generations, int) and generations > 0 and size % generations:
        yield ("train", "generation_batch_size"), f"must be a multiple of num_generations ({generations})"
    if stage.rollout_engine == "cpu" and stage.train.get("use_vllm"):
        yield ("rollout_engine",), "vLLM generates with `use_vllm: true`: remove one of the two"
    if not any(reward.weight for reward in stage.rewards):
        yield ("rewards",), "all weights are 0: give at least one reward another weight"
    yield from _check_environment(stage)
    names: list[str] = []
    for index, reward in enumerate(stage.rewards):
        place: Place = ("rewards", index)
        if (reward.name is None) == (reward.path is None):
            yield place, "give either `name` (a built-in reward) or `path` (your own)"
            continue
        name = reward.path.resolved() if reward.path is not None else str(reward.name)
        if name in names:
            key = "name" if reward.path is None else "path"
            yield (*place, key), f"{reward.name or reward.path!s} is listed twice: add up the weights"
        names.append(name)
        yield from ((place + inside, message) for inside, message in _check_reward(reward))


def _check_environment(stage: GrpoStage) -> Iterator[Mistake]:
    environment = stage.environment
    if environment is None:
        for index, reward in enumerate(stage.rewards):
            if reward.name == "environment":
                yield ("rewards", index, "name"), "needs `environment:` on the stage, with a `path` to your own class"
        return
    place: Place = ("environment",)
    if (environment.name is None) == (environment.path is None):
        yield place, "give either `name` (a built-in environment) or `path` (your own)"
    if environment.path is not None:
        yield from (((*place, "path"), message) for message in check_code(environment.path, parameters=0))
    for index, reward in enumerate(stage.rewards):
        if reward.name == "environment" and environment.path is None:
            yield ("rewards", index, "name"), f"{environment.name!r} has no reward of its own: use tests_passed"
    if "visible" in environment.model_fields_set and environment.name != "tests":
        yield (*place, "visible"), "is used by the environment `tests` only: remove it"
    if environment.name == "repository":
        if stage.forgeable == "refuse":
            yield (
                ("forgeable",),
                "the tests of the environment `repository` share a process with the changed code, so a model could forge "
                "a verdict (docs/environments.md names what is done against it): accept this with `forgeable: allow`",
            )
        for index, reward in enumerate(stage.rewards):
            if reward.name in ("parses", "fenced"):
                yield ("rewards", index, "name"), f"{reward.name!r} is for programs, but the result here is a patch"
    if "max_tool_calling_iterations" in stage.train:
        yield ("train", "max_tool_calling_iterations"), "is set by `environment.turns`: remove it"
    if stage.resample:
        yield ("resample",), "can't be used with `environment:`: remove one of them"


def _check_reward(reward: Reward) -> Iterator[Mistake]:
    """Yield the mistakes in the settings of one reward. Places are relative to the reward."""
    if reward.path is not None:
        yield from ((("path",), message) for message in check_code(reward.path))
    if reward.name == "length_penalty":
        if reward.soft is None or reward.hard is None or reward.soft >= reward.hard:
            yield (), "length_penalty needs `soft` and `hard`, and `soft` must be less than `hard`"
    elif reward.soft is not None or reward.hard is not None:
        yield (), "`soft` and `hard` are settings of length_penalty: remove them"
    if reward.isolated and reward.path is None:
        yield ("isolated",), "built-in rewards need no isolation: remove it"
    if reward.timeout_seconds is not None and not reward.isolated:
        yield ("timeout_seconds",), "needs `isolated: true`: only an isolated reward can be stopped"


def build_stages(recipe: Recipe) -> list[str]:
    """Return the names of the recipe's stages with built-in builders."""
    return [stage.name for stage in recipe.stages if isinstance(stage, BuildStage) and isinstance(stage.builder, str)]


def check_benchmarks(
    benchmarks: Sequence[BenchmarkSettings], place: Place, stages: Sequence[str] = ()
) -> Iterator[Mistake]:
    """Yield the mistakes of a list of benchmarks.

    Args:
        benchmarks: the benchmarks.
        place: the place of the list.
        stages: names of the recipe's stages with built-in builders.
    """
    for index, benchmark in enumerate(benchmarks):
        here: Place = (*place, index)
        if benchmark.name in [other.name for other in benchmarks[:index]]:
            yield (*here, "name"), f"two benchmarks are called {benchmark.name!r}: rename one"
        if benchmark.n > 1 and benchmark.temperature == 0:
            yield (*here, "n"), "greedy samples are all the same: give a temperature above 0, or n: 1"
        if isinstance(benchmark.benchmark, ExtensionReference):
            yield from (((*here, "benchmark"), message) for message in check_code(benchmark.benchmark))
        else:
            is_public = benchmark.benchmark in BENCHMARKS and benchmark.benchmark not in NEEDS_DATA
            if is_public and benchmark.data is not None and benchmark.data.stage(stages):
                yield (
                    (*here, "data"),
                    f"{benchmark.benchmark!r} has rows of its own form, which no stage makes: remove it",
                )
            for key, message in check_benchmark(benchmark.benchmark, has_data=benchmark.data is not None):
                yield (*here, key), message


def _check_export(recipe: Recipe, stage: ExportStage, model: str | None) -> Iterator[Mistake]:
    yield from export_checks.check_stage(stage)
    if stage.benchmark is not None:
        for place, message in check_benchmarks([stage.benchmark], ()):
            yield ("benchmark", *place[1:]), message
    if "adapter" in stage.formats:
        trained = None if model in (None, BASE) else recipe.stage(model or "")
        if not isinstance(trained, TrainingStage) or trained.peft is None:
            yield ("formats",), f"{model!r} trains no adapter: give that stage `peft:`, or remove `adapter`"
        else:
            for message in export_refusals(trained.peft):
                yield ("formats",), f"{message}, so the adapter of {model!r} can't be exported alone: remove `adapter`"
    group = stage.quantize.group_size if stage.quantize is not None else 0
    width = recipe.model.init.hidden_size if recipe.model.init is not None else 0
    if group > 0 and width % group:
        yield (
            ("quantize", "group_size"),
            f"groups of {group} do not divide the model's rows of {width} (formats gptq and awq)",
        )
