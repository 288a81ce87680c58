"""Remote calls from the tester (the process with the tests) to the candidate (the process with the tested program).

Plain data is copied. Every other object stays in the candidate's process: `CandidateServer` sends an id of the
object (its handle), and `TesterClient` makes a proxy for this id. Comparing a proxy raises an exception, because if
the comparison returned False, a test with ``!=`` would pass. If the tester passes a function as an argument, the
candidate can call the function in the same way.
"""

from __future__ import annotations

import builtins
from typing import Any

from . import wire
from .channel import Channel, ChannelError
from .remote_object import NotPlain, RemoteObject
from .steering import RaisedExceptions

PYTHON_EXCEPTIONS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
}
CAP = 1 << 20
"""Largest number of objects of one program that get a handle (an id for the other process)."""
MUTABLE = (list, dict, set, bytearray)


class CandidateGone(BaseException):
    """Raised if the candidate's process ended or broke the protocol. Every later request fails too."""


class RemoteError(Exception):
    """Stands for a candidate's exception whose only builtin base class is `Exception`."""


# ---- the candidate's side


def resolve(namespace: dict[str, Any], entry_point: str) -> Any:
    """Return the object that an entry point names.

    Args:
        namespace: The candidate's globals.
        entry_point: ``name`` or ``Class.method``. The class is instantiated without arguments.

    Raises:
        LookupError: The candidate has no global with this name.
    """
    name, *rest = entry_point.split(".")
    if name not in namespace:
        raise LookupError(entry_point)
    target = namespace[name]
    for part in rest:
        if isinstance(target, type):
            target = target()
        target = getattr(target, part)
    return target


class Callback:
    """Represents a function of the tester in the candidate's process. A call is sent to the tester."""

    def __init__(self, server: CandidateServer, number: int) -> None:
        self._server = server
        self._number = number

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._server.call_back(self._number, arguments, keywords)


class CandidateServer:
    """Answers the tester's requests in the candidate's process.

    Args:
        channel: The channel to the tester.
        namespace: The candidate's globals.
    """

    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        self.channel = channel
        self.namespace = namespace
        self.objects: list[Any] = []

    def serve(self) -> None:
        """Answer requests until the channel is closed, then raise ChannelError."""
        while True:
            self.answer(self.receive())

    def receive(self) -> dict[str, Any]:
        """Wait for the next message of the tester."""
        message: dict[str, Any] = self.channel.receive()
        return message

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to the tester. Raises ValueError if the message is too long."""
        self.channel.send(message)

    def encode(self, value: Any) -> Any:
        """Encode a value of the candidate as JSON values."""
        return wire.encode(value, self._hold)

    def answer(self, request: dict[str, Any]) -> None:
        """Carry out one request. Send its result, or the exception that was raised."""
        reply: dict[str, Any] = {"serial": request["serial"]}
        try:
            reply.update(self._do(request))
        except ChannelError:
            raise
        except BaseException as error:
            reply.update(self._described(error))
        try:
            self.send(reply)
        except ValueError:
            self.channel.send({"serial": request["serial"], "error": ["OverflowError"], "text": "too much data"})

    def _described(self, error: BaseException) -> dict[str, Any]:
        """Return the part of a reply that describes an exception."""
        return {"error": _class_names(error), "text": _text(error)}

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request["do"]
        if operation == "name":
            try:
                target = resolve(self.namespace, request["name"])
            except LookupError:
                return {"missing": True}
            return {"value": self.encode(target)}
        subject = self.objects[request["object"]]
        if operation == "call":
            return self._call(subject, self._decode(request["arguments"]), self._decode(request["keywords"]))
        if operation == "get":
            return {"value": self.encode(getattr(subject, request["name"]))}
        if operation == "set":
            setattr(subject, request["name"], self._decode(request["value"]))
            return {"value": None}
        if operation == "method":
            method = getattr(subject, request["name"])
            return {"value": self.encode(method(*self._decode(request["arguments"])))}
        raise ValueError(f"unknown operation {operation!r}")

    def _call(self, function: Any, arguments: Any, keywords: Any) -> dict[str, Any]:
        """Call a function. The reply has the value, and the arguments that the call has changed."""
        before = [self.encode(item) if type(item) in MUTABLE else None for item in arguments]
        value = self.encode(function(*arguments, **keywords))
        after = [self.encode(item) if type(item) in MUTABLE else None for item in arguments]
        changed = [[index, new] for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        return {"value": value, "changed": changed}

    def _hold(self, value: Any) -> dict[str, int]:
        """Return a handle (an id) of an object.

        Reuse an existing handle if one of the last 64 handles is a handle of the same object.
        """
        for index in range(max(0, len(self.objects) - 64), len(self.objects)):
            if self.objects[index] is value:
                return {"r": index}
        if len(self.objects) >= CAP:
            raise wire.WireError("too many objects")
        self.objects.append(value)
        return {"r": len(self.objects) - 1}

    def _decode(self, data: Any) -> Any:
        return wire.decode(data, self._special)

    def _special(self, tag: str, content: Any) -> Any:
        if tag == "r":
            return self.objects[content]
        if tag == "function":
            return Callback(self, content)
        raise wire.WireError("malformed data")

    def call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call a function of the tester and return its result."""
        data = self.encode(arguments), self.encode(keywords)
        self.send({"function": number, "arguments": data[0], "keywords": data[1]})
        while True:
            message = self.receive()
            if "returned" in message:
                return self._decode(message["returned"])
            if "raised" in message:
                raise self._raised(message)
            self.answer(message)  # the tester's function calls the candidate before it returns

    def _raised(self, message: dict[str, Any]) -> BaseException:
        """Return the exception that a function of the tester raised."""
        return PYTHON_EXCEPTIONS.get(message["raised"], Exception)(message["text"])


def _class_names(error: BaseException) -> list[str]:
    return [kind.__name__[:100] for kind in type(error).__mro__][:20]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:
        return ""


# ---- the tester's side


class TesterClient:
    """Sends requests to the candidate. After the candidate has ended, every request raises CandidateGone."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.serial = 0
        self.sent = 0
        self.most: float = float("inf")
        """Maximum of `sent`, the number of messages sent to the candidate."""
        self.gone = False
        self.gone_because = ""
        """Why `gone` was set."""
        self.functions: list[Any] = []
        """Functions of the tester that the candidate can call."""
        self.errors: list[str] = []
        """Class name and text of each exception that the candidate raised."""
        self.calls = 0
        """Number of calls of the candidate's objects and their methods."""
        self.raised = RaisedExceptions()

    def request(self, **message: Any) -> dict[str, Any]:
        """Send a request and return the reply. Meanwhile, run functions of the tester that the candidate calls."""
        if self.gone:
            raise CandidateGone("the program ended")
        if self.sent >= self.most:
            raise NotPlain("too many messages")
        self.serial += 1
        self.sent += 1
        self.calls += message["do"] in ("call", "method")
        serial = self.serial
        try:
            self.send({"serial": serial, **message})
            while True:
                reply = self.receive()
                if "function" in reply:
                    self._called_back(reply)
                elif reply.get("serial") == serial:
                    return reply
                else:
                    raise ChannelError("a reply to no request")
        except (ChannelError, wire.WireError, ValueError) as error:
            raise self.lost(str(error)) from None

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to the candidate."""
        self.channel.send(message)

    def receive(self) -> dict[str, Any]:
        """Wait for the next message of the candidate. Raises ChannelError or WireError if the message is malformed."""
        message = self.channel.receive()
        if type(message) is not dict:
            raise ChannelError("not a reply")
        return message

    def lost(self, why: str) -> CandidateGone:
        """Note that the candidate ended or broke the protocol. Return the exception that says so."""
        self.gone = True
        self.gone_because = self.gone_because or why
        return CandidateGone(why)

    def value(self, **message: Any) -> Any:
        """Send a request and return the value in the reply. If the candidate raised an exception, raise it here."""
        reply = self.request(**message)
        if "error" in reply:
            error = self._exception(reply)
            if not _ends_protocol(message, error):
                self.raised.add(error)
            raise error
        try:
            return self.decode(reply["value"])
        except (wire.WireError, KeyError) as error:
            raise self.lost(f"malformed data: {error}") from None

    def name(self, name: str) -> Any:
        """Return the candidate's global with this name. Raises LookupError if there is no such global."""
        reply = self.request(do="name", name=name)
        if "missing" in reply or "value" not in reply:
            raise LookupError(name)
        try:
            value = self.decode(reply["value"])
        except wire.WireError as error:
            raise CandidateGone(str(error)) from None
        if isinstance(value, RemoteObject) and name[:1].isupper() and "." not in name:
            object.__setattr__(value, "_is_class", True)
        return value

    def call(self, handle: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call an object of the candidate. Arguments that the call changes in place are changed in this process too."""
        encoded = [self.encode(item) for item in arguments]
        message = {"do": "call", "object": handle, "arguments": {"t": encoded}, "keywords": self.encode(keywords)}
        reply = self.request(**message)
        if "error" in reply:
            error = self._exception(reply)
            self.raised.add(error)
            raise error
        try:
            for index, new in reply.get("changed", ()):
                _overwrite(arguments[index], self.decode(new))
            return self.decode(reply["value"])
        except (wire.WireError, KeyError, TypeError, IndexError, ValueError) as error:
            raise self.lost(f"malformed data: {error}") from None

    def encode(self, value: Any) -> Any:
        """Encode a value of the tester as JSON values."""
        return wire.encode(value, self._special)

    def decode(self, data: Any) -> Any:
        """Decode a value of the candidate from JSON values."""
        return wire.decode(data, self._proxy)

    def _special(self, value: Any) -> Any:
        if isinstance(value, RemoteObject):
            return {"r": object.__getattribute__(value, "_handle")}
        if callable(value):
            self.functions.append(value)
            return {"function": len(self.functions) - 1}
        raise NotPlain(f"a {type(value).__name__} cannot be passed to the program: it is not plain data")

    def _proxy(self, tag: str, content: Any) -> Any:
        if tag == "r" and type(content) is int:
            return RemoteObject(self, content)
        raise wire.WireError("malformed data")

    def _called_back(self, message: dict[str, Any]) -> None:
        number = message["function"]
        if type(number) is not int or not 0 <= number < len(self.functions):
            raise ChannelError("a call of no function")
        arguments, keywords = self.decode(message.get("arguments")), self.decode(message.get("keywords"))
        if type(arguments) is not tuple or type(keywords) is not dict or not all(type(key) is str for key in keywords):
            raise ChannelError("not a call")
        try:
            answer = {"returned": self.encode(self.functions[number](*arguments, **keywords))}
        except Exception as error:
            answer = self._described(error)
        self.sent += 1
        self.send(answer)

    def _described(self, error: Exception) -> dict[str, Any]:
        """Return the message that describes an exception of a function of the tester."""
        return {"raised": type(error).__name__, "text": str(error)[:500]}

    def _exception(self, reply: dict[str, Any]) -> Exception:
        """Return the exception that the candidate raised.

        Its class is the first builtin exception among the base classes named in the reply, otherwise RemoteError.
        """
        names, text = reply["error"], str(reply.get("text", ""))[:500]
        if type(names) is not list or not all(type(name) is str for name in names):
            raise self.lost("malformed data")
        self.errors.append(f"{names[0] if names else 'Exception'}: {text}")
        for name in names:
            kind = PYTHON_EXCEPTIONS.get(name)
            if kind is not None and kind is not Exception:
                try:
                    return kind(text)
                except TypeError:
                    continue
        return RemoteError(self.errors[-1])


def _ends_protocol(message: dict[str, Any], error: BaseException) -> bool:
    """Whether an exception is a normal answer to a request rather than an error of the candidate.

    Normal answers are the end of an iterator and a missing attribute.
    """
    if message["do"] == "get":
        return isinstance(error, AttributeError)
    if message["do"] == "call":
        return False
    if message["name"] == "__next__":
        return isinstance(error, StopIteration)
    return isinstance(error, AttributeError | TypeError)


def _overwrite(target: Any, new: Any) -> None:
    """Replace the content of a mutable argument with its content after the candidate's call."""
    if type(target) is not type(new) or type(target) not in MUTABLE:
        raise wire.WireError("an argument changed its type")
    if isinstance(target, list | bytearray):
        target[:] = new
    else:
        target.clear()
        target.update(new)
