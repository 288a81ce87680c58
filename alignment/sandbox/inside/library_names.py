"""Names for functions and types of the standard library that the tester and the candidate may send to each other."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from . import wire
from .proxy import PYTHON_EXCEPTIONS

LIBRARY = ("builtins", "operator", "math", "itertools", "functools", "string", "time", "collections")
"""Modules whose functions and types either process may send by name, instead of as the id of an object."""
UNSAFE = frozenset(
    ["eval", "exec", "compile", "open", "input", "__import__", "breakpoint", "globals", "locals", "vars", "getattr",
     "setattr", "delattr", "type", "super", "memoryview"]
)  # fmt: skip
"""Builtin functions and types that the candidate may not send: a test that calls them would run text of the candidate."""
_MODULES = {"_operator": "operator", "_functools": "functools", "_collections": "collections"}
_NAMED = (type, types.BuiltinFunctionType, types.FunctionType)


def library_name(value: Any) -> str | None:
    """Return ``module:name`` for a builtin exception or a function or type of `LIBRARY`, or None for other objects."""
    return _name(value, LIBRARY)


def standard_name(value: Any) -> str | None:
    """Return ``module:name`` for a function or class of any module of the standard library, or None."""
    return _name(value, sys.stdlib_module_names)


def _name(value: Any, modules: Any) -> str | None:
    name = getattr(value, "__name__", None) if isinstance(value, _NAMED) else None
    if type(name) is not str:
        return None
    if isinstance(value, type) and PYTHON_EXCEPTIONS.get(name) is value:
        return f"builtins:{name}"
    module = value.__module__ if type(getattr(value, "__module__", None)) is str else None
    module = _MODULES.get(module or "", module)
    if module is None or module.partition(".")[0] not in modules:
        return None
    loaded = sys.modules.get(module)
    return f"{module}:{name}" if getattr(loaded, name, None) is value else None


def from_library(content: Any) -> Any:
    """Return the object that ``module:name`` denotes. Raises WireError if `content` denotes no object of `LIBRARY`."""
    module, _, name = str(content).partition(":")
    if module not in LIBRARY or not hasattr(importlib.import_module(module), name):
        raise wire.WireError("malformed data")
    return getattr(importlib.import_module(module), name)


def from_candidate(content: Any) -> Any:
    """As `from_library`, for a name that the candidate chose.

    Raises:
        WireError: The name denotes no function or type of `LIBRARY`, or one of `UNSAFE`.
    """
    value = from_library(content)
    if library_name(value) != content or content.partition(":")[2] in UNSAFE:
        raise wire.WireError("malformed data")
    return value


def from_tester(content: Any) -> Any:
    """Return the object that ``module:name`` denotes in any module of the standard library."""
    module, _, name = str(content).partition(":")
    if module.partition(".")[0] not in sys.stdlib_module_names:
        raise wire.WireError("malformed data")
    return getattr(importlib.import_module(module), name)
