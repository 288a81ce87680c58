"""The shared objects in the tester's process, which does not trust what the candidate sends."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from . import object_state, wire
from .proxy import PYTHON_EXCEPTIONS
from .remote_object import RemoteObject
from .repository_names import RepositoryNames
from .shared_objects import SharedObjects
from .test_classes import TestClasses

ALONE = 3
"""Value of `sys.getrefcount` for an object that only a dict, a variable and the argument of `getrefcount` refer to."""
MANY = 64
"""Number of new shared objects after which objects are dropped that the tester does not use any more."""


class TesterObjects(SharedObjects):
    """The shared objects that the tester knows.

    The candidate may send instances of the repository's classes, of the classes of the tests that it was told about, and
    builtin containers. It may not put an object in the place of a method, and may not send an object that is equal to
    everything, even if the repository has such a class.

    Args:
        names: Paths of the objects of the repository.
        classes: The classes of the tests.
        other: Encodes a value that is neither plain data nor shared.
        special: Decodes a value that is neither plain data nor shared.
        is_sent: Whether an object is one of the tester's that was sent to the candidate.
    """

    __test__ = False  # no test class of pytest

    def __init__(
        self,
        names: RepositoryNames,
        classes: TestClasses,
        other: Callable[[Any], Any],
        special: Callable[[str, Any], Any],
        is_sent: Callable[[Any], bool],
    ) -> None:
        super().__init__(names, 0, other, special)
        self._is_sent = is_sent
        self._classes = classes
        self.targets: set[types.FunctionType] = set()
        """The functions under test, which run in the candidate's process."""
        self._pruned = 0

    @property
    def has_instances(self) -> bool:
        """Whether an instance of a class is shared, and not only containers."""
        return any(type(value) not in object_state.CONTAINERS for value in self._objects.values())

    def origin(self, kind: type) -> Any:
        known = super().origin(kind)
        if known is not None:
            return known
        number = self._classes.number(kind) if kind.__flags__ & object_state.HEAP else None
        return None if number is None else ["test", number]

    def class_of(self, origin: Any) -> type:
        if type(origin) is list and len(origin) == 2 and origin[0] == "test":
            return self._classes.at(origin[1])
        return super().class_of(origin)

    def apply(self, changes: Any) -> list[Any]:
        new = super().apply(changes)
        for value in new:
            self.check(value)
        return new

    def _tagged(self, tag: str, content: Any) -> Any:
        value = super()._tagged(tag, content)
        if tag in ("g", "v"):
            self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raise WireError if an object that the candidate has made or chosen claims to be equal to everything."""
        kind = type(value)
        compare, differ = kind.__eq__, kind.__ne__
        if (compare is object.__eq__ and differ is object.__ne__) or not kind.__flags__ & object_state.HEAP:
            return
        if kind is RemoteObject or compare in self.targets or differ in self.targets:
            return
        other = object()
        try:
            always = bool(value == other) or not bool(value != other)
        except Exception:  # a comparison with another type may fail
            return
        if always:
            raise wire.WireError("an object that is equal to everything")

    def may_raise(self, kind: type[BaseException]) -> bool:
        """Whether the candidate may raise exceptions of a class: a builtin exception, or one that derives from these."""
        known = (*PYTHON_EXCEPTIONS.values(), BaseException, object)
        return all(base in known or self.origin(base) is not None for base in kind.__mro__)

    def prune(self) -> list[int]:
        """Forget the shared objects that the tester does not use any more. Return their numbers."""
        if len(self._objects) < self._pruned + MANY or self._queue:
            return []
        dropped = []
        for number in list(self._objects):
            value = self._objects[number]
            if sys.getrefcount(value) <= ALONE:
                dropped.append(number)
                del self._numbers[id(value)], self._objects[number]
                self._known.pop(number, None)
                self._parts.pop(number, None)
        del value
        self._pruned = len(self._objects)
        return dropped

    def clear(self) -> None:
        super().clear()
        self._pruned = 0

    def _allows(self, owner: Any, name: str, value: Any) -> bool:
        found = next((vars(kind)[name] for kind in type(owner).__mro__ if name in vars(kind)), None)
        if not isinstance(found, types.FunctionType | classmethod | staticmethod):
            return True
        kept = (object_state.attributes(owner) or {}).get(name)
        plain = value is None or type(value) in (bool, int, float, str, bytes, tuple, *object_state.CONTAINERS)
        return plain or kept is value or self._is_sent(value)
