"""Rewards of GRPO: tasks and completions in, one number per completion out, and None where nothing can be said.

Each function has the signature of a TRL reward function: ``await reward(prompts, completions, **columns) ->
list[float | None]``, where ``columns`` are the dataset's, one value per completion (``kind``, ``tests``,
``entry_point``, ``language``, ...). TRL runs asynchronous reward functions together and leaves None out of the mean.
Rewards that need verdicts share them: every pair of task and program is graded once per batch.
"""

from __future__ import annotations

import ast
import asyncio
import math
import re
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from alignment.evaluation.extraction import extract_code
from alignment.grading import Grader, RemoteGrader, Verdict
from alignment.sandbox.toolchains import language_of

Completion = str | list[dict[str, str]]
Reward = Callable[..., Awaitable[list[float | None]]]
TASK_COLUMNS = ("kind", "tests", "entry_point", "language")
FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)", re.MULTILINE)
PARSE_BYTES = 1 << 18


def text_of(completion: Completion) -> str:
    """The text of a completion: itself, or the content of the last message of a conversation."""
    if isinstance(completion, str):
        return completion
    return str(completion[-1].get("content") or "") if completion else ""


def _same_language(label: str, language: str) -> bool:
    try:
        return language_of(label).name == language_of(language).name
    except ValueError:
        return label.lower() == language.lower()


class Verdicts:
    """Grades the completions of a batch once, however many rewards ask.

    With `end_ids`, a completion that holds none of them was cut off and has failed, whatever it says so far: evaluation
    and preferences judge alike.
    """

    def __init__(self, grader: Grader | RemoteGrader, end_ids: Sequence[int] = ()) -> None:
        self.grader = grader
        self.end_ids = frozenset(end_ids)
        self._batch: dict[tuple[str, ...], asyncio.Future[Verdict]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def of(self, completions: Sequence[Completion], columns: Mapping[str, Sequence[Any]]) -> list[Verdict]:
        """One verdict per completion. FIM tasks (columns ``prefix``, ``suffix``) are graded as prefix + completion +
        suffix."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._batch, self._loop = {}, loop
        keys: list[tuple[str, ...]] = []
        ids = columns.get("completion_ids") or [()] * len(completions)
        for index, completion in enumerate(completions):
            if self.end_ids and not self.end_ids.intersection(ids[index]):
                key: tuple[str, ...] = ("cut off",)
                keys.append(key)
                self._batch.setdefault(key, loop.create_future())
                if not self._batch[key].done():
                    self._batch[key].set_result(Verdict("failed", "cut_off", "the answer did not end by itself"))
                continue
            task = {name: columns[name][index] for name in TASK_COLUMNS if name in columns}
            program = _program(completion, _row(columns, index, completions))
            key = (*(str(task.get(name)) for name in TASK_COLUMNS), program)
            keys.append(key)
            if key not in self._batch:
                self._batch[key] = asyncio.ensure_future(self.grader.grade(task, program))
        verdicts = list(await asyncio.gather(*(self._batch[key] for key in keys)))
        judged = {key for key, verdict in zip(keys, verdicts, strict=True) if verdict.status != "error"}
        self._batch = {key: future for key, future in self._batch.items() if key in judged}
        return verdicts


def _per_row(values: Any, completions: Sequence[Completion]) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and len(values) == len(completions)


def _program(completion: Completion, row: Mapping[str, Any]) -> str:
    text = text_of(completion)
    if row.get("prefix") is not None and row.get("suffix") is not None:
        return f"{row['prefix']}{text}{row['suffix']}"
    return extract_code(text, language=row.get("language") or "python", entry_point=row.get("entry_point"))


def tests_passed(verdicts: Verdicts) -> Reward:
    """1 where all tests passed, 0 where not, None where the grader has nothing to say."""
    return _from_verdicts("tests_passed", verdicts, lambda verdict: float(verdict.status == "passed"))


def tests_fraction(verdicts: Verdicts) -> Reward:
    """The share of tests passed, 0 to 1; None where the grader has nothing to say."""
    return _from_verdicts("tests_fraction", verdicts, lambda verdict: verdict.fraction)


def _from_verdicts(name: str, verdicts: Verdicts, value: Callable[[Verdict], float]) -> Reward:
    async def reward(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        found = await verdicts.of(completions, columns)
        log_verdicts(prompts, found, columns.get("log_metric"), columns.get("log_extra"))
        return [None if verdict.status == "error" else value(verdict) for verdict in found]

    reward.__name__ = name
    return reward


def log_verdicts(
    prompts: Sequence[Any],
    verdicts: Sequence[Verdict],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    """Share of each kind of verdict, and a loud warning for every prompt none of whose completions could be graded."""
    counts = Counter(verdict.status for verdict in verdicts)
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.status != "passed")
    if log_metric is not None and verdicts:
        for status in ("passed", "failed", "error"):
            log_metric(f"verdicts/{status}", counts[status] / len(verdicts))
        for reason, count in reasons.items():
            log_metric(f"verdicts/reason/{reason}", count / len(verdicts))
        log_metric("verdicts/cpu_seconds", sum(verdict.cpu_seconds for verdict in verdicts) / len(verdicts))
    if log_extra is not None:
        log_extra("verdict", [verdict.reason for verdict in verdicts])
        log_extra("verdict_detail", [verdict.detail[:200] for verdict in verdicts])
    groups: dict[str, list[Verdict]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        groups.setdefault(str(prompt), []).append(verdict)
    lost = [group for group in groups.values() if all(verdict.status == "error" for verdict in group)]
    if lost:
        first = lost[0][0]
        message = (
            f"{len(lost)} of {len(groups)} prompts could not be graded at all and teach nothing in this step: "
            f"{first.reason}: {first.detail}"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        print(f"WARNING: {message}", file=sys.stderr, flush=True)
        if log_metric is not None:
            log_metric("verdicts/prompts_without_any", len(lost) / len(groups))


async def parses(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """1 where the program is valid Python, 0 where not; None for other languages, of which this says nothing.

    A program too long or too deep for the parser counts as not valid.
    """
    languages = columns.get("language") or ["python"] * len(completions)
    return [
        float(_is_python(_program(completion, _row(columns, index, completions)))) if language == "python" else None
        for index, (completion, language) in enumerate(zip(completions, languages, strict=True))
    ]


def _row(columns: Mapping[str, Any], index: int, completions: Sequence[Completion]) -> dict[str, Any]:
    return {name: values[index] for name, values in columns.items() if _per_row(values, completions)}


def _is_python(program: str) -> bool:
    if not program.strip() or len(program) > PARSE_BYTES or _too_deep(program):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _too_deep(program: str) -> bool:
    """Long runs of operators and brackets can exhaust the C stack of the parser: not something to try in a trainer."""
    if any(line.count("lambda") >= 80 for line in program.split("\n")):
        return True
    return re.search(r"(?:[-+~(\[{!]\s*){80}|(?:\bnot\s+){80}", program) is not None


async def fenced(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """Format: 1 where the answer holds exactly one closed code block, in the task's language where it names one; else
    0."""
    languages = columns.get("language") or [None] * len(completions)
    return [
        float(_well_fenced(text_of(completion), language))
        for completion, language in zip(completions, languages, strict=True)
    ]


def _well_fenced(text: str, language: str | None) -> bool:
    labels = FENCE.findall(text)
    return len(labels) == 2 and (not language or not labels[0] or _same_language(labels[0], language))


def length_penalty(soft: int, hard: int) -> Reward:
    """0 up to `soft` tokens, falling linearly to -1 at `hard` tokens; counts characters where TRL hands over no token
    ids.

    Raises ValueError unless 0 <= soft < hard.
    """
    if not 0 <= soft < hard:
        raise ValueError(f"length_penalty: soft ({soft}) must be at least 0 and less than hard ({hard})")

    async def reward(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        tokens = columns.get("completion_ids") or [text_of(completion) for completion in completions]
        return [-min(1.0, max(0.0, (len(item) - soft) / (hard - soft))) for item in tokens]

    reward.__name__ = "length_penalty"
    return reward


def combined(parts: Sequence[tuple[str, Reward, float]]) -> Reward:
    """A weighted sum of rewards as one reward, each part logged under its name.

    parts: (name, reward, weight). A part that is None for a completion makes the sum None when it is the verdict's (a
    name that begins with ``tests``): the rest alone would reward looks. Other parts that say None are left out.
    Raises ValueError without parts, for a weight that is not finite, and for a name given twice.
    """
    names = [name for name, _, _ in parts]
    if not parts or len(set(names)) != len(names):
        raise ValueError(f"a combined reward needs parts with different names, not {names}")
    if not all(math.isfinite(weight) for _, _, weight in parts):
        raise ValueError("the weights of a combined reward must be finite numbers")

    async def reward(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        values = await asyncio.gather(*(part(prompts, completions, **columns) for _, part, _ in parts))
        log_metric = columns.get("log_metric")
        total: list[float | None] = [0.0] * len(completions)
        for (name, _, weight), column in zip(parts, values, strict=True):
            known = [value for value in column if value is not None]
            if log_metric is not None and known:
                log_metric(f"reward_parts/{name}", sum(known) / len(known))
            total = [_add(name, weight, old, value) for old, value in zip(total, column, strict=True)]
        return total

    reward.__name__ = "combined"
    return reward


def _add(name: str, weight: float, total: float | None, value: float | None) -> float | None:
    if total is None or (value is None and name.startswith("tests")):
        return None
    return total if value is None else total + weight * value


def build(
    weights: Mapping[str, float],
    grader: Grader | RemoteGrader,
    *,
    length: tuple[int, int] | None = None,
    end_ids: Sequence[int] = (),
) -> list[Reward]:
    """The reward functions that a recipe names, as one combined function in a list, ready for TRL's ``reward_funcs``.

    weights: of ``tests_passed``, ``tests_fraction``, ``parses``, ``fenced``, ``length_penalty``.
    length: soft and hard limit of ``length_penalty``, in tokens.
    end_ids: token ids that end an answer; one without is cut off and fails its tests.
    """
    verdicts = Verdicts(grader, end_ids)
    known: dict[str, Reward] = {
        "tests_passed": tests_passed(verdicts),
        "tests_fraction": tests_fraction(verdicts),
        "parses": parses,
        "fenced": fenced,
    }
    if length is not None:
        known["length_penalty"] = length_penalty(*length)
    unknown = [name for name in weights if name not in known]
    if unknown:
        hint = " (length_penalty needs its soft and hard limits)" if "length_penalty" in unknown else ""
        raise ValueError(f"unknown rewards {unknown}: choose among {sorted(known)}{hint}")
    return [combined([(name, known[name], weight) for name, weight in weights.items()])]
