"""The builder protocol: the arguments and the return value of a dataset builder.

A builder is a function `build(settings, context)`. `settings` is an instance of a class derived from
`alignment.settings.Settings`; the class is the schema of the stage's `settings:` in a recipe, and the docstrings below
its fields are the help texts. The builder writes its files below `context.out` and returns its counts as plain JSON
values. The same settings, inputs and seed must give the same bytes, whatever the value of `context.workers`.

To use your own builder in a recipe or with `align build`, write `builder: my_builder.py:build` (relative to the recipe)
or `package.module:build`. If the first parameter has the annotation `dict` or none, the settings are passed as a plain
dict. Otherwise the toolkit checks them as for built-in builders. A field of the type `Reference` holds a path, or
`stage/file` for a file of an earlier stage. A field of the type `data_builders.repositories.sources.Source` holds a
source of code. `examples/builder.py` is a complete example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from alignment.grading.sandbox_settings import SandboxSettings
from alignment.models.source import DType
from alignment.settings import Settings

SettingsType = TypeVar("SettingsType", bound=Settings, contravariant=True)


@dataclass(frozen=True)
class BuildContext:
    """The second argument of a builder: output folder, seed, and options of the run."""

    out: Path
    """Folder for the builder's files. It exists, and is empty unless the builder resumes an interrupted build."""
    seed: int = 0
    workers: int = 1
    """Number of processes to use. The result must not depend on this number."""
    model: Path | None = None
    """Folder or Hugging Face name of the model. Only builders that sample from a model use this field."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """Settings of the sandbox that runs code of repositories and of models."""
    clone_folder: Path | None = None
    """Folder for clones of remote repositories. With None, a temporary folder is used, and removed at the end."""
    dtype: DType = "auto"
    """Number format of the model's weights. A recipe sets it for all stages with `model.dtype`."""
    repositories: list[dict[str, str]] = field(default_factory=list)
    """The repositories that the builder has read so far: name, commit, declared license and, if newer commits are held
    out, head. `data_builders.repositories.sources.cloned` adds them; they become `sources` of artifact.json."""


class Builder(Protocol[SettingsType]):
    """The type of the function that implements a builder."""

    def __call__(self, settings: SettingsType, context: BuildContext) -> Mapping[str, Any]: ...
