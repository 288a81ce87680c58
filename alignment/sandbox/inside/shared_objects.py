"""Keeps objects that the tester and the candidate both use the same in both processes.

Each process has a copy of a shared object: an instance of a class of the repository, or a container that can change. Before
a process gives control to the other one, it sends the state of the shared objects that have changed. Only one process runs
at a time, so that both always see the newest state.

==========  ==================================================  =================================================
tag         value                                               content
==========  ==================================================  =================================================
``m``       a shared object                                     its number
``v``       an instance of a class with a fixed builtin value   [class, plain value]
``g``       an object that has a path in the repository         the path, see `RepositoryNames`
``bound``   a method of a shared object                         [object, name]
==========  ==================================================  =================================================

Other values are encoded as `wire` describes. A state message is ``[number, origin, state]``. `origin` says how to make an
object that the receiver does not know, and is None for a known object.
"""

from __future__ import annotations

import json
import operator
import types
from collections.abc import Callable, Iterable
from typing import Any

from . import object_state, wire
from .repository_names import RepositoryNames

MOST_SHARED = 1 << 16
"""Largest number of shared objects in one test."""
_CONTAINER_NAMES = {kind.__name__: kind for kind in object_state.CONTAINERS}


class SharedObjects:
    """The shared objects that one process knows.

    Args:
        names: Paths of the objects of the repository.
        first: Number of the first object that this process adds. The tester takes even numbers, the candidate odd ones.
        other: Encodes a value that is neither plain data nor shared.
        special: Decodes a tag that the table in the module's docstring does not list.
    """

    def __init__(
        self, names: RepositoryNames, first: int, other: Callable[[Any], Any], special: Callable[[str, Any], Any]
    ) -> None:
        self.names = names
        self._other, self._special = other, special
        self._first = self._next = first
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._known: dict[int, str] = {}
        """The last state of each object that both processes know, as JSON."""
        self._visited: set[int] = set()
        self._queue: list[int] = []
        self._parts: dict[int, tuple[list[Any], list[Any]]] = {}
        """The parts of each object when both processes last had the same state, and the shared objects among them."""
        self._referred: list[Any] = []
        """Shared objects that the object refers to whose state is being read or filled."""
        self._may_change = False
        """Whether that object has a part that is sent as a copy and can change."""

    def clear(self) -> None:
        """Forget all shared objects, at the end of a test."""
        self._next = self._first
        self._objects.clear()
        self._numbers.clear()
        self._known.clear()
        self._parts.clear()
        self._visited.clear()
        self._queue.clear()

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget shared objects that the other process has forgotten."""
        for number in numbers:
            if number in self._objects:
                self._numbers.pop(id(self._objects.pop(number)), None)
                self._known.pop(number, None)
                self._parts.pop(number, None)

    # ---- what this process sends

    def encode(self, value: Any, depth: int = 0) -> Any:
        """Encode a value as JSON values. Shared objects in the value are sent with the next `changes`."""
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float or kind is int:
            return wire.encode(value)
        if depth > wire.MAX_DEPTH:
            raise wire.WireError("nested too deeply")
        if kind is tuple or kind is frozenset:
            items = [self.encode(item, depth + 1) for item in kind.__iter__(value)]
            return {"t": items} if kind is tuple else {"f": sorted(items, key=repr)}
        if id(value) in self._numbers or kind in object_state.CONTAINERS:
            return {"m": self._visit(value)}
        if self.names.is_constant(value):
            return {"g": self.names.path_of(value)}
        if self.origin(kind) is not None:
            if object_state.has_state(kind):
                return {"m": self._visit(value)}
            base = object_state.base_of(kind)
            if base in object_state.FIXED:
                return {"v": [self.origin(kind), self.encode(_plain(value, base), depth + 1)]}
        if kind is types.MethodType and self._is_method(value):
            return {"bound": [self.encode(value.__self__, depth + 1), value.__name__]}
        self._may_change = self._may_change or kind not in wire.UNCHANGING
        return wire.encode(value, self._other)

    def origin(self, kind: type) -> Any:
        """Return the description of a class whose instances are copied, or None for other classes."""
        path = self.names.path_of(kind)
        return None if path is None else ["class", path]

    def _is_method(self, method: types.MethodType) -> bool:
        owner = type(method.__self__)
        found = next((vars(kind)[method.__name__] for kind in owner.__mro__ if method.__name__ in vars(kind)), None)
        return found is method.__func__ and self.origin(owner) is not None and object_state.has_state(owner)

    def _visit(self, value: Any) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            if len(self._objects) >= MOST_SHARED:
                raise wire.WireError("too many objects")
            number, self._next = self._next, self._next + 2
            self._add(number, value)
        if number not in self._visited:
            self._visited.add(number)
            self._queue.append(number)
        self._referred.append(value)
        return number

    def _add(self, number: int, value: Any) -> None:
        self._objects[number] = value
        self._numbers[id(value)] = number

    def visit_all(self) -> None:
        """Send the changes of all shared objects with the next `changes`, not only of those that the message refers to."""
        for value in list(self._objects.values()):
            self._visit(value)

    def changes(self) -> list[Any]:
        """Return the states of the visited objects that have changed, and of all objects that these refer to."""
        changed = []
        while self._queue:
            number = self._queue.pop()
            value = self._objects[number]
            parts = object_state.parts(value)
            if self._is_unchanged(number, value, parts):
                for referred in self._parts[number][1]:
                    self._visit(referred)
                continue
            self._begin_parts()
            state = object_state.read(value, self.encode)
            self._end_parts(number, parts)
            text = json.dumps(state)
            if self._known.get(number) != text:
                origin = None if number in self._known else self._origin_of(value)
                changed.append([number, origin, state])
                self._known[number] = text
        self._visited.clear()
        return changed

    def _is_unchanged(self, number: int, value: Any, parts: list[Any]) -> bool:
        if number not in self._parts or type(value) is bytearray:
            return False
        known = self._parts[number][0]
        return len(known) == len(parts) and all(map(operator.is_, known, parts))

    def _begin_parts(self) -> None:
        self._referred, self._may_change = [], False

    def _end_parts(self, number: int, parts: list[Any]) -> None:
        if self._may_change:
            self._parts.pop(number, None)
        else:
            self._parts[number] = parts, self._referred
        self._referred = []

    def _origin_of(self, value: Any) -> Any:
        path = self.names.path_of(value)
        if path is not None:
            return ["path", path]
        kind = type(value)
        return ["builtin", kind.__name__] if kind in object_state.CONTAINERS else self.origin(kind)

    # ---- what this process receives

    def decode(self, data: Any, depth: int = 0) -> Any:
        """Decode a value. Call `apply` with the changes of the message before."""
        return wire.decode(data, self._tagged, depth)

    def _tagged(self, tag: str, content: Any) -> Any:
        if tag == "m":
            if type(content) is not int or content not in self._objects:
                raise wire.WireError("no such object")
            self._referred.append(self._objects[content])
            return self._objects[content]
        if tag == "g":
            value = self.names.at(content)
            if not self.names.is_constant(value):
                raise wire.WireError("not a constant of the repository")
            return value
        if tag == "v":
            origin, inner = content
            kind = self.class_of(origin)
            base = object_state.base_of(kind)
            plain = self.decode(inner)
            if base not in object_state.FIXED or type(plain) is not base:
                raise wire.WireError("malformed data")
            return base.__new__(kind, plain)
        if tag == "bound":
            owner, name = self.decode(content[0]), content[1]
            function = next((vars(kind)[name] for kind in type(owner).__mro__ if name in vars(kind)), None)
            if self._numbers.get(id(owner)) is None or type(function) is not types.FunctionType:
                raise wire.WireError("no such method")
            return types.MethodType(function, owner)
        return self._special(tag, content)

    def class_of(self, origin: Any) -> type:
        """Return the class that `origin` describes. Raises WireError if there is none."""
        if type(origin) is list and len(origin) == 2 and origin[0] == "class":
            return self.names.class_at(origin[1])
        raise wire.WireError("malformed data")

    def apply(self, changes: Any) -> list[Any]:
        """Take over the changes that the other process sent. Return the objects that were not known before.

        Raises:
            WireError: The changes are malformed.
        """
        if type(changes) is not list or not all(type(change) is list and len(change) == 3 for change in changes):
            raise wire.WireError("malformed changes")
        new = []
        for number, origin, _ in changes:
            if type(number) is not int:
                raise wire.WireError("malformed changes")
            if number not in self._objects:
                if number % 2 == self._first % 2 or origin is None or len(self._objects) >= MOST_SHARED:
                    raise wire.WireError("a change of no object")
                value = self._made(origin)
                if id(value) in self._numbers:
                    raise wire.WireError("an object with two numbers")
                self._add(number, value)
                new.append(value)
        self._before_filling()
        # Instances before dicts and sets: these call the methods `__hash__` and `__eq__` of the instances.
        for number, _, state in sorted(changes, key=lambda change: isinstance(self._objects[change[0]], dict | set)):
            self._known[number] = json.dumps(state)
            self._begin_parts()
            try:
                object_state.fill(self._objects[number], state, self.decode, self._allows)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise wire.WireError(f"malformed state: {type(error).__name__}: {error}") from None
            self._parts.pop(number, None)  # read once more, because a part may be a copy that can change
        return new

    def _before_filling(self) -> None:
        """Called when all objects of a message exist, before they get their states."""

    def _made(self, origin: Any) -> Any:
        if type(origin) is list and len(origin) == 2 and origin[0] == "builtin":
            if origin[1] not in _CONTAINER_NAMES:
                raise wire.WireError("malformed changes")
            return _CONTAINER_NAMES[origin[1]]()
        if type(origin) is list and len(origin) == 2 and origin[0] == "path":
            value = self.names.at(origin[1])
            if type(value) in object_state.CONTAINERS or object_state.has_state(type(value)):
                return value
            raise wire.WireError("an object without state")
        kind = self.class_of(origin)
        if not object_state.has_state(kind):
            raise wire.WireError("an object without state")
        return object_state.blank(kind)

    def _allows(self, owner: Any, name: str, value: Any) -> bool:
        """Whether an attribute may have this value."""
        return True


def _plain(value: Any, base: type) -> Any:
    """Return the value of an instance of a subclass, read with the methods of the builtin base class."""
    if base is int:
        return int.__pos__(value)
    if base is float:
        return float.__pos__(value)
    return "".join(str.__iter__(value)) if base is str else base(base.__iter__(value))  # type: ignore[attr-defined]
