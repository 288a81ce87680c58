"""Reads and replaces the state of an object: the items of a container, the attributes of an instance.

No method of the object's class runs. Attributes are read from ``__dict__`` and from the slots, items are read with the
methods of the builtin base class. A class of the candidate can therefore not choose what is sent, and a class of the
repository is not asked whether the new state is allowed.
"""

from __future__ import annotations

import collections
import types
from collections.abc import Callable, Iterator
from typing import Any

from . import wire

CONTAINERS = (list, dict, set, bytearray, collections.deque, collections.OrderedDict, collections.defaultdict,
              collections.Counter)  # fmt: skip
"""Builtin types whose objects can change, so that both processes must see the same content."""
FILLED = (collections.OrderedDict, collections.defaultdict, collections.deque, dict, list, set, bytearray)
"""Builtin types with content that can be replaced. A subclass comes before its base class."""
FIXED = (tuple, str, int, float, bytes, frozenset)
"""Builtin types whose content is set when an object is made."""
Code = Callable[[Any], Any]


def base_of(kind: type) -> type:
    """Return the nearest builtin base class, which decides how an instance is stored."""
    base: type = kind
    while base.__flags__ & HEAP and base is not object and base not in FILLED:
        base = base.__base__ or object
    return base


HEAP = 1 << 9
"""Flag of a class that a class statement made (Py_TPFLAGS_HEAPTYPE)."""


def has_state(kind: type) -> bool:
    """Whether instances of a class consist of attributes and of the content of a builtin base class, and nothing else."""
    base = base_of(kind)
    return base is object or base in FILLED or issubclass(base, BaseException)


def blank(kind: type) -> Any:
    """Make an instance without content. The class's ``__new__`` and ``__init__`` do not run."""
    base = base_of(kind)
    make: Any = base.__new__
    return make(kind)


def slots(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield (name, descriptor) of the slots of a class. A slot that a subclass repeats is yielded once."""
    seen: set[str] = set()
    for owner in kind.__mro__:
        if owner.__flags__ & HEAP:
            for name, item in vars(owner).items():
                if type(item) is types.MemberDescriptorType and name not in seen:
                    seen.add(name)
                    yield name, item


def attributes(value: Any) -> dict[str, Any] | None:
    """Return the ``__dict__`` of an instance, or None if the class has only slots."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def parts(value: Any) -> list[Any]:
    """Return the items and attributes of an object, with their keys and names.

    An object whose parts are the same objects as before, in the same order, has the same state.
    """
    kind = type(value)
    base = kind if kind in CONTAINERS else base_of(kind)
    found: list[Any] = []
    if issubclass(base, collections.OrderedDict):
        items = list(collections.OrderedDict.items(value))
        found += [key for key, _ in items] + [item for _, item in items]
    elif issubclass(base, dict):
        found += [*dict.keys(value), *dict.values(value)]
    elif issubclass(base, list | set | collections.deque):
        found += next(plain for plain in (list, set, collections.deque) if issubclass(base, plain)).__iter__(value)
    if issubclass(base, collections.defaultdict):
        found.append(collections.defaultdict.__dict__["default_factory"].__get__(value))
    if kind in CONTAINERS:
        return found
    if issubclass(base, BaseException):
        found += BaseException.__dict__["args"].__get__(value)
    found.append(EMPTY)
    if (named := attributes(value)) is not None:
        found += [*named.keys(), *named.values()]
    for name, descriptor in slots(kind):
        try:
            found += (name, descriptor.__get__(value, kind))
        except AttributeError:
            continue
    return found


EMPTY = object()
"""Stands between the items and the attributes in the result of `parts`."""


def read(value: Any, encode: Code) -> Any:
    """Return the state of an object as JSON values.

    Args:
        value: A container, or an instance of a class with state (`has_state`).
        encode: Encodes one item or attribute.
    """
    kind = type(value)
    if kind in CONTAINERS:
        return _content(value, kind, encode)
    state: dict[str, Any] = {"c": _content(value, base_of(kind), encode)}
    if (named := attributes(value)) is not None:
        state["a"] = [[str.__str__(name), encode(item)] for name, item in dict.items(named) if isinstance(name, str)]
    filled = []
    for name, descriptor in slots(kind):
        try:
            filled.append([name, encode(descriptor.__get__(value, kind))])
        except AttributeError:  # an empty slot
            continue
    if filled:
        state["s"] = filled
    return state


def _content(value: Any, base: type, encode: Code) -> Any:
    if issubclass(base, BaseException):
        return [encode(item) for item in BaseException.__dict__["args"].__get__(value)]
    if issubclass(base, collections.defaultdict):
        factory = collections.defaultdict.__dict__["default_factory"].__get__(value)
        return [encode(factory), [[encode(key), encode(item)] for key, item in dict.items(value)]]
    if issubclass(base, collections.OrderedDict):
        pairs = collections.OrderedDict.items(value)
        return [[encode(key), encode(item)] for key, item in pairs]
    if issubclass(base, dict):
        return [[encode(key), encode(item)] for key, item in dict.items(value)]
    if issubclass(base, set):
        return sorted((encode(item) for item in set.__iter__(value)), key=repr)
    if issubclass(base, bytearray):
        return bytearray.hex(value)
    if issubclass(base, collections.deque):
        limit = collections.deque.__dict__["maxlen"].__get__(value)
        return [limit, [encode(item) for item in collections.deque.__iter__(value)]]
    if issubclass(base, list):
        return [encode(item) for item in list.__iter__(value)]
    return None


def fill(value: Any, state: Any, decode: Code, allow: Callable[[Any, str, Any], bool]) -> None:
    """Replace the state of an object.

    Args:
        value: The object.
        state: The result of `read` in the other process.
        decode: Decodes one item or attribute.
        allow: Called with the object, the name of an attribute and the attribute. If the function returns False, the
            state is malformed.

    Raises:
        WireError: The state is malformed.
    """
    kind = type(value)
    if kind in CONTAINERS:
        _fill_content(value, kind, state, decode)
        return
    if type(state) is not dict:
        raise wire.WireError("malformed state")
    _fill_content(value, base_of(kind), state.get("c"), decode)
    named = attributes(value)
    new: dict[str, Any] = {}
    for name, item in _pairs(state.get("a", [])):
        if type(name) is not str:
            raise wire.WireError("malformed state")
        new[name] = decode(item)
        if not allow(value, name, new[name]):
            raise wire.WireError(f"an object in place of the method {name[:100]}")
    if named is not None:
        _replace_items(named, new)
    elif new:
        raise wire.WireError("attributes of an object that has none")
    filled = {name: decode(item) for name, item in _pairs(state.get("s", []))}
    for name, descriptor in slots(kind):
        if name in filled:
            descriptor.__set__(value, filled[name])
        else:
            try:
                descriptor.__delete__(value)
            except AttributeError:
                continue


def _pairs(data: Any) -> list[Any]:
    if type(data) is not list or not all(type(item) is list and len(item) == 2 for item in data):
        raise wire.WireError("malformed state")
    return data


def _replace_items(target: dict[Any, Any], new: dict[Any, Any]) -> None:
    """Give a dict a new content. A loop over the dict goes on, if the keys stay the same."""
    if list(target) != list(new):
        target.clear()
    target.update(new)


def _fill_content(value: Any, base: type, state: Any, decode: Code) -> None:
    if base is object:
        return
    if issubclass(base, bytearray):
        bytearray.__setitem__(value, slice(None), bytes.fromhex(wire.typed(state, str)))
        return
    items = wire.typed(state, list)
    if issubclass(base, BaseException):
        BaseException.__dict__["args"].__set__(value, tuple(decode(item) for item in items))
    elif issubclass(base, collections.defaultdict):
        collections.defaultdict.__dict__["default_factory"].__set__(value, decode(items[0]))
        _fill_dict(value, dict, items[1], decode)
    elif issubclass(base, dict):
        _fill_dict(value, collections.OrderedDict if issubclass(base, collections.OrderedDict) else dict, items, decode)
    elif issubclass(base, set):
        new = {decode(item) for item in items}
        set.intersection_update(value, new)
        set.update(value, new)
    elif issubclass(base, collections.deque):
        limit, content = items
        if limit is not None and type(limit) is not int:
            raise wire.WireError("malformed state")
        collections.deque.__init__(value, [decode(item) for item in content], limit)
    elif issubclass(base, list):
        list.__setitem__(value, slice(None), [decode(item) for item in items])


def _fill_dict(value: Any, base: Any, items: Any, decode: Code) -> None:
    new = [(decode(key), decode(item)) for key, item in _pairs(items)]
    known = [key for key, _ in base.items(value)]
    if len(known) != len(new) or any(old is not key and old != key for old, (key, _) in zip(known, new, strict=True)):
        base.clear(value)
    for key, item in new:
        base.__setitem__(value, key, item)
