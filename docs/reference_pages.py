"""The reference pages, made of the recipe's schema, the builders' settings and the catalogue of benchmarks.

`site_hooks.py` adds them when the site is built, so that they never differ from the code.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alignment.evaluation.catalogue import BENCHMARKS
from alignment.export import export_settings
from alignment.grading import sandbox_settings
from alignment.models import source
from alignment.recipe import Recipe, schema, stage_parts
from alignment.settings_help import describe_settings, type_name
from data_builders.builder_registry import BUILDERS, find_builder


@functools.cache
def pages() -> dict[str, str]:
    """Return the text of each reference page, keyed by its path in the site."""
    return {
        "reference/recipe.md": _recipe(),
        "reference/builders.md": _builders(),
        "reference/benchmarks.md": _benchmarks(),
    }


def _recipe() -> str:
    lines = ["# Recipe reference", ""]
    lines += ["Every key of a recipe. `align schema` prints the same as a JSON schema, for completion in editors.", ""]
    lines += _table("The recipe", Recipe)
    for kind, stage in schema.STAGES.items():
        lines += _table(f"A stage of kind `{kind}`", stage)
    modules = (stage_parts, source, export_settings, sandbox_settings)
    parts = [
        value for module in modules for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]  # fmt: skip
    for part in sorted(parts, key=lambda item: item.__name__):
        lines += _table(f"`{part.__name__}`", part)
    return "\n".join(lines)


def _table(title: str, settings: type[BaseModel]) -> Iterator[str]:
    yield from (f"## {title}", "", *inspect.cleandoc(settings.__doc__ or "").split("\n\n")[:1], "")
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for name, field in settings.model_fields.items():
        kind = type_name(field.annotation, field.metadata)
        yield f"| `{name}` | {_cell(kind)} | {_default(field)} | {_cell(field.description or '')} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see there"
    return f"`{value}`" if value not in (None, [], {}) else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _builders() -> str:
    lines = ["# Settings of the dataset builders", ""]
    lines += ["The settings of each built-in builder, as `align build BUILDER --settings` prints them.", ""]
    for name, builder in BUILDERS.items():
        loaded = find_builder(name)
        assert loaded.settings_class is not None
        summary = inspect.cleandoc(loaded.function.__doc__ or "").split("\n\n")[0]
        outputs = ", ".join(f"`{file}`" + (f" ({kind} rows)" if kind else "") for file, kind in builder.outputs.items())
        lines += [f"## `{name}`", "", summary, "", f"Writes {outputs}.", "", "```text"]
        lines += [*describe_settings(loaded.settings_class, ""), "```", ""]
    return "\n".join(lines)


def _benchmarks() -> str:
    lines = [
        "# List of benchmarks",
        "",
        "What `align evaluate --list` prints; each name can stand in `evaluate:` of a recipe.",
        "",
    ]
    lines += ["| name | content |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(entry.description)} |" for name, entry in BENCHMARKS.items()]
    return "\n".join([*lines, ""])
