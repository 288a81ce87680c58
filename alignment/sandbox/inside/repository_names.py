"""Names for the objects that the tester and the candidate both have: classes, functions and constants of the repository.

Both processes import the same modules of the repository. An object that a module or a class of these modules holds is sent
by its path, ``module:Class.name``, and the receiver looks up the object with the same path. No code of an object crosses.
"""

from __future__ import annotations

import enum
import sys
import types
from typing import Any

from . import wire

FUNCTIONS = (types.FunctionType, types.MethodDescriptorType, types.BuiltinFunctionType)
SHARED_DATA = (list, dict, set)


class RepositoryNames:
    """The classes, functions and constants of the repository's modules, by path and by identity.

    Args:
        modules: Names of the modules that both processes have imported.
    """

    def __init__(self, modules: list[str]) -> None:
        self.modules = frozenset(modules)
        self._paths: dict[int, str] = {}
        self._objects: dict[str, Any] = {}
        for name in sorted(self.modules & sys.modules.keys()):
            self._add_namespace(name, f"{name}:", dict(vars(sys.modules[name])))

    def _add_namespace(self, module: str, prefix: str, namespace: dict[str, Any]) -> None:
        for name, value in namespace.items():
            value = value.__func__ if type(value) in (staticmethod, classmethod) else value
            if not self._belongs(value, module):
                continue
            path = prefix + name
            self._objects.setdefault(path, value)
            if id(value) in self._paths:
                continue
            self._paths[id(value)] = path
            if isinstance(value, type):
                self._add_namespace(module, f"{path}.", dict(vars(value)))

    def _belongs(self, value: Any, module: str) -> bool:
        """Whether an object is defined by the repository, so that both processes can name the object."""
        if isinstance(value, type):
            return value.__module__ == module
        if type(value) is types.FunctionType:
            return value.__module__ in self.modules
        kind = type(value)
        return kind is object or kind in SHARED_DATA or getattr(kind, "__module__", None) in self.modules

    def path_of(self, value: Any) -> str | None:
        """Return the path of an object of the repository, or None."""
        path = self._paths.get(id(value))
        return path if path is not None and self._objects.get(path) is value else None

    def at(self, path: Any) -> Any:
        """Return the object with this path. Raises WireError if there is none."""
        if type(path) is not str or path not in self._objects:
            raise wire.WireError("no such object of the repository")
        return self._objects[path]

    def is_constant(self, value: Any) -> bool:
        """Whether an object has a path and needs no copy of its state: a class, a function, a member of an enum, or a
        mark such as ``MISSING = object()``.
        """
        if self.path_of(value) is None:
            return False
        return isinstance(value, type | types.FunctionType | enum.Enum) or type(value) is object

    def class_at(self, path: Any) -> type:
        """Return the class with this path. Raises WireError if there is none."""
        value = self.at(path)
        if not isinstance(value, type):
            raise wire.WireError("not a class of the repository")
        return value
