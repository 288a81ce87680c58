"""Parts of task rows that are the same for every language: the request, visible and hidden tests, and redaction."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from alignment.evaluation.answer_forms import AnswerForm
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.cleaning.secrets import redact
from data_builders.cleaning.syntax_check import fenced_code_still_parses, still_parses

ASKED = {
    "function": "Answer with the whole function in one {language} block.",
    "body": "Answer with the statements of the body alone in one {language} block, without the signature and the docstring.",
}
"""Last sentence of a request, keyed by answer form. The other forms have no request; their prompt is used by environments."""


def request_for(name: str, file: str, repository: str, form: AnswerForm, language: str) -> str:
    """Return the first paragraph of a prompt.

    Args:
        name: name of the function.
        file: path of its file.
        repository: name of the repository.
        form: the answer form.
        language: the language as it is written in prose.
    """
    asked = ASKED.get(form, ASKED["function"]).format(language=language)
    return f"Write the body of `{name}` in `{file}` of the repository `{repository}`. Keep its signature. {asked}"


def split_names(
    key: str, names: Sequence[str], hidden_share: float, ranks: Mapping[str, Any] | None = None, divide: bool = True
) -> tuple[list[str], list[str]]:
    """Split tests into visible and hidden tests.

    Args:
        key: name of the function. The split depends only on the arguments.
        names: names of the tests. The cases of a parametrized test stay together, unless there is no other test.
        hidden_share: share of the tests to hide. At least one test is hidden.
        ranks: rank of each test, keyed by the name without parameters. Tests with low ranks become visible. By default,
            the visible tests are drawn at random.
        divide: whether the cases of a parametrized test may be split if there is no other test. If not, all are hidden.

    Returns:
        The visible and the hidden tests, each in the order of `names`.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition("[")[0], []).append(name)
    if len(groups) == 1 and divide:
        groups = {name: [name] for name in names}
    order = sorted(groups)
    random.Random(f"hide:{key}").shuffle(order)
    if ranks:
        order.sort(key=lambda name: ranks[name.partition("[")[0]], reverse=True)
    count = min(len(order), max(1, round(hidden_share * len(order))))
    hidden = {name for group in order[:count] for name in groups[group]}
    return [name for name in names if name not in hidden], [name for name in names if name in hidden]


@lru_cache(maxsize=65536)
def contains_secret(test: str) -> bool:
    """Whether the name of a test contains a key or a password. If so, the test is not used: rows contain test names."""
    return bool(redact(test).counts.keys() - {"EMAIL", "IP_ADDRESS"})


def redacted_lines(lines: Iterable[str]) -> list[str]:
    """Redact secrets in lines of a build report, because the output of a failing test may contain a password."""
    return [redact(line).text for line in lines]


CODE_COLUMNS = ("middle", "reference", "reference_body", HELD_OUT_COLUMN)
CONTEXT_COLUMNS = ("prompt", "prefix", "suffix")


def without_secrets(rows: Iterable[dict[str, Any]], left_out: Counter[str]) -> tuple[list[dict[str, Any]], int]:
    """Redact secrets and personal data in the context of task rows.

    A row is left out if the masked body contains a secret, because no answer could equal the redacted body, or if code
    that parsed before would not parse after the replacement. The column `tests` is not changed, because models do not
    see it.

    Args:
        rows: task rows.
        left_out: counter of omitted rows; the reasons are `secret_in_body` and `redaction_breaks_syntax`.

    Returns:
        The rows that are kept, and the number of rows in which something was replaced.
    """
    clean, redacted = [], 0
    for row in rows:
        if any(redact(row.get(key) or "", row["language"]).counts for key in CODE_COLUMNS):
            left_out["secret_in_body"] += 1
            continue
        contexts = {key: redact(row[key], row["language"]) for key in CONTEXT_COLUMNS if row.get(key)}
        changed = row | {key: context.text for key, context in contexts.items()}
        if not _is_intact(row, changed):
            left_out["redaction_breaks_syntax"] += 1
            continue
        redacted += any(context.counts for context in contexts.values())
        clean.append(changed)
    return clean, redacted


def _is_intact(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the code of a task row still parses: code between fences, and the file around a masked body."""
    files = ["".join(row.get(key) or "" for key in ("prefix", "middle", "suffix")) for row in (before, after)]
    return still_parses(files[0], files[1], before["language"]) and fenced_code_still_parses(
        before.get("prompt") or "", after.get("prompt") or ""
    )
