"""Decide which data and benchmarks a drafted recipe has, from surveys of repositories or from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignment.drafting.hardware import Hardware
from alignment.drafting.repository_survey import ENOUGH_COMMITS, ENOUGH_FUNCTIONS, ENOUGH_PIECES, RepositorySurvey
from alignment.rows import kinds, reading

STAGE_OF_ROWS = {"document": "pretrain", "conversation": "sft", "preference": "dpo", "task": "grpo"}
"""Maps a kind of rows to the kind of the stage that learns from these rows."""


@dataclass(frozen=True)
class DraftRequest:
    """What the user asks for in a recipe: model, hardware, and repositories or rows."""

    model: str
    hardware: Hardware
    out: Path
    """Path of the recipe to write."""
    sources: Sequence[str] = ()
    """Paths or URLs of repositories, as the user wrote them."""
    surveys: Sequence[RepositorySurvey] = ()
    """One survey for each source."""
    rows: Sequence[Path] = ()
    """Files of rows, instead of repositories."""
    license: str = "owned"
    """License of the repositories, as in `sources:` of a recipe."""
    interpreter: str | None = None
    """Python interpreter that runs the tests of the repositories."""

    @property
    def launch_file(self) -> Path:
        """Path of the Accelerate config file to write beside the recipe."""
        return self.out.with_name(f"{self.out.stem}-accelerate.yaml")


@dataclass
class RecipeData:
    """The data of a recipe: its build stages, the data of each training stage, and the benchmarks."""

    training: dict[str, list[str]] = field(default_factory=dict)
    """Maps the kind of a training stage to its data: outputs of build stages, or paths."""
    builds: list[str] = field(default_factory=list)
    """Lines of the recipe with the build stages, which come before training."""
    evaluate: list[str] = field(default_factory=list)
    """Lines of the recipe's `evaluate:`."""
    left_out: list[str] = field(default_factory=list)
    export_data: str = ""
    needs_stops: bool = True


def data_of_rows(files: Sequence[Path]) -> RecipeData:
    """Return the data of a recipe that trains on files of rows, without a benchmark.

    Raises:
        ValueError: a file has no rows, or rows that no stage reads.
    """
    data = RecipeData()
    by_kind: dict[str, list[str]] = {}
    for file in files:
        rows = reading.read_rows(file, limit=1)
        if not rows:
            raise ValueError(f"{file} has no rows")
        by_kind.setdefault(kinds.kind_of(rows[0], f"{file}, row 1"), []).append(str(file.resolve()))
    for kind, stage in STAGE_OF_ROWS.items():
        if kind in by_kind:
            data.training[stage] = by_kind[kind]
    data.export_data = next(iter(by_kind.get("document", [])), "")
    data.left_out.append(
        "no benchmark: rows given as files are all trained on. Keep some of them in another file, and name it under "
        "`evaluate:` (benchmark `tasks` for tasks, `fim` for rows with prefix, middle and suffix)"
    )
    return data


def data_of_repositories(request: DraftRequest) -> RecipeData:
    """Return the data of a recipe that builds its rows and benchmarks from repositories."""
    data = RecipeData()
    surveys = list(request.surveys)
    split = [number for number, item in enumerate(surveys) if item.held_out is not None]
    testable = [number for number, item in enumerate(surveys) if item.runnable]
    with_commits = [number for number, item in enumerate(surveys) if item.commits >= ENOUGH_COMMITS]
    with_functions = [number for number, item in enumerate(surveys) if item.python_functions >= ENOUGH_FUNCTIONS]
    cpu = request.hardware.card_gb is None
    conversations = not (cpu and is_instruct(request.model))
    if split:
        new_functions = sum(
            surveys[number].new_functions.get(suite.language, 0)
            for number in split
            for suite in surveys[number].runnable
        )
        executable = new_functions >= ENOUGH_PIECES // 2
        _add_benchmark(
            data,
            _sources(split, surveys),
            executable=executable,
            cpu=cpu,
            surveys=[surveys[number] for number in split],
        )
        if testable and not executable:
            data.left_out.append(
                f"executable benchmark tasks: only {new_functions} new functions in the held-out commits, too few to measure with"
            )
    for number, item in enumerate(surveys):
        if number not in split:
            data.left_out.append(f"a benchmark of {item.name}: {item.history_problem}")
    data.builds.append(
        "  - {name: corpus, kind: build, builder: corpus}  # filtered, deduplicated files, without secrets"
    )
    data.training["pretrain"] = ["corpus"]
    data.export_data = "corpus"
    if testable and conversations:
        data.builds += [
            "  # Functions whose bodies are masked, each with the tests that check it. The tests run in the sandbox.",
            f"  - {{name: tasks, kind: build, builder: tasks{_settings(_sources(testable, surveys))}}}",
        ]
    for item in surveys:
        data.left_out += [
            f"tasks from {item.name}'s {suite.language} tests: {suite.problem}"
            for suite in item.suites
            if suite.problem
        ]
        if not item.suites:
            data.left_out.append(f"tasks from {item.name}: it has no tests for pytest, a JavaScript runner or go test")
    if conversations:
        _add_conversations(data, surveys, with_functions, with_commits, bool(testable))
    else:
        data.left_out.append(
            "sft: an Instruct model answers questions from the start, and the steps that a CPU can do change little of that"
        )
    if testable and not cpu:
        data.training |= {"dpo": ["preferences/preferences.jsonl"], "grpo": ["tasks/tasks.jsonl"]}
    elif testable:
        data.left_out.append("preferences, dpo and grpo: sampling many answers per task takes hours on a CPU")
    else:
        data.left_out.append("preferences, dpo and grpo: they need tasks with tests that can be run")
    return data


def _add_benchmark(
    data: RecipeData, sources: Mapping[str, str], *, executable: bool, cpu: bool, surveys: Sequence[RepositorySurvey]
) -> None:
    settings = dict(sources)
    if not executable:
        settings["executable"] = "false"
    if cpu:
        settings["max_pieces"] = "60"
        if executable:
            settings["settings"] = "{answer: fim}"  # a small model asked in a dialogue copies the prompt
    counts = ", ".join(f"{item.new_pieces} in {item.name}" for item in surveys)
    data.builds += [
        f"  # Code that only the newest commits have ({counts}). No training row contains it.",
        f"  - {{name: benchmark, kind: build, builder: private_benchmark{_settings(settings)}}}",
    ]
    few = sum(item.new_pieces for item in surveys) < ENOUGH_PIECES
    note = "  # few tasks: expect wide intervals" if few else ""
    limit = ", max_new_tokens: 160" if cpu else ""
    data.evaluate.append(f"  - {{name: fim, benchmark: fim, data: benchmark/fim.jsonl{limit}}}{note}")
    if cpu:  # with the same limit, `fim-body` reads the completions of `fim`
        data.evaluate.append(
            "  - {name: fim-body, benchmark: fim-body, data: benchmark/fim.jsonl, max_new_tokens: 160}  # cut at the body's end"
        )
    if executable:
        tasks_limit = ", max_new_tokens: 192, limit: 20" if cpu else ""
        data.evaluate.append(f"  - {{name: tasks, benchmark: tasks, data: benchmark/tasks.jsonl{tasks_limit}}}")


def _add_conversations(
    data: RecipeData,
    surveys: Sequence[RepositorySurvey],
    with_functions: list[int],
    with_commits: list[int],
    has_tasks: bool,
) -> None:
    """Add the builders whose rows the SFT stage reads."""
    conversations = []
    if with_functions:
        settings = _sources(with_functions, surveys) | ({"tasks": "tasks/tasks.jsonl"} if has_tasks else {})
        data.builds += [
            "  # Conversations about the repository's Python functions: implement, document, explain and others.",
            f"  - {{name: instructions, kind: build, builder: instructions{_settings(settings)}}}",
        ]
        conversations.append("instructions/instructions.jsonl")
    if with_commits:
        count = sum(surveys[number].commits for number in with_commits)
        data.builds += [
            f"  # Conversations made of commits ({count} messages say what was changed): the change is the answer.",
            f"  - {{name: commits, kind: build, builder: commits{_settings(_sources(with_commits, surveys))}}}",
        ]
        conversations.append("commits")
    if conversations:
        data.training["sft"] = conversations
    else:
        data.left_out.append(
            "sft: neither Python functions nor enough commits with descriptive messages to make conversations of"
        )


def is_instruct(model: str) -> bool:
    """Whether the name of a model says that it was trained on instructions. Base models have the same files."""
    return "instruct" in model.lower()


def _sources(numbers: Sequence[int], surveys: Sequence[RepositorySurvey]) -> dict[str, str]:
    """Return a builder's setting `sources` for the repositories at these indices.

    Empty if the builder reads all repositories.
    """
    if len(numbers) == len(surveys):
        return {}
    return {"sources": "[" + ", ".join(f"*{anchor_of(number)}" for number in numbers) + "]"}


def anchor_of(number: int) -> str:
    """Return the YAML anchor of a source in the recipe, by its index."""
    return f"source{number + 1}"


def _settings(settings: Mapping[str, str]) -> str:
    return ", settings: {" + ", ".join(f"{key}: {value}" for key, value in settings.items()) + "}" if settings else ""
