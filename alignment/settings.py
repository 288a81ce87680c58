"""Base classes of typed settings: a strict pydantic model, references to files and stages, and number types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_EXPECTED = "must be a file, a folder, or `stage/file` of an earlier stage"


class Reference(str):
    """A reference to an input: `stage/file` from an earlier stage, or a path.

    A relative path starts at the folder of the recipe file that contains the reference. `./name` is always a path, even
    if a stage is called `name`. In a recipe, the value of a field with this type is a string.
    """

    described_as: ClassVar[str] = "path or stage/file"
    """Name of this type in help texts."""
    folder: Path = Path()
    """The folder at which a relative path starts."""

    @classmethod
    def of(cls, value: Any) -> Self:
        """Make a reference from a path or a string.

        A string that was read from a recipe starts at the folder of the recipe file. Any other relative path starts at
        the working directory.

        Raises:
            ValueError: the value is not text, is empty, or cannot be a path.
        """
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(_EXPECTED)
        if not value.strip():
            raise ValueError(f"{_EXPECTED}; this is empty")
        too_long = len(value) > 4000 or any(len(part.encode(errors="replace")) > 255 for part in value.split("/"))
        if "\0" in value or too_long:
            raise ValueError(f"{_EXPECTED}; this text is too long for a path or contains a null character")
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError(f"there is no home folder for {value.split('/')[0]}") from None
        reference = cls(value)
        origin = getattr(value, "origin", None)
        reference.folder = origin.parent if origin is not None else getattr(value, "folder", Path.cwd())
        return reference

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.of, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}

    def stage(self, names: Sequence[str]) -> str | None:
        """Return the name of the stage to which the reference points, or None if the reference is a path.

        Args:
            names: names of the earlier stages.
        """
        first = self.split("/", 1)[0]
        return first if first in names else None

    def inside(self) -> str:
        """Return the path inside the stage's artifact. An empty string means the artifact itself."""
        return self.partition("/")[2]

    def path(self) -> Path:
        """Return the absolute path. A relative path starts at `folder`."""
        return (self.folder / Path(self).expanduser()).resolve()

    def exists(self) -> bool:
        """Whether `path()` is a file or folder, and this process is allowed to see it."""
        try:
            return self.path().exists()
        except OSError:  # this process may not enter one of the parent folders
            return False


Ref = Reference
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """Base class of settings: unknown keys are errors, values are not converted, instances do not change."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def nested_values(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield a value and all values nested in it, each with its place: a tuple of field names, keys and list indices."""
    yield place, value
    if isinstance(value, Settings):
        for name in type(value).model_fields:
            yield from nested_values(getattr(value, name), (*place, name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from nested_values(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nested_values(item, (*place, index))
