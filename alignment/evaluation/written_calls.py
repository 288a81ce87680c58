"""Read the tool calls that a model wrote in the form of Qwen2.5's chat template."""

from __future__ import annotations

import json
import re
from typing import Any

from alignment.models import formats

Call = dict[str, Any]
_CALL = re.compile(f"{formats.TOOL_CALL}(.*?)(?:{formats.TOOL_CALL_END}|$)", re.DOTALL)


def written_calls(completion: str) -> list[Call | None]:
    """Return the calls in a completion as `{name, arguments}`, in order, and None for each call without this form."""
    return [_call(text) for text in _CALL.findall(completion)]


def calls_in(completion: str) -> list[Call] | None:
    """Return the calls in a completion, or None if any call does not have the form `{name, arguments}`."""
    calls = written_calls(completion)
    valid = [call for call in calls if call is not None]
    return valid if len(valid) == len(calls) else None


def _call(text: str) -> Call | None:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    if not isinstance(call.get("arguments"), dict):
        return None
    return {"name": call["name"], "arguments": call["arguments"]}
