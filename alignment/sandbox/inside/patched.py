"""Runs tests of a repository that has changed files (entry ``suite_patched``).

pytest starts anew for each program and imports the changed modules, so the tests and the changed code share a process.
Such tasks are marked as forgeable: the changed files are checked by `guard` first, and the report goes through a
descriptor that the changed code has to search for, with a nonce.
"""

from __future__ import annotations

import ast
import gc
import os
import sys
from typing import Any

from . import collect, guard, layer, suite
from .channel import Channel

DETAIL = 1200
"""Largest number of characters that describe the failure of one test."""


def run(parent: Channel, header: dict[str, Any]) -> int:
    """Check the changed files, run the tests, and send the results.

    Args:
        parent: The channel to the parent process.
        header: `nonce`, `tests` (node ids), and `guarded`: the restricted words that each changed file may use.
    """
    gc.disable()
    warm = suite.WARM
    assert warm is not None
    nonce, tests = header.pop("nonce"), header.pop("tests")
    if refusal := _refusal(header["guarded"]):
        parent.send({"nonce": nonce, **refusal})
        return 0
    descriptor = os.dup(parent.descriptor)
    os.close(parent.descriptor)
    parent.descriptor = descriptor
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(f"{layer.ROOT}/"):
            del sys.modules[name]  # loaded by the launcher, without the changes
    os.chdir(warm.root)

    def ready() -> None:
        results = []
        for place, name in enumerate(tests):
            following = tests[place + 1] if place + 1 < len(tests) else None
            result = suite.run_test(name, following, _description)
            if result["outcome"] == "missing":
                result["detail"] = _why_missing(warm, name)
            results.append(result)
        parent.send({"nonce": nonce, "results": results})
        os._exit(0)  # the end of pytest's session gives nothing, and plugins use much time in it

    files = dict.fromkeys(name.partition("::")[0] for name in tests)
    present = [file for file in files if os.path.exists(os.path.join(warm.root, file))]
    collect.run(warm, ["--tb=short", *_options(warm.arguments), *present], ready)
    return 0


def _refusal(guarded: dict[str, list[str]]) -> dict[str, str] | None:
    """Check the changed Python files. Return the reason of a refusal as fields of the report, or None."""
    for path, known in guarded.items():
        try:
            with open(os.path.join(layer.ROOT, path), "rb") as file:
                body = ast.parse(file.read()).body
            guard.check(body, frozenset(known), reads=True)
        except guard.Forbidden as error:
            return {"refused": "forbidden", "detail": f"{path}, {error}"}
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return {"refused": "syntax", "detail": f"{path}: {type(error).__name__}: {error}"}
    return None


def _options(arguments: list[str]) -> list[str]:
    """Return the arguments of pytest without paths."""
    words, options = list(arguments), []
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            options.append(word)
            if word in ("-m", "-k", "-p", "-o") and words:
                options.append(words.pop(0))
    return options


def _description(report: Any) -> str:
    return str(report.longrepr).strip()[-DETAIL:]


def _why_missing(warm: suite.Warm, name: str) -> str:
    """Return why a test was not collected."""
    file = name.partition("::")[0]
    for problem in warm.problems:
        if problem["where"] in (file, "pytest") or problem["where"].endswith("conftest.py"):
            return f"{problem['where']}: {problem['why']}"
    return "no such test was collected"
