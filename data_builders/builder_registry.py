"""Find dataset builders: built-in builders by name, user-written builders by a reference such as `my_builder.py:build`.

A builder is a function `build(settings, context)`, see `data_builders.builder`. The annotation of the first parameter
is the class of the builder's settings.

Importing this module imports no builder. `find_builder` imports only the builder that it returns.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment.extensions import Extension, ExtensionError
from alignment.settings import Settings
from alignment.wording import did_you_mean
from data_builders.builder import BuildContext


@dataclass(frozen=True)
class BuiltinBuilder:
    """The location of a built-in builder's function, and the files that the builder writes."""

    function: str
    """Location of the function, as `module:function`."""
    outputs: Mapping[str, str]
    """Maps each file or folder that the builder writes to the kind of its rows.

    The kind is "" if the file has no rows, or if the rows have the kind of the input. `{form}` is replaced by the
    value of the setting `form`.
    """
    inputs: str = ""
    """Location (`module:function`) of a function that takes the settings and returns the state of the builder's inputs
    as a JSON value, for example the commits of the repositories. The state is part of the stage's fingerprint. "" if
    the result depends only on the settings."""
    samples: bool = False
    """Whether the builder samples from the model of its stage."""
    resumes: bool = False
    """Whether the builder can continue an interrupted build. Other builders start from the beginning."""


DOCUMENTS = {"data": "document"}
SOURCE_STATES = "data_builders.repositories.sources:source_states"
BUILDERS: Mapping[str, BuiltinBuilder] = {
    "corpus": BuiltinBuilder("data_builders.corpus:build_corpus", DOCUMENTS, SOURCE_STATES),
    "commits": BuiltinBuilder("data_builders.commits:build_commits", {"data": "{form}"}, SOURCE_STATES),
    "pull_requests": BuiltinBuilder("data_builders.pull_requests:build_pull_requests", DOCUMENTS),
    "repo_level": BuiltinBuilder("data_builders.repo_level:build_repo_level", DOCUMENTS),
    "grounding": BuiltinBuilder("data_builders.text.build_text:build_grounding", DOCUMENTS),
    "quality": BuiltinBuilder("data_builders.text.build_text:build_quality", DOCUMENTS),
    "math": BuiltinBuilder("data_builders.text.build_text:build_math", DOCUMENTS),
    "general": BuiltinBuilder("data_builders.text.build_text:build_general", DOCUMENTS),
    "clean": BuiltinBuilder("data_builders.cleaning.clean_rows:build_clean", {"data": ""}),
    "fim": BuiltinBuilder("data_builders.fim:build_fim", {"data": ""}),
    "mixture": BuiltinBuilder("data_builders.mixture:build_mixture", DOCUMENTS, resumes=True),
    "synthetic": BuiltinBuilder(
        "data_builders.synthetic.quickstart:build_synthetic",
        {
            "documents.jsonl": "document", "conversations.jsonl": "conversation", "long.jsonl": "conversation",
            "rl.jsonl": "task", "heldout-fim.jsonl": "infilling", "heldout-short.jsonl": "task",
            "heldout-long.jsonl": "task", "heldout-documents.jsonl": "document", "tokenizer": "",
        },
        inputs="data_builders.synthetic.quickstart:inputs",
    ),
    "tasks": BuiltinBuilder(
        "data_builders.tasks.build_tasks:build_tasks", {"tasks.jsonl": "task", "account.json": ""}, SOURCE_STATES
    ),
    "commit_tasks": BuiltinBuilder(
        "data_builders.tasks.history.commit_tasks:build_commit_tasks",
        {"tasks.jsonl": "task", "heldout.jsonl": "task", "account.json": ""},
        "data_builders.repositories.sources:source_states_with_head",
    ),
    "instructions": BuiltinBuilder(
        "data_builders.instructions.build_instructions:build_instructions",
        {"instructions.jsonl": "conversation", "account.json": ""},
        SOURCE_STATES,
    ),
    "private_benchmark": BuiltinBuilder(
        "data_builders.private_benchmark:build_private_benchmark",
        {"tasks.jsonl": "task", "fim.jsonl": "infilling", "fim-tasks.jsonl": "infilling", "account.json": ""},
        "data_builders.repositories.sources:source_states_with_head",
    ),
    "feedback": BuiltinBuilder(
        "data_builders.feedback:build_feedback",
        {"feedback.jsonl": "feedback", "heldout.jsonl": "feedback", "heldout-fim.jsonl": "infilling", "account.json": ""},
    ),
    "difficulty": BuiltinBuilder(
        "data_builders.difficulty:build_difficulty", {"tasks.jsonl": "task", "pass-rates.jsonl": ""}, samples=True
    ),
    "preferences": BuiltinBuilder(
        "data_builders.preferences:build_preferences", {"preferences.jsonl": "preference"}, samples=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LoadedBuilder:
    """A built-in or user-written builder that is ready to run."""

    name: str
    function: Callable[[Any, BuildContext], Any]
    settings_class: type[Settings] | None
    """Class of the builder's settings. None if a user-written builder takes a plain dict."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """See `BuiltinBuilder.outputs`. Empty for a user-written builder, whose files are known only after the run."""
    input_state: Callable[[Any], Any] | None = None
    samples: bool = False
    resumes: bool = False
    extension: Extension | None = None
    """Reference to the user's code. None for a built-in builder."""

    def validate(self, values: Mapping[str, Any]) -> Settings | dict[str, Any]:
        """Check settings and convert them to the builder's settings class. Raises pydantic's ValidationError."""
        return dict(values) if self.settings_class is None else self.settings_class.model_validate(values)

    def run(self, settings: Settings | dict[str, Any], context: BuildContext) -> dict[str, Any]:
        """Run the builder and return the counts that the builder reports.

        Raises:
            ExtensionError: the user's builder raised an error, wrote no file, or did not return a mapping of JSON
                values. The message names file, line and function.
            ValueError: a built-in builder found an error in a setting or in the data.
        """
        if self.extension is None:
            return dict(self.function(settings, context))
        with self.extension.errors("the builder"):
            result = self.function(settings, context)
        counts = self.extension.json_mapping(self.function, result)
        if not any(path.is_file() for path in context.out.rglob("*")):
            raise ExtensionError(f"{self.extension.place(self.function)} wrote no file to context.out, {context.out}")
        return counts


def find_builder(name: str) -> LoadedBuilder:
    """Find a builder by the name of a built-in builder, or by a reference to the user's own code.

    Args:
        name: a name in `BUILDERS`, `path/to/file.py:function` (an absolute path, or one relative to the working
            directory) or `package.module:function`.

    Raises:
        ExtensionError: the user's code can't be loaded, or its function is not a builder.
        ValueError: no built-in builder has this name.
    """
    if name in BUILDERS:
        return _builtin(name)
    if not Extension.is_reference(name):
        raise ValueError(
            f"there is no builder {name!r}; use {', '.join(BUILDERS)}, or your own builder as path/to/file.py:function."
            f"{did_you_mean(name, BUILDERS)}"
        )
    extension = Extension.parse(name)
    function = extension.load()
    return LoadedBuilder(name, function, _user_settings_class(extension, function), extension=extension)


@functools.cache
def _builtin(name: str) -> LoadedBuilder:
    entry = BUILDERS[name]
    function = _load(entry.function)
    settings_class = typing.get_type_hints(function)["settings"]
    input_state = _load(entry.inputs) if entry.inputs else None
    return LoadedBuilder(name, function, settings_class, entry.outputs, input_state, entry.samples, entry.resumes)


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _user_settings_class(extension: Extension, function: Any) -> type[Settings] | None:
    """Return the class of a user's settings: the annotation of the first parameter, or None for a plain dict."""
    place = extension.place(function)
    try:
        parameters = list(inspect.signature(function).parameters.values())
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise ExtensionError(f"{place} must be a function of two arguments: (settings, context)") from None
    try:
        annotation = typing.get_type_hints(inspect.unwrap(function)).get(parameters[0].name)
    except (NameError, TypeError) as error:
        raise ExtensionError(f"{place}: its annotations cannot be read: {error}") from None
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    if annotation in (None, Any) or (typing.get_origin(annotation) or annotation) in (dict, Mapping):
        return None
    raise ExtensionError(
        f"{place}: the annotation of {parameters[0].name!r} must be dict, or a class derived from "
        "alignment.settings.Settings"
    )
