"""Stands for the classes of the tests in the candidate's process, so that their instances can be copied there.

The code of the tests never enters the candidate's process. For a class such as ``class Counting(Cache)`` of a test, the
candidate makes a class with the same bases and constants whose methods call the tester.
"""

from __future__ import annotations

import abc
import sys
import types
from collections.abc import Callable
from typing import Any

from . import object_state, wire
from .repository_names import RepositoryNames

MIXINS = ("abc", "collections.abc", "contextlib", "typing")
"""Modules of the standard library with base classes that classes of tests may have."""
MODULE_NAMES = {"_collections_abc": "collections.abc"}
IGNORED = frozenset(
    ["__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__annotations__", "__parameters__", "_abc_impl",
     "__orig_bases__", "__abstractmethods__", "__firstlineno__", "__static_attributes__"]
)  # fmt: skip
MOST_CLASSES = 1000


def mixin_name(kind: type) -> str | None:
    """Return ``module:name`` of a base class of the standard library without state, or None."""
    module = MODULE_NAMES.get(kind.__module__, kind.__module__)
    if module in MIXINS and getattr(sys.modules.get(module), kind.__name__, None) is kind:
        return f"{module}:{kind.__name__}"
    return None


class TestClasses:
    """The tester's side: describes the classes of the tests.

    Args:
        names: Paths of the objects of the repository.
        root: Folder of the repository. Classes of other folders are not described.
        function_number: Registers a function that the candidate may call, and returns the number of the function.
    """

    __test__ = False  # no test class of pytest

    def __init__(self, names: RepositoryNames, root: str, function_number: Callable[[Any], int]) -> None:
        self._names, self._root, self._function_number = names, root, function_number
        self._numbers: dict[type, int | None] = {}
        self._classes: list[type] = []
        self._pending: list[int] = []

    def number(self, kind: type) -> int | None:
        """Return the number of a class of the tests, or None if instances of the class cannot be copied."""
        if kind not in self._numbers:
            self._numbers[kind] = None
            if len(self._classes) < MOST_CLASSES and self._is_describable(kind):
                for base in kind.__mro__[:0:-1]:
                    if not self._is_known(base):
                        self.number(base)
                self._numbers[kind] = len(self._classes)
                self._classes.append(kind)
                self._pending.append(len(self._classes) - 1)
        return self._numbers[kind]

    def at(self, number: Any) -> type:
        """Return the class with this number. Raises WireError if there is none."""
        if type(number) is not int or not 0 <= number < len(self._classes):
            raise wire.WireError("no such class")
        return self._classes[number]

    def take_pending(self, encode: Callable[[Any], Any]) -> list[Any]:
        """Return the descriptions of the classes that the candidate does not know."""
        described = []
        while self._pending:
            number = self._pending.pop(0)
            kind = self._classes[number]
            described.append(
                [number, kind.__name__, [self._base(base) for base in kind.__bases__], self._members(kind, encode)]
            )
        return described

    def _is_known(self, kind: type) -> bool:
        """Whether the candidate has a class: a builtin class, a mixin, or a class of the repository."""
        builtin = not kind.__flags__ & object_state.HEAP and kind.__module__ in ("builtins", "collections")
        return builtin or mixin_name(kind) is not None or self._names.path_of(kind) is not None

    def _is_describable(self, kind: type) -> bool:
        if type(kind) not in (type, abc.ABCMeta) or not object_state.has_state(kind):
            return False
        return all(self._is_known(base) or self._is_of_tests(base) for base in kind.__mro__)

    def _is_of_tests(self, kind: type) -> bool:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        return type(kind) in (type, abc.ABCMeta) and isinstance(file, str) and file.startswith(self._root)

    def _base(self, kind: type) -> Any:
        if kind in self._numbers and self._numbers[kind] is not None:
            return ["test", self._numbers[kind]]
        if (path := self._names.path_of(kind)) is not None:
            return ["class", path]
        return ["library", mixin_name(kind) or f"{kind.__module__}:{kind.__name__}"]

    def _members(self, kind: type, encode: Callable[[Any], Any]) -> list[Any]:
        members = []
        for name, value in vars(kind).items():
            if name in IGNORED or type(value) is types.MemberDescriptorType:
                continue
            if type(value) is types.FunctionType:
                members.append([name, "method", self._function_number(value)])
            elif type(value) in (staticmethod, classmethod):
                members.append([name, type(value).__name__, self._function_number(value.__func__)])
            elif type(value) is property:
                parts = (value.fget, value.fset, value.fdel)
                members.append([name, "property", [part and self._function_number(part) for part in parts]])
            elif not name.startswith("__") or name in ("__slots__", "__hash__"):
                members.append(
                    [
                        name,
                        "value",
                        encode(tuple(value) if name == "__slots__" and not isinstance(value, str) else value),
                    ]
                )
        return members


def made_class(
    name: str,
    bases: tuple[type, ...],
    members: list[Any],
    call: Callable[[int, tuple[Any, ...], dict[str, Any]], Any],
    decode: Callable[[Any], Any],
) -> type:
    """Make the class that stands for a class of the tests, in the candidate's process.

    Args:
        name: Name of the class.
        bases: Base classes.
        members: Attributes of the class, from `TestClasses.take_pending`.
        call: Calls a function of the tester by its number.
        decode: Decodes a value.
    """

    def function_for(number: int) -> Callable[..., Any]:
        def method(*arguments: Any, **keywords: Any) -> Any:
            return call(number, arguments, keywords)

        return method

    namespace: dict[str, Any] = {}
    for attribute, how, content in members:
        if how == "value":
            namespace |= {attribute: decode(content)} if attribute.startswith("__") else {}
        elif how == "property":
            parts: list[Any] = [function_for(part) if part is not None else None for part in content]
            namespace[attribute] = property(*parts)
        else:
            wrapper: Any = {"staticmethod": staticmethod, "classmethod": classmethod}.get(how, lambda item: item)
            namespace[attribute] = wrapper(function_for(content))
    return types.new_class(name, bases, {}, lambda target: target.update(namespace))


def set_values(kind: type, members: list[Any], decode: Callable[[Any], Any]) -> None:
    """Set the attributes of a class of `made_class` that are no methods.

    They are not set when the class is made: they may be shared objects that are received later, and `__set_name__` of a
    descriptor has already run in the tester.
    """
    for attribute, how, content in members:
        if how == "value" and not attribute.startswith("__"):
            type.__setattr__(kind, attribute, decode(content))
