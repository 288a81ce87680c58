"""The process that holds one model for the chat of the live page.

    python -m alignment.ui.chat_worker MODEL_FOLDER

It writes `{"ready": true}` when the model is loaded. Then it reads one request per line from stdin (`ChatRequest`) and
writes one answer per line to stdout: `{"text": ..., "finish": ..., "tokens": ..., "seconds": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from alignment.evaluation.dialogue import ReplySettings, continuations, replies
from alignment.evaluation.engines.protocol import Engine
from alignment.evaluation.engines.selection import open_engine
from alignment.processes import die_with_parent


def main() -> int:
    """Load the model that the command line names, and answer until stdin ends."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # messages of libraries go to stderr, so that stdout has answers only
    engine = open_engine(sys.argv[1])
    _write(answers, {"ready": True})
    for line in sys.stdin:
        try:
            answer = _answer(engine, json.loads(line))
        except (ValueError, RuntimeError) as error:
            answer = {"error": str(error)}
        _write(answers, answer)
    return 0


def _write(answers: TextIO, value: Mapping[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _answer(engine: Engine, request: Mapping[str, Any]) -> dict[str, Any]:
    settings = ReplySettings(request["max_new_tokens"], request["temperature"], request["seed"])
    begun = time.monotonic()
    if request["mode"] == "chat":
        (completion,) = replies(engine, [request["messages"]], settings)
    else:
        (completion,) = continuations(engine, [request["messages"][-1]["content"]], settings)
    seconds = round(time.monotonic() - begun, 2)
    return {"text": completion.text, "finish": completion.finish, "tokens": completion.tokens, "seconds": seconds}


if __name__ == "__main__":
    raise SystemExit(main())
