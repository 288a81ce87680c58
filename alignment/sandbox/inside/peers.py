"""Extends the remote calls of `proxy`, so that functions and methods of a repository can be tested.

Instances of the repository's classes are copied with their state (`shared_objects`): the tester has an object of the same
class, whose other methods are the original ones. Iterators are read lazily. Exceptions and library functions are sent by
their names. Any other object of the tester that is not plain data is sent as a token, which the candidate can only pass
back. If the candidate could read attributes of the tester's objects, it could reach the tests through these attributes.
"""

from __future__ import annotations

import threading
import types
from typing import Any

from . import library_names, wire
from .channel import ChannelError
from .proxy import PYTHON_EXCEPTIONS, Callback, CandidateServer, TesterClient
from .remote_object import NotPlain, RemoteObject
from .repository_names import RepositoryNames
from .shared_objects import SharedObjects
from .test_classes import TestClasses, made_class, mixin_name, set_values
from .tester_objects import TesterObjects

LOCKS: dict[type, str] = {
    type(threading.Lock()): "RLock", type(threading.RLock()): "RLock", threading.Condition: "Condition", threading.Event: "Event",
    threading.Semaphore: "Semaphore",
}  # fmt: skip
"""Types of locks, with the name of the class in `threading` that stands for a lock in the other process. Only one process
runs at a time, so that each process can have its own lock."""
MOST_ARGUMENTS = 100
"""Largest number of arguments of an exception that is copied."""


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


class CandidateObjects(SharedObjects):
    """The shared objects in the candidate's process, with the classes that stand for classes of the tests."""

    def __init__(self, names: RepositoryNames, server: PeerServer) -> None:
        super().__init__(names, 1, server.other, server.special)
        self.classes: dict[int, type] = {}
        self.class_numbers: dict[type, int] = {}
        self._unfinished: list[tuple[type, list[Any]]] = []

    def origin(self, kind: type) -> Any:
        number = self.class_numbers.get(kind)
        return super().origin(kind) if number is None else ["test", number]

    def class_of(self, origin: Any) -> type:
        return self.classes[origin[1]] if origin[0] == "test" else super().class_of(origin)

    def define(self, description: list[Any], server: PeerServer) -> None:
        """Make the class that stands for a class of the tests."""
        number, name, bases, members = description
        found = [library_names.from_tester(base[1]) if base[0] == "library" else self.class_of(base) for base in bases]
        kind = made_class(name, tuple(found), members, server.call_back, self.decode)
        self.classes[number] = kind
        self.class_numbers[kind] = number
        self._unfinished.append((kind, members))

    def _before_filling(self) -> None:
        while self._unfinished:
            set_values(*self._unfinished.pop(0), self.decode)


class PeerServer(CandidateServer):
    """Answers, in the candidate's process, the tester's calls of the functions under test.

    Args:
        channel: The channel to the tester.
        targets: The functions under test.
        names: Paths of the objects of the repository.
    """

    def __init__(self, channel: Any, targets: list[Any], names: RepositoryNames) -> None:
        super().__init__(channel, {"target": targets[0]})
        self.objects.extend(targets)
        self.targets = len(targets)
        self.tokens: dict[int, Any] = {}
        self.shared = CandidateObjects(names, self)
        self._active: list[Any] = []
        """Arguments of the calls that have not returned."""
        self._numbers: dict[int, Any] = {}
        """What stands for an object of the tester, by the identity of the object."""

    def receive(self) -> dict[str, Any]:
        message = super().receive()
        if message.get("reset"):
            self.shared.clear()
        try:
            self.shared.drop(message.get("drop", ()))
            for description in message.get("classes", ()):
                self.shared.define(description, self)
            self.shared.apply(message.get("changes", []))
        except Exception as error:  # such as a class of the tests that cannot be made here
            message["problem"] = error
        return message

    def send(self, message: dict[str, Any]) -> None:
        if len(self.objects) > self.targets:
            self.shared.visit_all()
        else:
            for value in self._active:
                self.shared.encode(value)
        super().send(message | {"changes": self.shared.changes()})

    def encode(self, value: Any) -> Any:
        return self.shared.encode(value)

    def _decode(self, data: Any) -> Any:
        return self.shared.decode(data)

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        if "problem" in request:
            raise request["problem"]
        depth = len(self._active)
        try:
            return super()._do(request)
        finally:
            for value in self._active[depth:]:
                self.shared.encode(value)
            del self._active[depth:]

    def _call(self, function: Any, arguments: Any, keywords: Any) -> dict[str, Any]:
        self._active += [arguments, keywords]
        return {"value": self.encode(function(*arguments, **keywords))}

    def _described(self, error: BaseException) -> dict[str, Any]:
        described = super()._described(error)
        try:
            return described | {"raised": self.encode(error)}
        except Exception:  # an argument of the exception cannot be sent
            return described

    def _raised(self, message: dict[str, Any]) -> BaseException:
        error = self._decode(message["raised"])
        return error if isinstance(error, BaseException) else Exception(message["text"])

    def other(self, value: Any) -> Any:
        """Encode an object that is neither plain data nor shared."""
        kind = type(value)
        if kind is Token:
            return {"peer": [value.number, "token"]}
        if kind in (Callback, CallbackIterator):
            return {"peer": [value._number, "function" if kind is Callback else "iterator"]}
        known = self._numbers.get(id(value))
        if known is not None and known[1] is value:
            return {"peer": known[0]}
        if isinstance(value, type) and value in self.shared.class_numbers:
            return {"class": self.shared.class_numbers[value]}
        name = library_names.library_name(value)
        if name is not None:
            return {"library": name}
        if isinstance(value, BaseException) and (name := library_names.library_name(kind)) is not None:
            return {"error": [{"library": name}, [self.encode(item) for item in value.args[:MOST_ARGUMENTS]]]}
        return {"lock": [self._hold(value)["r"], LOCKS[kind]]} if kind in LOCKS else self._hold(value)

    def special(self, tag: str, content: Any) -> Any:
        """Decode an object that is neither plain data nor shared."""
        if tag == "library":
            return library_names.from_tester(content)
        if tag == "class":
            return self.shared.classes[content]
        if tag == "error":
            kind, arguments, number = content
            error = _made_error(self._decode(kind), [self._decode(item) for item in arguments])
            self._numbers[id(error)] = [number, "error"], error
            return error
        if tag == "peer":
            return self._peer(*content)
        return super()._special(tag, content)

    def _peer(self, number: int, kind: str) -> Any:
        if number not in self.tokens:
            maker = {"function": Callback, "iterator": CallbackIterator}.get(kind)
            if kind in LOCKS.values():
                self.tokens[number] = lock = getattr(threading, kind)()
                self._numbers[id(lock)] = [number, kind], lock
            else:
                self.tokens[number] = maker(self, number) if maker else Token(number)
        return self.tokens[number]


def _made_error(kind: type[BaseException], arguments: list[Any]) -> BaseException:
    try:
        return kind(*arguments)
    except TypeError:  # such as UnicodeDecodeError, whose arguments have fixed types
        error = kind.__new__(kind)
        error.args = tuple(arguments)
        return error


# ---- the tester's side


class PeerClient(TesterClient):
    """Calls the functions of a `PeerServer` from the tester's process.

    Args:
        channel: The channel to the candidate.
        names: Paths of the objects of the repository.
        root: Folder of the repository.
    """

    def __init__(self, channel: Any, names: RepositoryNames, root: str) -> None:
        super().__init__(channel)
        self.owners: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.named: set[str] = set()
        self.locks: dict[int, Any] = {}
        self.classes = TestClasses(names, root, lambda function: self._number(function, function))
        self.shared = TesterObjects(
            names, self.classes, self._other, self._received, lambda value: id(value) in self.numbers
        )
        self._reset = False
        self._waiting = 0
        """Number of requests without a reply. It is above 1 while the candidate calls functions of the tester."""
        self._most_handle = -1
        self._lock = threading.RLock()

    def begin_test(self) -> None:
        """Forget the shared objects of the test before."""
        self.shared.clear()
        self._reset = True

    def call(self, handle: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call an object of the candidate."""
        # No `with` and no `try` here: an exception of `value` must reach the test without a handler on its way (`steering`).
        encoded = self.encode(arguments), self.encode(keywords)
        value = self.value(do="call", object=handle, arguments=encoded[0], keywords=encoded[1])
        if not self._waiting and self._most_handle < 0 and not self.shared.has_instances:
            self.begin_test()  # only containers: the candidate has no reason to know them after the call
        return value

    def request(self, **message: Any) -> dict[str, Any]:
        with self._lock:
            self._waiting += 1
            try:
                return super().request(**message)
            finally:
                self._waiting -= 1

    def send(self, message: dict[str, Any]) -> None:
        if self._most_handle >= 0 or "serial" not in message:
            self.shared.visit_all()
        changes = self.shared.changes()
        extra: dict[str, Any] = {"changes": changes, "classes": self.classes.take_pending(self.encode)}
        extra["changes"] = [*changes, *self.shared.changes()]  # the descriptions of classes may refer to more objects
        if self._reset:
            extra["reset"], self._reset = True, False
        if dropped := self.shared.prune():
            extra["drop"] = dropped
        super().send(message | {key: value for key, value in extra.items() if value})

    def receive(self) -> dict[str, Any]:
        message = super().receive()
        self.shared.apply(message.get("changes", []))
        return message

    def encode(self, value: Any) -> Any:
        return self.shared.encode(value)

    def decode(self, data: Any) -> Any:
        return self.shared.decode(data)

    def _described(self, error: Exception) -> dict[str, Any]:
        described = super()._described(error)
        try:
            encoded = self.encode(error)
        except NotPlain:
            encoded = {"error": [{"library": "builtins:Exception"}, [described["text"]], self._number(error, _refuse)]}
        return described | {"raised": encoded}

    def _exception(self, reply: dict[str, Any]) -> Exception:
        fallback = super()._exception(reply)
        if "raised" not in reply:
            return fallback
        try:
            error = self.shared.decode(reply["raised"])
        except wire.WireError as problem:
            raise self.lost(f"malformed data: {problem}") from None
        return error if isinstance(error, Exception) and self.shared.may_raise(type(error)) else fallback

    def _other(self, value: Any) -> Any:
        """Encode an object that is neither plain data nor shared."""
        if isinstance(value, RemoteObject):
            return {"r": object.__getattribute__(value, "_handle")}
        name = library_names.standard_name(value) or (mixin_name(value) if isinstance(value, type) else None)
        if name is not None:
            self.named.add(name)
            return {"library": name}
        if isinstance(value, type) and (number := self.classes.number(value)) is not None:
            return {"class": number}
        if isinstance(value, BaseException) and (name := library_names.library_name(type(value))) is not None:
            arguments = [self.encode(item) for item in value.args[:MOST_ARGUMENTS]]
            return {"error": [{"library": name}, arguments, self._number(value, _refuse)]}
        if isinstance(value, type | types.ModuleType | BaseException):
            raise NotPlain(f"a {type(value).__name__} cannot be passed to the program: it is not plain data")
        if type(value) in LOCKS:
            handle = next((handle for handle, lock in self.locks.items() if lock is value), None)
            return {"peer": [self._number(value, _refuse), LOCKS[type(value)]]} if handle is None else {"r": handle}
        if getattr(type(value), "__next__", None) is not None:
            return {"peer": [self._number(value, value.__next__), "iterator"]}
        if callable(value):
            return {"peer": [self._number(value, value), "function"]}
        return {"peer": [self._number(value, _refuse), "token"]}

    def _number(self, owner: Any, function: Any) -> int:
        """Register `function` as the handler of calls of `owner` from the candidate. Return the id of `owner`."""
        known = self.numbers.get(id(owner))
        if known is None:
            known = self.numbers[id(owner)] = len(self.functions)
            self.functions.append(function)
            self.owners.append(owner)  # keeps `owner` alive, so that no other object gets the same id
        return known

    def _received(self, tag: str, content: Any) -> Any:
        """Decode an object that is neither plain data nor shared."""
        if tag == "library":
            return (
                library_names.from_tester(content) if content in self.named else library_names.from_candidate(content)
            )
        if tag == "class":
            return self.classes.at(content)
        if tag == "peer":
            number = content[0] if type(content) is list and len(content) == 2 else None
            if type(number) is not int or not 0 <= number < len(self.owners):
                raise wire.WireError("no such object of the tester")
            return self.owners[number]
        if tag == "error" and type(content) is list and len(content) == 2:
            return self._error(*content)
        if tag == "lock" and type(content) is list and content[1:] in [[name] for name in LOCKS.values()]:
            handle = wire.typed(content[0], int)
            return self.locks.setdefault(handle, getattr(threading, content[1])())
        if tag == "r" and type(content) is int:
            self._most_handle = max(self._most_handle, content)
        return super()._proxy(tag, content)

    def _error(self, kind: Any, arguments: Any) -> Exception:
        made = self.shared.decode(kind)
        known: Any = PYTHON_EXCEPTIONS.get(made.__name__) if isinstance(made, type) else None
        if known is None or known is not made:
            raise wire.WireError("malformed data")
        error = _made_error(known, [self.shared.decode(item) for item in wire.typed(arguments, list)[:MOST_ARGUMENTS]])
        if not isinstance(error, Exception):
            raise ChannelError("not an exception")
        return error


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError("this object cannot be called")
