"""Compare calls with the acceptable answers of the Berkeley Function Calling Leaderboard (BFCL).

The rules are those of BFCL's check of syntax trees for Python functions. Every argument has a list of acceptable values; ""
among them means that the argument may be left out. Texts are equal if they differ only in case, blanks, quotes and some
punctuation. An acceptable value of another type than the parameter stands for a variable, and must be equal exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.evaluation.written_calls import Call

_TYPES: dict[str, type] = {
    "string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict, "any": str,
}  # fmt: skip
_LISTS = ("array", "tuple")
_IGNORED = re.compile(r"[ ,./\-_*^]")
LEFT_OUT = ""
"""Value that marks an argument as optional."""
_SCHEMA_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def calls_match(
    calls: Sequence[Call], functions: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether the calls are as many as the answers, and each answer has its own matching call, in any order.

    Args:
        calls: the calls of the model.
        functions: the functions of the row, in BFCL's form.
        answers: one object `{function: {argument: [acceptable values]}}` for each expected call.
    """
    if len(calls) != len(answers):
        return False
    waiting = list(calls)
    for answer in answers:
        ((name, arguments),) = answer.items()
        function = next((item for item in functions if item["name"] == name), None)
        match = next((call for call in waiting if function and call_matches(call, function, arguments)), None)
        if match is None:
            return False
        waiting = [call for call in waiting if call is not match]
    return True


def call_matches(call: Call, function: Mapping[str, Any], acceptable: Mapping[str, list[Any]]) -> bool:
    """Whether a call has the name of the function, its required arguments, and acceptable values only."""
    parameters, given = function["parameters"], call["arguments"]
    if call["name"] != function["name"] or not set(parameters.get("required") or ()) <= given.keys():
        return False
    if any(name not in given and LEFT_OUT not in values for name, values in acceptable.items()):
        return False
    properties = parameters.get("properties") or {}
    return all(
        name in properties and name in acceptable and _value_matches(value, properties[name], acceptable[name])
        for name, value in given.items()
    )


def _value_matches(value: Any, parameter: Mapping[str, Any], acceptable: list[Any]) -> bool:
    kind = parameter["type"]
    expected: Any = _TYPES.get(kind, str)
    nested = _TYPES.get((parameter.get("items") or {}).get("type", ""), str) if kind in _LISTS else None
    if kind == "float" and type(value) is int:
        value = float(value)
    listed = next((type(item) for item in acceptable if item != LEFT_OUT), None)
    if type(value) is expected:
        if nested is not None and not _items_fit(value, nested, acceptable):
            return False
    elif type(value) is not listed:
        return False
    if type(value) is not expected or listed not in (None, expected):
        return value in acceptable
    if expected is dict:
        return any(_dict_matches(value, item) for item in acceptable if item != LEFT_OUT)
    if expected is list and nested is dict:
        return any(_dicts_match(value, item) for item in acceptable)
    if expected is str:
        return _plain(value) in [_plain(item) for item in acceptable if type(item) is str]
    if expected is list:
        return [_plain(item) for item in value] in [[_plain(item) for item in items] for items in acceptable]
    return value in acceptable


def _items_fit(values: list[Any], nested: type, acceptable: list[Any]) -> bool:
    """Whether all items have the type of the parameter, or that of the items of one acceptable list."""
    for items in acceptable:
        listed = next((type(item) for item in items if item != LEFT_OUT), None) if type(items) is list else None
        if type(items) is not list or all(type(value) in (nested, listed) for value in values):
            return True
    return False


def _dict_matches(value: Mapping[str, Any], acceptable: Mapping[str, list[Any]]) -> bool:
    if any(name not in value and LEFT_OUT not in values for name, values in acceptable.items()):
        return False
    return all(
        name in acceptable and _plain(item) in [_plain(other) for other in acceptable[name]]
        for name, item in value.items()
    )


def _dicts_match(values: list[Any], acceptable: Any) -> bool:
    return len(values) == len(acceptable) and all(
        item != LEFT_OUT and _dict_matches(value, item) for value, item in zip(values, acceptable, strict=True)
    )


def _plain(value: Any) -> Any:
    """Return a text in lower case without blanks and punctuation that BFCL ignores. Other values are unchanged."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if type(value) is str else value


def tool_of(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function of BFCL as a tool whose parameters are a JSON schema."""
    return {"type": "function", "function": {**function, "parameters": _schema(function.get("parameters") or {})}}


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _schema(item) for key, item in value.items()}
    if isinstance(changed.get("type"), str):
        changed["type"] = _SCHEMA_TYPES.get(changed["type"], changed["type"])
    return changed
