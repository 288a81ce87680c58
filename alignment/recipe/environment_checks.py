"""Check that this machine has what a recipe needs: a working sandbox, compilers, and Python interpreters with pytest.

These checks start processes, so `align check --fast` skips them. `align run` makes them before the first stage.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from alignment.recipe import builders
from alignment.recipe.mistakes import known_place
from alignment.recipe.problems import Mistake
from alignment.recipe.schema import BenchmarkSettings, BuildStage, EvaluateStage, GrpoStage, Recipe
from alignment.sandbox import SandboxError, Slot, toolchains
from alignment.sandbox.launcher_settings import launcher_settings
from alignment.settings import nested_values
from data_builders.repositories.locations import Interpreter
from data_builders.tasks.python.python_environment import find_environment

_NOT_EXECUTED = ("gsm8k", "math", "needle-", "crosscode", "repoeval", "safim-api", "humaneval-fim", "fim", "completion")
"""Beginnings of the names of benchmarks that may run no programs."""
_EXECUTING_BUILDERS = ("tasks", "difficulty", "preferences", "private_benchmark")
_MULTI_PL_E = "multipl-e-"


def check_environment(recipe: Recipe) -> Iterator[Mistake]:
    """Yield a mistake for each tool that this machine lacks to run the recipe's programs and the tests of its
    repositories, or to log to its trackers.
    """
    for name, package in (("mlflow", "mlflow-skinny"), ("trackio", "trackio")):
        if getattr(recipe.tracking, name) and importlib.util.find_spec(name) is None:
            message = f"the package {package} is not installed: pip install 'code-alignment[tracking]'"
            yield ("tracking", name), message
    if recipe.sandbox.address is None:
        if any(_runs_programs(recipe)) and (reason := sandbox_refusal(recipe.sandbox.allow_weaker)):
            yield ("sandbox",), f"programs can't be run on this machine: {reason}"
        yield from _benchmark_languages(recipe)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, BuildStage) and isinstance(stage.builder, str) and stage.builder in _EXECUTING_BUILDERS:
            for place, message in _check_interpreters(stage):
                yield ("stages", index, *place), message


def _runs_programs(recipe: Recipe) -> Iterator[bool]:
    for stage in recipe.stages:
        yield isinstance(stage, GrpoStage)
        yield isinstance(stage, BuildStage) and stage.builder in _EXECUTING_BUILDERS
    for benchmark in _benchmarks(recipe):
        yield isinstance(benchmark.benchmark, str) and not benchmark.benchmark.startswith(_NOT_EXECUTED)


def _benchmarks(recipe: Recipe) -> list[BenchmarkSettings]:
    stages = [stage for stage in recipe.stages if isinstance(stage, EvaluateStage)]
    return [*recipe.evaluate, *(benchmark for stage in stages for benchmark in stage.benchmarks)]


def sandbox_refusal(allow_weaker: bool) -> str:
    """Start the sandbox once. Return the reason why the sandbox can't be started, or "" if it starts."""
    slot = Slot(launcher_settings(allow_weaker))
    try:
        slot.start()
    except SandboxError as error:
        return str(error)
    finally:
        slot.close()
    return ""


def missing_tools(languages: Iterable[str]) -> Iterator[str]:
    """Yield a message for each language whose compiler or interpreter is not installed; Unknown languages are
    skipped.
    """
    for name in sorted(set(languages)):
        try:
            language = toolchains.language_of(name)
        except ValueError:
            continue
        if language.name != "python" and shutil.which(language.tool) is None:
            install = toolchains.install_command(language)
            yield f"programs in {language.name} need {language.tool}, which is not installed; install it with: {install}"


def _benchmark_languages(recipe: Recipe) -> Iterator[Mistake]:
    """Yield the compilers and interpreters that MultiPL-E needs and that are not installed.

    Languages in task rows are checked when the rows are read.
    """
    places: list[tuple[tuple[Any, ...], list[BenchmarkSettings]]] = [(("evaluate",), recipe.evaluate)]
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, EvaluateStage):
            places.append((("stages", index, "benchmarks"), stage.benchmarks))
    for place, benchmarks in places:
        for number, benchmark in enumerate(benchmarks):
            if str(benchmark.benchmark).startswith(_MULTI_PL_E):
                for message in missing_tools([str(benchmark.benchmark).removeprefix(_MULTI_PL_E)]):
                    yield (*place, number, "benchmark"), message


def _check_interpreters(stage: BuildStage) -> Iterator[Mistake]:
    """Yield a mistake for each Python interpreter of a repository that can't be started, or that has no pytest."""
    try:
        settings = builders.builder_of(stage).validate(stage.settings)
    except ValueError:  # reported with the builder's settings
        return
    for place, value in nested_values(settings):
        if isinstance(value, Interpreter):
            yield from _check_interpreter(stage, place, value)


def _check_interpreter(stage: BuildStage, place: tuple[Any, ...], interpreter: Interpreter) -> Iterator[Mistake]:
    inside = ("settings", *known_place(stage.settings, place)[0])
    try:
        find_environment(interpreter.absolute())
    except ValueError as error:
        yield inside, str(error)
