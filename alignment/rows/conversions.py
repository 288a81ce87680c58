"""Converts rows of other trainers (ShareGPT, Alpaca, OpenAI's fine-tuning files) to conversations and preferences."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from alignment.rows.kinds import Row
from alignment.rows.tool_calls import CALL_FORM, TOOL_FORM

RowFormat = Literal["sharegpt", "alpaca", "openai"]
"""Names of the forms of rows that `convert` converts."""

_SHAREGPT_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "function_call": "assistant", "observation": "tool", "tool": "tool",
}  # fmt: skip
_OPENAI_ROLES = {"developer": "system", "function": "tool"}

_FORMS = {
    "sharegpt": '{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    "alpaca": '{"instruction": "...", "input": "...", "output": "..."}',
    "openai": '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
}


def convert(row: Row, form: RowFormat | None, where: str) -> Row:
    """Convert a row of another trainer to a conversation (`messages`) or a preference (`prompt`, `chosen`, `rejected`).

    `docs/rows.md` lists the columns of each form and how they are converted. Other columns are kept.

    Args:
        row: a row as it was read.
        form: the form of the row; if None, the row is returned unchanged.
        where: file and row number, with which error messages begin.

    Raises:
        ValueError: the row does not have the form, or can be read in two ways.
    """
    return row if form is None else _CONVERSIONS[form](row, where)


def _mismatch(row: Row, form: RowFormat, where: str, problem: str) -> ValueError:
    columns = ", ".join(sorted(str(name) for name, value in row.items() if value is not None)) or "(none)"
    return ValueError(
        f"{where}: {problem}. The `data:` entry has `format: {form}`, whose rows look like {_FORMS[form]}; this row has the "
        f"columns {columns}"
    )


def _without(row: Row, *columns: str) -> Row:
    return {name: value for name, value in row.items() if name not in columns}


def _with_system(row: Row, messages: list[Any], where: str) -> list[Any]:
    """Return the messages, with the text of the column `system` as the first message."""
    system = row.get("system")
    if system is None or system == "":
        return messages
    if not isinstance(system, str):
        raise ValueError(f"{where}: `system` must be text, not {type(system).__name__}")
    if messages and messages[0].get("role") == "system":
        raise ValueError(f"{where}: a column `system` and a system message; remove one of them")
    return [{"role": "system", "content": system}, *messages]


def _sharegpt(row: Row, where: str) -> Row:
    columns = [name for name in ("conversations", "conversation", "messages") if row.get(name) is not None]
    if len(columns) != 1:
        problem = "no conversation" if not columns else f"several conversations ({', '.join(columns)})"
        raise _mismatch(row, "sharegpt", where, problem)
    messages = row[columns[0]]
    if not isinstance(messages, list):
        raise _mismatch(row, "sharegpt", where, f"`{columns[0]}` is no list")
    messages = _with_system(row, _sharegpt_messages(messages, where), where)
    rest = _without(row, "system", *columns)
    if row.get("chosen") is None and row.get("rejected") is None:
        return rest | {"messages": messages}
    sides = {
        key: _sharegpt_messages([row.get(key)] if isinstance(row.get(key), dict) else row.get(key), f"{where}, {key}")
        for key in ("chosen", "rejected")
    }
    return rest | {"prompt": messages, **sides}


def _sharegpt_messages(values: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(values, list):
        raise ValueError(f"{where}: must be {{from, value}} or a list of them, not {type(values).__name__}")
    messages: list[dict[str, Any]] = []
    for number, value in enumerate(values, 1):
        place = f"{where}, message {number}"
        if not isinstance(value, dict) or "from" not in value or "value" not in value:
            raise ValueError(f'{place}: a message is {{"from": "human", "value": "..."}}')
        sender, content = value["from"], value["value"]
        if sender not in _SHAREGPT_ROLES:
            raise ValueError(f"{place}: unknown `from` {sender!r}; use one of {', '.join(_SHAREGPT_ROLES)}")
        message = {**_without(value, "from", "value"), "role": _SHAREGPT_ROLES[sender], "content": content}
        if sender == "function_call":
            messages.append(message | {"content": "", "tool_calls": _written_calls(content, place)})
        elif message["role"] == "tool":
            messages += [message | {"content": part} for part in _observations(content, messages)]
        else:
            messages.append(message)
    return messages


def _written_calls(content: Any, where: str) -> list[Any]:
    """Return the tool calls in a ShareGPT turn from `function_call`.

    The value of the turn is a JSON object or a list of JSON objects.
    """
    try:
        calls = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        calls = None
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list) or not calls:
        raise ValueError(
            f'{where}: the value of a turn from `function_call` is JSON, {{"name": "lookup", "arguments": {{"key": "a"}}}} or a '
            f"list of such objects, not {content!r:.80}"
        )
    return calls


def _observations(content: Any, messages: list[dict[str, Any]]) -> list[Any]:
    """Return the tool results in a ShareGPT turn from `observation`.

    If the last message has several calls and the turn is a JSON list with one item per call, the items are the results.
    Otherwise the whole value of the turn is one result.
    """
    calls = messages[-1].get("tool_calls") or [] if messages else []
    if len(calls) > 1 and isinstance(content, str):
        try:
            parts = json.loads(content)
        except (ValueError, RecursionError):
            return [content]
        if isinstance(parts, list) and len(parts) == len(calls):
            return [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts]
    return [content]


def _alpaca(row: Row, where: str) -> Row:
    for name, needed in {"instruction": True, "input": False, "output": False}.items():
        if not isinstance(row.get(name), str) and (needed or row.get(name) is not None):
            problem = f"`{name}` must be text, not {type(row.get(name)).__name__}"
            raise _mismatch(row, "alpaca", where, problem)
    answers = [name for name in ("output", "chosen", "rejected") if row.get(name) is not None]
    if answers not in (["output"], ["chosen", "rejected"]):
        raise _mismatch(row, "alpaca", where, "needs either `output`, or `chosen` and `rejected`")
    if row.get("messages") is not None or row.get("conversations") is not None:
        raise _mismatch(row, "alpaca", where, "`instruction` and a conversation in one row")
    question = "\n".join(text for text in (row["instruction"], row.get("input")) if text)
    messages = [*_history(row.get("history"), where), {"role": "user", "content": question}]
    messages = _with_system(row, messages, where)
    rest = _without(row, "instruction", "input", "output", "history", "system", "chosen", "rejected")
    if answers == ["output"]:
        return rest | {"messages": [*messages, {"role": "assistant", "content": row["output"]}]}
    return rest | {"prompt": messages, "chosen": row["chosen"], "rejected": row["rejected"]}


def _history(value: Any, where: str) -> list[dict[str, Any]]:
    """Return the messages of earlier turns, which the column `history` holds as pairs (question, answer)."""
    if value is None:
        return []
    turns: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in turns):
        raise ValueError(f'{where}: `history` is a list of [question, answer], for example [["2 + 2?", "4"]]')
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in turns for role, text in zip(roles, pair, strict=True)]


def _openai(row: Row, where: str) -> Row:
    if isinstance(row.get("input"), dict):
        return _openai_preference(row, where)
    if row.get("messages") is None:
        raise _mismatch(
            row, "openai", where, "needs `messages`, or `input`, `preferred_output` and `non_preferred_output`"
        )
    tools = _openai_tools(row, where)
    rest = _without(row, "messages", "tools", "functions", "parallel_tool_calls")
    return rest | {"messages": _openai_messages(row["messages"], where)} | tools


def _openai_preference(row: Row, where: str) -> Row:
    sides = {"chosen": row.get("preferred_output"), "rejected": row.get("non_preferred_output")}
    if row.get("messages") is not None or None in sides.values():
        raise _mismatch(
            row, "openai", where, "a preference needs `input`, `preferred_output` and `non_preferred_output`"
        )
    given = row["input"]
    rest = _without(row, "input", "preferred_output", "non_preferred_output")
    answers = {key: _openai_messages(value, f"{where}, {key}") for key, value in sides.items()}
    return rest | {"prompt": _openai_messages(given.get("messages"), where), **answers} | _openai_tools(given, where)


def _openai_tools(row: Mapping[str, Any], where: str) -> Row:
    if row.get("tools") and row.get("functions"):
        raise ValueError(f"{where}: `tools` and `functions`; give one of them: [{TOOL_FORM}]")
    tools = row.get("tools") or row.get("functions")
    return {"tools": tools} if tools else {}


def _openai_messages(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list):
        raise ValueError(f"{where}: messages must be a list of {{role, content}}, not {type(values).__name__}")
    return [_openai_message(value, f"{where}, message {number}") for number, value in enumerate(values, 1)]


def _openai_message(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return value
    message = {**value, "role": _OPENAI_ROLES.get(str(value.get("role")), value.get("role"))}
    if call := message.pop("function_call", None):
        if message.get("tool_calls"):
            raise ValueError(f"{where}: `function_call` and `tool_calls`; give one of them: {CALL_FORM}")
        message["tool_calls"] = [call]
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise ValueError(f'{where}: only parts of text are read: [{{"type": "text", "text": "..."}}]')
        message["content"] = "".join(part["text"] for part in content)
    return message


_CONVERSIONS: dict[RowFormat, Callable[[Row, str], Row]] = {"sharegpt": _sharegpt, "alpaca": _alpaca, "openai": _openai}
