"""What all typed settings share: strictness, references to files and stages, and a few kinds of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema


class Reference(str):
    """Something a stage reads: `stage/file` of an earlier stage, or a path relative to the file that names it.

    `./` in front makes it a path whatever the stages are called.
    """

    folder: Path = Path()

    def stage(self, names: Sequence[str]) -> str | None:
        """The earlier stage this names, if it names one."""
        first = self.split("/", 1)[0]
        return first if first in names else None

    def inside(self) -> str:
        """The path inside the stage's artifact, empty for the artifact itself."""
        return self.partition("/")[2]

    def path(self) -> Path:
        """The path, made absolute against the recipe that names it."""
        return (self.folder / Path(self).expanduser()).resolve()

    def exists(self) -> bool:
        """Whether the path is there, and may be looked at."""
        try:
            return self.path().exists()
        except OSError:  # a folder on the way that may not be entered
            return False


def make_reference(value: Any) -> Reference:
    """A reference from a recipe's string, which remembers its file."""
    if not isinstance(value, str):
        raise ValueError("names a file, a folder or an earlier stage")
    if not value.strip():
        raise ValueError("names a file, a folder or an earlier stage; this is empty")
    if "\0" in value or len(value) > 4000 or any(len(part.encode(errors="replace")) > 255 for part in value.split("/")):
        raise ValueError("names a file, a folder or an earlier stage; no path is like this")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home folder for {value.split('/')[0]}") from None
    reference = Reference(value)
    origin = getattr(value, "origin", None)
    reference.folder = origin.parent if origin is not None else getattr(value, "folder", Path.cwd())
    return reference


Ref = Annotated[Any, BeforeValidator(make_reference), PlainSerializer(str), WithJsonSchema({"type": "string"})]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """Strict in every way: no unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
