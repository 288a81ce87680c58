"""Checks the tools of conversations: their descriptions, the assistant's calls, and the results of the calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from alignment.wording import did_you_mean

CALL_FORM = (
    '{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "lookup", '
    '"arguments": {"key": "a"}}}]}'
)
RESULT_FORM = '{"role": "tool", "content": "17"}'
TOOL_FORM = (
    '{"type": "function", "function": {"name": "lookup", "description": "...", "parameters": {"type": "object", '
    '"properties": {"key": {"type": "string"}}, "required": ["key"]}}}'
)
# The template writes a name between quotation marks, without escapes.
_NAME = re.compile(r'[^\s"\\]+')
WRITTEN_CALL = re.compile(r"<tool_call>\s*\{.*?\}\s*</tool_call>", re.DOTALL)
"""Matches a call that is written out in a text."""


def tools_of(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the tools of a conversation or preference, in the form that the chat template expects.

    Args:
        row: a row; its column `tools` is a list or a JSON string of a list. The wrapper `{"type": "function",
            "function": ...}` is added to a function that lacks it.
        where: file and row number, put in front of the error.

    Raises:
        ValueError: the column holds something else, a tool without a name, or two tools with the same name.
    """
    value = row.get("tools")
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = _parsed(value, f"{where}: `tools`", f"a list of tools, for example [{TOOL_FORM}]")
    if not isinstance(value, list):
        raise ValueError(f"{where}: `tools` must be a list of tools, not {type(value).__name__}: [{TOOL_FORM}]")
    tools = [_tool(tool, f"{where}, tool {number}") for number, tool in enumerate(value, 1)]
    names = [tool["function"]["name"] for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: two tools have the name {name!r}")
    return tools


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise ValueError(f"{where}: a tool is an object, not {type(tool).__name__}: {TOOL_FORM}")
    wrapped: dict[str, Any] = tool if isinstance(tool.get("function"), dict) else {"type": "function", "function": tool}
    function = wrapped["function"]
    _check_name(function.get("name"), where, TOOL_FORM)
    if wrapped.get("type", "function") != "function":
        raise ValueError(f"{where}: the `type` of a tool is 'function', not {wrapped['type']!r}: {TOOL_FORM}")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise ValueError(
            f"{where}: `parameters` is a JSON schema (an object), not {type(parameters).__name__}: {TOOL_FORM}"
        )
    for name, schema in ((parameters or {}).get("properties") or {}).items():
        if schema is None:
            raise ValueError(
                f"{where}: the parameter `{name}` is null. Columns of Parquet files give every tool the parameters of all "
                "tools; write the column `tools` as a JSON string"
            )
    return wrapped


def calls_of(value: Any, where: str) -> list[dict[str, Any]]:
    """Return the calls of a message as `{type, function: {name, arguments}}` with `arguments` as a mapping.

    Args:
        value: value of the message's key `tool_calls`: `{function: {name, arguments}}` or `{name, arguments}`, with
            arguments as an object or as a JSON string. The whole list may be a JSON string. `id` is kept.
        where: file, row and message number, with which error messages begin.

    Raises:
        ValueError: a call has another form.
    """
    if isinstance(value, str):
        value = _parsed(value, f"{where}: `tool_calls`", f"a list of calls: {CALL_FORM}")
    if not isinstance(value, list):
        raise ValueError(f"{where}: `tool_calls` must be a list, not {type(value).__name__}: {CALL_FORM}")
    return [_call(call, f"{where}, call {number}") for number, call in enumerate(value, 1)]


def _call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise ValueError(f"{where}: a call is an object, not {type(call).__name__}: {CALL_FORM}")
    function = call["function"] if isinstance(call.get("function"), dict) else call
    if (call.get("type") or "function") != "function":
        raise ValueError(f"{where}: the `type` of a call is 'function', not {call['type']!r}: {CALL_FORM}")
    _check_name(function.get("name"), where, CALL_FORM)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{where}: `arguments`", f"an object, or a JSON string of one: {CALL_FORM}")
    if not isinstance(arguments, dict):
        raise ValueError(
            f"{where}: `arguments` must be an object, or a JSON string of one, not {type(arguments).__name__}: {CALL_FORM}"
        )
    identity = {"id": call["id"]} if call.get("id") else {}
    return identity | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _check_name(name: Any, where: str, form: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = "a `name`" if name is None else f"a name without blanks and quotation marks, not {name!r}"
        raise ValueError(f"{where}: needs {shown}: {form}")


def _parsed(text: str, what: str, form: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON ({error}); it must be {form}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def check_tool_turns(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise ValueError if calls and results of a whole conversation do not belong together.

    Each call needs one result, in the order of the calls: the chat format has no ids. The last turn may lack results.

    Args:
        messages: the conversation, with calls as `calls_of` returns them.
        tools: the tools of the conversation. If the list is not empty, calls may name only tools of this list.
        where: file and row number, put in front of the error.
    """
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    open_calls: list[Mapping[str, Any]] = []
    for number, message in enumerate(messages, 1):
        place = f"{where}, message {number}"
        if message["role"] == "tool":
            if not open_calls:
                raise ValueError(
                    f"{place}: a tool turn without a call: every tool turn answers one of the `tool_calls` of the turn of the "
                    f"assistant before it: {CALL_FORM}, then {RESULT_FORM}"
                )
            _check_result(message, open_calls.pop(0), place)
            continue
        if open_calls:
            name = open_calls[0]["function"]["name"]
            raise ValueError(
                f"{place}: the call of {name!r} has no result; put a tool turn for each call after it: {RESULT_FORM}"
            )
        open_calls = list(message.get("tool_calls") or [])
        for call in open_calls:
            _check_call(call["function"], functions, place)


def _check_result(message: Mapping[str, Any], call: Mapping[str, Any], where: str) -> None:
    name = call["function"]["name"]
    for key, expected in (("tool_call_id", call.get("id")), ("name", name)):
        value = message.get(key)
        if value and expected and value != expected:
            raise ValueError(
                f"{where}: `{key}` is {value!r}, but the next call without a result is {name!r} ({key} {expected!r}). The chat "
                "format has no ids: put the tool turns in the order of the calls"
            )


def _check_call(function: Mapping[str, Any], functions: Mapping[str, Any], where: str) -> None:
    if not functions:
        return
    name = function["name"]
    if name not in functions:
        raise ValueError(
            f"{where}: calls {name!r}, which is not in the row's `tools` ({', '.join(functions)})."
            f"{did_you_mean(name, functions)} Correct the name, or add the tool: {TOOL_FORM}"
        )
    properties = (functions[name].get("parameters") or {}).get("properties") or {}
    for argument, value in function["arguments"].items():
        if value is None and properties and argument not in properties:
            raise ValueError(
                f"{where}: the argument `{argument}` of {name!r} is null and no parameter of that tool. Columns of Parquet "
                "files give every call the arguments of all calls; write `arguments` as a JSON string"
            )
