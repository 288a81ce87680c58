"""Loads rewards, benchmarks, builders and other parts from the user's own code.

A recipe refers to such a part as `path/to/file.py:name` (relative to the recipe) or as `package.module:name`. The
SHA-256 of the source file is part of the fingerprint of a stage, so the stage runs again after the file was edited. For
`package.module:name`, only the file of this module is hashed: changes in modules that it imports are not noticed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from alignment.settings import Reference
from alignment.wording import did_you_mean

_FILE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")
_MODULE = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


class ExtensionError(ValueError):
    """Raised when the user's own code can't be loaded, raises an exception, or returns a value of the wrong form."""


@dataclass(frozen=True)
class Extension:
    """A reference to one object of the user's code. Exactly one of `path` and `module` is set."""

    reference: str
    """The reference as it is written in the recipe."""
    name: str
    path: Path | None = None
    module: str | None = None

    @staticmethod
    def is_reference(text: str) -> bool:
        """Whether a string is written as `file.py:name` or `package.module:name`."""
        return bool(_FILE.fullmatch(text) or _MODULE.fullmatch(text))

    @staticmethod
    def parse(reference: str, folder: Path = Path()) -> Extension:
        """Parse a reference. A relative path starts at `folder`.

        Raises:
            ExtensionError: the text is neither `path/to/file.py:name` nor `package.module:name`.
        """
        if match := _FILE.fullmatch(reference):
            path = (folder / Path(match["path"]).expanduser()).resolve()
            return Extension(reference, match["name"], path=path)
        if match := _MODULE.fullmatch(reference):
            return Extension(reference, match["name"], module=match["module"])
        raise ExtensionError(f"must be path/to/file.py:name or package.module:name, not {reference!r}")

    def file(self) -> Path:
        """Return the path of the source file. Raises ExtensionError if there is no such file."""
        if self.path is not None:
            if not self.path.is_file():
                raise ExtensionError(f"{self.reference}: there is no file {self.path}")
            return self.path
        assert self.module is not None
        try:
            spec = importlib.util.find_spec(self.module)
        except ImportError as error:
            raise ExtensionError(f"{self.reference}: module {self.module} cannot be imported: {error}") from None
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            raise ExtensionError(f"{self.reference}: there is no module {self.module} on the Python path")
        return Path(spec.origin)

    def digest(self) -> str:
        """Return the SHA-256 of the source file. It is part of the fingerprint of a stage."""
        return hashlib.sha256(self.file().read_bytes()).hexdigest()

    def load(self) -> Any:
        """Import the source file and return the object that the reference names.

        A process executes a file once, and again only if the content of the file has changed.

        Raises:
            ExtensionError: the file cannot be imported (the message has file and line), or does not define the name.
        """
        module = _import_file(self) if self.path is not None else _import_module(self)
        if not hasattr(module, self.name):
            names = [name for name in vars(module) if not name.startswith("_")]
            raise ExtensionError(f"{self.file()} defines no {self.name!r}.{did_you_mean(self.name, names)}")
        return getattr(module, self.name)

    def place(self, function: Any) -> str:
        """Return `file:line: name` of a function or class of the user's code. Omit the line if it is unknown."""
        definition = inspect.unwrap(getattr(function, "__func__", function))
        try:
            file, line = inspect.getsourcefile(definition), inspect.getsourcelines(definition)[1]
        except (OSError, TypeError):
            return f"{self.file()}: {self.name}"
        return f"{file}:{line}: {getattr(definition, '__qualname__', self.name)}"

    def json_mapping(self, function: Any, result: Any) -> dict[str, Any]:
        """Return the result of a function of the user's code as a dict.

        Raises:
            ExtensionError: the result is not a mapping from strings to JSON values. The message says in which file and
                line the function is defined.
        """
        expected = "return a mapping of JSON values, for example {'rows': 12}"
        if not isinstance(result, Mapping):
            returned = "None" if result is None else type(result).__name__
            raise ExtensionError(f"{self.place(function)} returned {returned}: {expected}")
        for key in result:
            if not isinstance(key, str):
                raise ExtensionError(
                    f"{self.place(function)} returned a mapping with the key {key!r}, which is not a string: {expected}"
                )
        try:
            json.dumps(dict(result), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ExtensionError(
                f"{self.place(function)} returned a value that JSON cannot hold ({error}): {expected}"
            ) from None
        return dict(result)

    @contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turn any exception of the user's code into an ExtensionError that names file, line and function."""
        try:
            yield
        except ExtensionError:
            raise
        except Exception as error:
            place = _place_of(error, self.file()) or f"{self.file()}: {self.name}"
            raise ExtensionError(f"{place}: {action} raised {type(error).__name__}: {error}") from error


class ExtensionReference(Reference):
    """A setting that refers to an object of the user's code. A relative path starts at the recipe's folder."""

    described_as = "file.py:name"

    @classmethod
    def of(cls, value: Any) -> Self:
        """Make a reference from a string of a recipe. Raises ValueError if the value is not a valid reference."""
        if not isinstance(value, str):
            raise ValueError("must be path/to/file.py:name or package.module:name")
        Extension.parse(value)
        return super().of(value)

    def stage(self, names: Sequence[str]) -> None:
        """Return None, because the user's code is never an output of an earlier stage."""
        return

    def extension(self) -> Extension:
        """Parse the reference and return it as an `Extension`. Raises ExtensionError if the text has another form."""
        return Extension.parse(str(self), self.folder)

    def resolved(self) -> str:
        """Return the same reference with an absolute path. A reference to a module is returned unchanged."""
        extension = self.extension()
        return f"{extension.path}:{extension.name}" if extension.path is not None else str(self)


def name_or_extension(value: Any) -> str:
    """Return the value as plain text if it is the name of a built-in part, otherwise as an ExtensionReference.

    Text of the form `file.py:name` or `package.module:name` is a reference. Raises ValueError if the value is not text.
    """
    if not isinstance(value, str):
        raise ValueError("must be a built-in name, or code of your own as path/to/file.py:name or package.module:name")
    return ExtensionReference.of(value) if Extension.is_reference(value) else str(value)


NameOrExtension = Annotated[
    str, PlainValidator(name_or_extension), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
"""Type of a setting such as `builder`: the name of a built-in part, or a reference to the user's own code."""


def _import_file(extension: Extension) -> ModuleType:
    file = extension.file()
    # The module's name contains a hash of the file's content: an edited file is loaded anew, and two files with the
    # same name do not collide.
    name = f"_align_extension_{extension.digest()[:16]}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with extension.errors("importing the file"):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _import_module(extension: Extension) -> ModuleType:
    assert extension.module is not None
    extension.file()
    with extension.errors("importing the module"):
        return importlib.import_module(extension.module)


def _place_of(error: BaseException, file: Path) -> str | None:
    """Return `file:line: function` of the innermost frame in the user's file, or None if no frame is in this file.

    For a SyntaxError, return `file:line` of the invalid syntax.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename) == file:
            return f"{file}:{frame.lineno}: {frame.name}"
    return None
