"""Defines `RemoteObject`, the tester's proxy for an object of the candidate that is not plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .proxy import TesterClient

COMMON_METHODS = {
    "add", "as_integer_ratio", "clear", "conjugate", "copy", "count", "decode", "discard", "encode", "find", "format",
    "from_bytes", "fromhex", "hex", "index", "intersection", "join", "pop", "remove", "replace", "rfind", "rindex",
    "split", "difference", "symmetric_difference", "title", "translate", "union", "update",
}  # fmt: skip
"""Methods of plain types that tests may also call on proxies, because classes often define methods with these names and
tests compare the results."""
PLAIN_METHODS = {
    name for kind in (str, bytes, int, float, frozenset, set) for name in vars(kind) if not name.startswith("_")
} - COMMON_METHODS | {"equals", "all", "any", "array_equal", "allclose"}
"""Methods that tests may call on plain values, but not on a proxy. The last five names are from numpy and pandas."""


READABLE = ("__name__", "__doc__", "__qualname__", "__module__", "__wrapped__", "__dict__")
"""Special attributes of proxies that are forwarded: those that decorators copy (`functools.update_wrapper`)."""


class NotPlain(BaseException):
    """Raised if a test needs a plain value, but the object is not plain data.

    The base class is BaseException, so that ``except Exception`` in a test does not catch it.
    """


class RemoteObject:
    """A proxy for an object of the candidate that is not plain data.

    Calls, attributes, iteration, items and context managers are forwarded to the object. Comparisons, conversions and
    arithmetic raise NotPlain. Methods of `PLAIN_METHODS` also raise NotPlain: a test that calls ``startswith`` expects
    text, and a method written by the candidate could always return True. These methods are forwarded only if the test
    code itself made the object from a class of the candidate.
    """

    __slots__ = ("_client", "_handle", "_is_class", "_is_instance")

    def __init__(self, client: TesterClient, handle: int) -> None:
        object.__setattr__(self, "_client", client)
        object.__setattr__(self, "_handle", handle)
        object.__setattr__(self, "_is_class", False)
        object.__setattr__(self, "_is_instance", False)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        value = self._client.call(self._handle, arguments, keywords)
        if self._is_class and isinstance(value, RemoteObject):
            object.__setattr__(value, "_is_instance", True)
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in READABLE:
            raise AttributeError(name)
        value = self._client.value(do="get", object=self._handle, name=name)
        if name in PLAIN_METHODS and isinstance(value, RemoteObject) and not self._is_instance:
            raise NotPlain(f"the test calls {name}() of a value that is not plain data")
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._client.value(do="set", object=self._handle, name=name, value=self._client.encode(value))

    def _call_method(self, name: str, *arguments: Any) -> Any:
        data = self._client.encode(arguments)
        try:
            return self._client.value(do="method", object=self._handle, name=name, arguments=data)
        except AttributeError as error:  # Python raises TypeError for a missing special method; `list` expects this
            raise TypeError(str(error)) from None

    def __len__(self) -> int:
        length = self._call_method("__len__")
        if type(length) is not int:
            raise NotPlain("a length that is not an integer")
        return length

    def __getitem__(self, key: Any) -> Any:
        return self._call_method("__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._call_method("__setitem__", key, value)

    def __iter__(self) -> Any:
        iterator = self._call_method("__iter__")
        while True:
            try:
                yield iterator._call_method("__next__") if isinstance(iterator, RemoteObject) else None
            except StopIteration:
                return

    def __next__(self) -> Any:
        return self._call_method("__next__")

    def __enter__(self) -> Any:
        return self._call_method("__enter__")

    def __exit__(self, *_: object) -> None:
        self._call_method("__exit__", None, None, None)

    def _refuse(self, *_: object) -> Any:
        raise NotPlain("the program returned something that is not plain data where the test needs a value")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __bool__ = __hash__ = __contains__ = __add__ = __radd__ = __sub__ = __rsub__ = _refuse
    __mul__ = __rmul__ = __truediv__ = __int__ = __float__ = __index__ = __abs__ = __round__ = _refuse
    __str__ = __repr__ = _refuse
