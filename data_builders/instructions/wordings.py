"""Wordings of requests: for each kind of instruction, a set of requests and additions, drawn by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

REQUESTS: Mapping[str, Sequence[str]] = {
    "implement": (
        "Write the function `{name}` of `{file}` from its signature and documentation.",
        "Implement `{qualname}` as its docstring describes it.",
        "The body of `{name}` is missing. Write it.",
        "Fill in `{name}`: the docstring says what it has to do.",
        "I have the signature and the docstring of `{name}`, but no code. Please write the code.",
        "Complete `{qualname}` in `{file}`.",
        "Please implement `{name}`.",
        "Turn this docstring of `{name}` into working code.",
        "What would an implementation of `{name}` look like that does what the docstring promises?",
        "`{name}` in `{file}` is only a stub so far. Implement it.",
        "Write the missing implementation of `{qualname}`.",
        "Can you write `{name}` for me? Its documentation is below.",
        "Replace the `...` in `{name}` by code.",
        "`{qualname}` needs a body that matches its documentation.",
    ),
    "document": (
        "Write a docstring for `{name}`.",
        "What would a good docstring of `{qualname}` say?",
        "`{name}` has no documentation. Write its docstring.",
        "Document `{name}` for its callers.",
        "Please write the docstring of this function.",
        "Someone has to use `{name}` without reading its code. Write the docstring for them.",
        "Add the missing docstring of `{qualname}` in `{file}`.",
        "Describe in a docstring what `{name}` does.",
        "This function of `{file}` is undocumented. What should its docstring be?",
        "Give `{name}` a docstring.",
        "I need a docstring for the function below.",
        "Sum up `{name}` in a docstring.",
    ),
    "tests": (
        "Write `{qualname}` of `{file}` so that these tests pass.",
        "Here are tests of `{name}`, and its signature. Write the function.",
        "Make these tests pass: implement `{name}`.",
        "These tests fail, because `{name}` has no code yet. Write it.",
        "Implement `{name}` in `{file}`. The tests below have to pass.",
        "The tests come first here: write the `{name}` that they expect.",
        "Below are tests and the stub of `{qualname}`. Please implement it.",
        "What must `{name}` look like for these tests to pass?",
        "I wrote tests for `{name}` before writing the function. Write the function.",
        "Please complete `{name}` so that the tests succeed.",
        "Develop `{name}` from its tests.",
        "Write code for `{qualname}` that passes the tests below.",
    ),
    "fix": (
        "`{qualname}` has a bug. Find it and fix it.",
        "Tests of `{name}` fail. Correct the function.",
        "This function does not do what it should. What is wrong?",
        "Please debug `{name}` of `{file}`.",
        "Since the last change, some tests of `{name}` fail. Find the mistake.",
        "There is a mistake in `{name}`. Where is it?",
        "Why does `{qualname}` give wrong results? Repair it.",
        "Something is wrong with `{name}` in `{file}`. Fix it.",
        "Review `{name}`: it contains one bug.",
        "Find and repair the bug in this code.",
        "The results of `{name}` are wrong. Can you correct the code?",
        "`{name}` fails its tests. What has to change?",
        "Correct the error in `{qualname}`.",
    ),
    "explain": (
        "Explain what `{qualname}` in `{file}` does.",
        "What does this function do, and how?",
        "Walk me through `{name}`.",
        "I do not understand `{name}`. What is it for?",
        "Please describe the behavior of `{qualname}`.",
        "What should a caller know about `{name}`?",
        "Summarize `{name}`.",
        "Tell a new colleague what `{name}` in `{file}` does.",
        "What happens when `{qualname}` is called?",
        "Describe this code in plain words.",
        "How does `{name}` work?",
        "What is the purpose of `{name}`, and what does it return?",
    ),
    "refactor": (
        "Rename the function `{old}` to `{name}` in all of {files}.",
        "`{old}` is a poor name. Call the function `{name}` instead, in {files}.",
        "Please rename `{old}` to `{name}` everywhere in {files}.",
        "We want `{name}` instead of `{old}`. Change {files} accordingly.",
        "Change the name of `{old}` to `{name}`, in its definition and wherever {files} use it.",
        "The function `{old}` shall be called `{name}`. Update {files}.",
        "Refactor: `{old}` becomes `{name}` in {files}.",
        "Replace the function name `{old}` by `{name}` in {files}.",
        "`{name}` says better what `{old}` does. Rename it in {files}.",
        "Give `{old}` the name `{name}` and adapt its uses in {files}.",
    ),
    "translate": (
        "Translate the test `{name}` from unittest to a plain function for pytest.",
        "Rewrite this unittest method as a pytest function.",
        "We move from unittest to pytest. Convert `{name}`.",
        "Turn `{name}` into a pytest test with plain assertions.",
        "Please port the test `{name}` to pytest.",
        "What does `{name}` look like as a pytest function?",
        "Convert the test below to pytest style.",
        "Replace the assertion methods in `{name}` by `assert` statements, and make it a function.",
        "Modernize `{name}`: no TestCase, only pytest.",
        "`{name}` in `{file}` uses unittest. Write it for pytest.",
    ),
}
"""Requests of each kind. `{old}` and `{files}` exist for the kind `refactor` only."""

ADDITIONS: Mapping[str, Sequence[str]] = {
    "implement": (
        "", "", "Keep the signature.", "Answer with the whole function.", "Keep its signature and its docstring.",
        "Give the complete function in one Python block.", "Change nothing else.",
    ),
    "document": (
        "", "", "Give the docstring and nothing else.", "Answer with the docstring alone.", "Leave the code as it is.",
        "Do not repeat the code.",
    ),
    "tests": (
        "", "", "Keep the signature.", "Answer with the whole function.", "Leave the tests as they are.",
        "Give the complete function in one Python block.",
    ),
    "fix": (
        "", "", "Say what is wrong and give the corrected function.", "Change as little as possible.",
        "Show the whole function after the correction.", "Name the faulty line first.",
    ),
    "explain": ("", "", "Be brief.", "Keep to what the code shows.", "A few sentences are enough.", "Mention inputs and results."),
    "refactor": ("", "", "Show the changed code.", "Change nothing else.", "Keep everything else as it is.", "Give the new code of each file."),
    "translate": ("", "", "Keep the checks as they are.", "Keep what it tests.", "Give only the new function.", "Keep its name."),
}  # fmt: skip
"""Sentences after the request. An empty one is drawn more often than the others."""


def wording(kind: str, source: str, seed: int, names: Mapping[str, str]) -> str:
    """Draw a request and an addition, and insert names.

    Args:
        kind: kind of the instruction.
        source: value of the column `source`. Equal sources and seeds give equal wordings.
        seed: seed of the build.
        names: values of the placeholders.
    """
    digest = hashlib.sha256(f"{seed}:{kind}:{source}".encode("utf-8", "surrogatepass")).digest()
    requests, additions = REQUESTS[kind], ADDITIONS[kind]
    request = requests[int.from_bytes(digest[:4], "big") % len(requests)].format(**names)
    addition = additions[int.from_bytes(digest[4:8], "big") % len(additions)]
    return f"{request} {addition}".rstrip()
