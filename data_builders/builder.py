"""The builder protocol: what every dataset builder takes and returns.

A builder is a function `build(settings, context)`. `settings` is an instance of a class derived from
`alignment.settings.Settings`; the class is the schema of the stage's `settings:` in a recipe, and the docstrings below
its fields are the help. The builder writes its files below `context.out` and returns what it counted, as plain JSON
values. The same settings, inputs and seed must give the same bytes for any number of `context.workers`.

A builder of your own is named as `builder: my_builder.py:build` (relative to the recipe) or `package.module:build`, in a
recipe and by `align build`. Its settings are checked like those of the built-in builders, or passed as a plain dict if
the annotation of the first parameter is `dict`. Fields of the type `Reference` are paths or `stage/file` of an earlier
stage; sources of code are `data_builders.repositories.sources.Source`. `examples/builder.py` is a complete one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from alignment.grading.sandbox_settings import SandboxSettings
from alignment.settings import Settings

SettingsType = TypeVar("SettingsType", bound=Settings, contravariant=True)


@dataclass(frozen=True)
class BuildContext:
    """What a builder gets besides its settings: the folder to write to, and how to run."""

    out: Path
    """The folder to write to. It exists, and is empty unless the builder resumes."""
    seed: int = 0
    workers: int = 1
    """Processes to use. The result must not depend on it."""
    model: Path | None = None
    """The folder of the stage's model, or its name on the Hugging Face hub, for builders that sample from a model."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """How programs of repositories and models run."""
    show_progress: bool | None = None
    """Show progress on stderr; by default only on a terminal."""
    clone_folder: Path | None = None
    """Folder for clones of remote repositories; by default they are removed at the end."""


class Builder(Protocol[SettingsType]):
    """Type of a builder's function."""

    def __call__(self, settings: SettingsType, context: BuildContext) -> Mapping[str, Any]: ...
