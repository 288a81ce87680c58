"""Benchmark of tool calls on the user's conversations: valid calls, the right tools, the right arguments.

Rows are conversations with `tools` whose last message is from the assistant. The `tool_calls` of this message are the
expected calls. If this message has no calls, the right answer calls no tool. Calls are compared as JSON: names and
arguments must be equal, the order of several calls does not count.

`data` may also be the rows of the Berkeley Function Calling Leaderboard, see `bfcl`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks import bfcl
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row
from alignment.evaluation.written_calls import Call, calls_in
from alignment.rows.messages import conversation_of
from alignment.rows.reading import read_rows


def tool_calling(request: BenchmarkRequest) -> Benchmark:
    """Load the benchmark, in which the model writes the last message of each conversation, or the calls of BFCL's rows."""
    assert request.data is not None
    if bfcl.is_bfcl(Path(request.data)):
        return Benchmark(
            name="tools", problems=bfcl.problems(Path(request.data)), mode="chat", max_new_tokens=512, score=bfcl.scores
        )
    problems = [_problem(row, number, request.data) for number, row in enumerate(read_rows(request.data), 1)]
    return Benchmark(name="tools", problems=problems, mode="chat", max_new_tokens=512, score=_scores)


def _problem(row: Row, number: int, data: str) -> Problem:
    where = f"{data}, row {number}"
    if row.get("messages") is None:
        raise ValueError(f"{where}: the benchmark 'tools' needs conversations: `messages` and `tools`")
    messages, tools = conversation_of(row, where)
    if not tools or len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError(
            f"{where}: the benchmark 'tools' needs `tools`, and a last message of the assistant with the expected calls"
        )
    expected = [call["function"] for call in messages[-1].get("tool_calls") or []]
    return Problem(
        id=str(row.get("id", number)),
        prompt=ChatPrompt(tuple(messages[:-1]), tools=tuple(tools)),
        reference=json.dumps(expected, ensure_ascii=False),
        row={"tools": tools, "messages": messages},
    )


def _scores(problem: Problem, completion: str) -> dict[str, float]:
    """Score a completion: `valid_call`, `right_name` and `right_arguments`, each 0 or 1.

    A valid call has the right JSON form and names a tool of the row. It has all required arguments of the tool, and no
    unknown arguments. If no call is expected, an answer without a call gets 1 for all scores.
    """
    expected: list[Call] = json.loads(problem.reference or "[]")
    calls = calls_in(completion)
    if not expected:
        none = float(calls == [])
        return {"valid_call": none, "right_name": none, "right_arguments": none}
    if not calls:
        return {"valid_call": 0.0, "right_name": 0.0, "right_arguments": 0.0}
    names = sorted(call["name"] for call in calls) == sorted(call["name"] for call in expected)
    return {
        "valid_call": float(all(_fits(call, problem.row["tools"]) for call in calls)),
        "right_name": float(names),
        "right_arguments": float(names and _written(calls) == _written(expected)),
    }


def _fits(call: Call, tools: Sequence[Mapping[str, Any]]) -> bool:
    function = next((tool["function"] for tool in tools if tool["function"]["name"] == call["name"]), None)
    if function is None:
        return False
    parameters = function.get("parameters") or {}
    known = parameters.get("properties")
    given = call["arguments"].keys()
    return given >= set(parameters.get("required") or ()) and (not known or given <= known.keys())


def _written(calls: Sequence[Call]) -> list[str]:
    """Return the calls as sorted JSON texts. Equal numbers get equal texts: 1.0 is written as 1."""
    return sorted(json.dumps(_plain_numbers(call), sort_keys=True) for call in calls)


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
