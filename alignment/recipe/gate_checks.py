"""Check the gates of a recipe: a gate's metric must be measured after the stage, and for `max_drop` also before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from alignment.evaluation.statistics.figures import REPORTED_K
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import AnyStage, BenchmarkSettings, EvaluateStage, Recipe, is_measured_kind
from alignment.recipe.stage_graph import StageGraph
from alignment.recipe.stage_parts import Gate
from alignment.wording import closest, shown

# Metrics other than pass@k of the benchmarks whose metrics are all known.
_OTHER_METRICS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("tasks", "humaneval", "humaneval+", "mbpp", "mbpp+"), ()),
    **dict.fromkeys(
        ("fim", "fim-body"),
        ("exact_match", "edit_similarity", "content_similarity", "first_line_match", "stop_rate"),
    ),
    "editor": ("first_line_match", "accepted_characters", "edit_similarity", "content_similarity", "stop_rate"),
    "completion": ("exact_match", "edit_similarity"),
}


def check_gates(recipe: Recipe, graph: StageGraph) -> Iterator[Mistake]:
    """Yield the mistakes of all gates of a recipe."""
    for index, stage in enumerate(recipe.stages):
        if not stage.gates:
            continue
        is_training = is_measured_kind(stage) and stage.evaluate
        measured = _measured_after(recipe, stage)
        subject = "the recipe's `evaluate:` measures" if is_training else "this stage measures"
        for number, gate in enumerate(stage.gates):
            place: Place = ("stages", index, "gate", number)
            if gate.max_drop is None and gate.min_value is None:
                yield place, "give max_drop, min_value or both"
            if message := wrong_metric(gate.metric, measured, subject):
                yield (*place, "metric"), message
            elif gate.max_drop is not None and _benchmark_of(gate) not in _measured_before(graph, index):
                message = f"nothing to compare with: no step measures {_benchmark_of(gate)!r} on the earlier model"
                yield (*place, "max_drop"), message


def _benchmark_of(gate: Gate) -> str:
    return gate.metric.partition(".")[0]


def _measured_after(recipe: Recipe, stage: AnyStage) -> list[BenchmarkSettings]:
    """Return the benchmarks whose metrics the gates of a stage can use."""
    if isinstance(stage, EvaluateStage):
        return stage.benchmarks
    return recipe.evaluate if is_measured_kind(stage) and stage.evaluate else []


def _metrics(benchmarks: Sequence[BenchmarkSettings]) -> dict[str, list[str]]:
    """Return the known metrics of each benchmark, by the benchmark's name."""
    return {
        benchmark.name: [
            *(f"pass@{k}" for k in REPORTED_K if k <= benchmark.n),
            *_OTHER_METRICS.get(str(benchmark.benchmark), ()),
        ]
        for benchmark in benchmarks
    }


def wrong_metric(wanted: str, measured: Sequence[BenchmarkSettings], subject: str) -> str:
    """Return a message if a metric, written as `benchmark.metric`, is not among those of the benchmarks, else "".

    Args:
        wanted: the metric.
        measured: the benchmarks.
        subject: beginning of the message, for example `this stage measures`.
    """
    metrics = _metrics(measured)
    closed = {benchmark.name for benchmark in measured if str(benchmark.benchmark) in _OTHER_METRICS}
    benchmark, _, metric = wanted.partition(".")
    if benchmark not in metrics:
        near = closest(benchmark, metrics)
        hint = f" Did you mean '{near}.{metric or 'pass@1'}'?" if near else ""
        return f"{subject} {', '.join(metrics) or 'nothing'}, not {shown(wanted)}.{hint}"
    known = metric in metrics[benchmark] or (benchmark not in closed and not metric.startswith("pass@"))
    if not metric or not known:
        choices = ", ".join(f"{benchmark}.{name}" for name in metrics[benchmark])
        condition = " (pass@k needs n of at least k)" if metric else ""
        return f"must be benchmark.metric, for example {choices}{condition}, not {shown(wanted)}"
    return ""


def _measured_before(graph: StageGraph, index: int) -> set[str]:
    """Return the names of the benchmarks that are measured on the model with which a stage's gates compare.

    A gate of a training stage compares with the model that the stage starts from. A gate of an evaluate stage compares
    with the model from which the measured model was trained.
    """
    node = graph.stages[index]
    model = node.model
    if isinstance(node.stage, EvaluateStage):
        model = next((other.model for other in graph.stages if other.name == model), None)
    return {
        benchmark.name
        for other in graph.before(index)
        if model is not None and other.rung == model and isinstance(other.stage, EvaluateStage)
        for benchmark in other.stage.benchmarks
    }
