"""Extends the remote calls of `proxy`, so that a function of a repository can be tested.

Iterators are read lazily. Exceptions and library functions are sent by their names. Any other object of the tester that
is not plain data is sent as a token, which the candidate can only pass back. If the candidate could read attributes of
the tester's objects, it could reach the tests through these attributes.
"""

from __future__ import annotations

import importlib
import types
from typing import Any

from . import wire
from .proxy import PYTHON_EXCEPTIONS, Callback, CandidateGone, CandidateServer, TesterClient
from .remote_object import NotPlain, RemoteObject

LIBRARY = ("builtins", "operator", "math", "itertools", "functools", "string")
"""Modules whose functions and types are sent to the other process by name, instead of as the id of an object."""
_NAMED = (type, types.BuiltinFunctionType)


def library_name(value: Any) -> str | None:
    """Return ``module:name`` for a builtin exception or a function or type of `LIBRARY`, or None for other objects."""
    name = getattr(value, "__name__", None) if isinstance(value, _NAMED) else None
    if type(name) is not str:
        return None
    if isinstance(value, type) and PYTHON_EXCEPTIONS.get(name) is value:
        return f"builtins:{name}"
    module = value.__module__ if type(getattr(value, "__module__", None)) is str else None
    module = {"_operator": "operator", "_functools": "functools"}.get(module or "", module)
    if module in LIBRARY and getattr(importlib.import_module(module), name, None) is value:
        return f"{module}:{name}"
    return None


def from_library(content: Any) -> Any:
    """Return the object that ``module:name`` denotes. Raises WireError if `content` denotes no object of `LIBRARY`."""
    module, _, name = str(content).partition(":")
    if module not in LIBRARY or not hasattr(importlib.import_module(module), name):
        raise wire.WireError("malformed data")
    return getattr(importlib.import_module(module), name)


# ---- the candidate's side


class CallbackIterator:
    """Represents an iterator of the tester in the candidate's process."""

    def __init__(self, server: CandidateServer, number: int) -> None:
        self._server = server
        self._number = number

    def __iter__(self) -> CallbackIterator:
        return self

    def __next__(self) -> Any:
        return self._server.call_back(self._number, (), {})


class Token:
    """Represents, in the candidate's process, an object of the tester that is neither a function nor an iterator."""

    def __init__(self, number: int) -> None:
        self.number = number


class PeerServer(CandidateServer):
    """Answers, in the candidate's process, the tester's calls of the function under test (named ``target``)."""

    def __init__(self, channel: Any, namespace: dict[str, Any]) -> None:
        super().__init__(channel, namespace)
        self.tokens: dict[int, Any] = {}

    def _hold(self, value: Any) -> Any:
        if type(value) is Token:
            return {"token": value.number}
        if type(value) in (Callback, CallbackIterator):
            return {"token": value._number}
        name = library_name(value)
        return {"library": name} if name is not None else super()._hold(value)

    def _special(self, tag: str, content: Any) -> Any:
        if tag == "library":
            return from_library(content)
        if tag in ("function", "iterator", "token"):
            if content not in self.tokens:
                kind = {"function": Callback, "iterator": CallbackIterator}.get(tag)
                self.tokens[content] = kind(self, content) if kind else Token(content)
            return self.tokens[content]
        return super()._special(tag, content)


# ---- the tester's side


class PeerClient(TesterClient):
    """Calls the function of a `PeerServer` from the tester's process."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        self.owners: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.named: set[str] = set()

    def target_handle(self) -> int:
        """Return the id by which requests name the function under test."""
        target = self.name("target")
        if not isinstance(target, RemoteObject):
            raise CandidateGone("no function")
        return int(object.__getattribute__(target, "_handle"))

    def _special(self, value: Any) -> Any:
        if isinstance(value, RemoteObject):
            return {"r": object.__getattribute__(value, "_handle")}
        name = library_name(value)
        if name is not None:
            self.named.add(name)
            return {"library": name}
        if isinstance(value, type | types.ModuleType | BaseException):
            raise NotPlain(f"a {type(value).__name__} cannot be passed to the program: it is not plain data")
        iterator = getattr(type(value), "__next__", None)
        if iterator is not None:
            return {"iterator": self._number(value, value.__next__)}
        if callable(value):
            return {"function": self._number(value, value)}
        return {"token": self._number(value, None)}

    def _number(self, owner: Any, function: Any) -> int:
        """Register `function` as the handler of calls of `owner` from the candidate. Return the id of `owner`."""
        known = self.numbers.get(id(owner))
        if known is None:
            known = self.numbers[id(owner)] = len(self.functions)
            self.functions.append(function if function is not None else _refuse)
            self.owners.append(owner)  # keeps `owner` alive, so that no other object gets the same id
        return known

    def _proxy(self, tag: str, content: Any) -> Any:
        if tag == "library" and content in self.named:
            return from_library(content)
        if tag == "token" and type(content) is int and 0 <= content < len(self.owners):
            return self.owners[content]
        return super()._proxy(tag, content)


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError("this object cannot be called")
