"""Check all rows of the files that a recipe names, before the first stage runs.

The rows are checked by the same functions that the stages call. Rows that a stage of the recipe will write do not exist
yet and are not checked. Lengths in tokens are measured if the recipe's tokenizer is on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.evaluation.answer_forms import form_of
from alignment.evaluation.benchmarks import user_rows
from alignment.files import write_text
from alignment.fingerprints import fingerprint, package_versions
from alignment.grading.task import check_task
from alignment.models import formats
from alignment.models.model_family import QWEN2_5, ModelFamily, family_of
from alignment.recipe.environment_checks import missing_tools
from alignment.recipe.family_checks import recipe_family
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.row_kind_checks import BENCHMARK_KINDS, RowReader, located_kind, origin_of, row_readers
from alignment.recipe.schema import DpoStage, EvaluateStage, GrpoStage, KtoStage, Recipe, SftStage, TrainingStage
from alignment.recipe.stage_graph import StageNode, resolve
from alignment.rewards.registry import GRADING
from alignment.rows import reading
from alignment.rows.conversions import convert
from alignment.rows.dialogue_pairs import DialoguePair, pair_of
from alignment.rows.feedback_rows import feedback_of
from alignment.rows.kinds import Row, check_columns, check_document
from alignment.rows.messages import conversation_of
from alignment.rows.row_texts import all_texts
from alignment.tokenization.feedback_tokens import tokenize_feedback
from alignment.tokenization.pair_tokens import tokenize_pair
from alignment.tokenization.segments import chat_segments
from alignment.wording import display

FAST_ROWS = 200
"""Number of rows of each file that `align check --fast` reads."""
_SHOWN = 10
"""Largest number of errors of one file that are shown. Further errors are only counted."""
_SAME_ANSWERS = "have two answers that are the same"
_MEASURED = 2000
"""Largest number of rows of one file whose tokens are counted. A token has at least one byte, so a row whose number of
bytes is within the limit is never too long, and its tokens are not counted."""


@dataclass
class RowReport:
    """Errors and other findings in the rows of one file or folder."""

    reader: RowReader
    rows: int = 0
    errors: list[str] = field(default_factory=list)
    """The first errors, each with file, line and column."""
    wrong: int = 0
    """Number of rows with errors."""
    equal: list[str] = field(default_factory=list)
    """Places (file and line) of preferences whose two answers are equal."""
    special: list[str] = field(default_factory=list)
    """Places of rows whose texts contain the string of a special token."""
    overlong: list[str] = field(default_factory=list)
    """Places of rows with more tokens than the limit of the stage."""
    languages: set[str] = field(default_factory=set)
    """Languages of tasks whose programs run on this machine."""
    measured: int = 0
    """Number of rows whose tokens were counted."""

    def add_error(self, message: str) -> None:
        """Count an error. Keep the message of the first errors."""
        self.wrong += 1
        if len(self.errors) < _SHOWN:
            self.errors.append(message)


class _FileTokenizer:
    """Tokenizer that is loaded from a tokenizer.json by the package `tokenizers`, since importing transformers takes
    seconds.
    """

    def __init__(self, file: Path):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(file))

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def convert_tokens_to_ids(self, tokens: str) -> int:
        return int(self.tokenizer.token_to_id(tokens) or 0)


@dataclass(frozen=True)
class _LengthRule:
    """Limit on the number of tokens in a row of a training stage."""

    setting: str
    limit: int
    count: Callable[[Row], int]
    """Function that returns the number of tokens of a valid row."""
    is_error: bool
    """Whether the stage stops with an error at a longer row. If not, the stage drops the row."""


def check_rows(recipe: Recipe, limit: int | None = None) -> tuple[list[Mistake], list[str]]:
    """Read the rows of all files that a recipe names, and check them as the stages will.

    Args:
        recipe: the recipe.
        limit: number of rows of each file to read. None reads all rows.

    Returns:
        The mistakes (one for each kind of error in a file), and notes about valid rows: rows that would be dropped, and
        special tokens that stay text.
    """
    mistakes: list[Mistake] = []
    notes: list[str] = []
    family = recipe_family(recipe) or QWEN2_5
    for node, place, reader in _known_readers(recipe):
        rule = _length_rule(recipe, node) if node is not None else None
        report = _report(node, reader, rule, limit, family)
        mistakes += ((place, message) for message in _mistakes(report, rule))
        if recipe.sandbox.address is None:
            path = display(reader.reference.path())
            mistakes += ((place, f"{path}: {message}") for message in missing_tools(report.languages))
        notes += _notes(report, rule)
    return mistakes, notes


def check_before_run(recipe: Recipe) -> list[Mistake]:
    """Check all rows before a run, unless the same files have passed the check before.

    Unlike in `check_rows`, preferences with two equal answers are no mistakes: the stage drops them.
    """
    files = [file for _, _, reader in _known_readers(recipe) for file in _files(reader)]
    states = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    stages = [stage.model_dump(mode="json") for stage in recipe.stages]
    mark = fingerprint([stages, states, package_versions(), Path(__file__).read_text(encoding="utf-8")])
    passed = recipe.folder / ".rows-checked"
    if passed.is_file() and passed.read_text() == mark:
        return []
    mistakes = [(place, message) for place, message in check_rows(recipe)[0] if _SAME_ANSWERS not in message]
    if not mistakes:
        write_text(passed, mark)
    return mistakes


def _files(reader: RowReader) -> list[Path]:
    try:
        return reading.files(reader.reference.path())
    except ValueError:  # reported by check_rows
        return []


def _known_readers(recipe: Recipe) -> Iterator[tuple[StageNode | None, Place, RowReader]]:
    """Yield (stage, place in the recipe, reader) for each file of rows that exists already.

    The stage is None for files of `decontaminate:`, with which training rows are compared.
    """
    graph = resolve(recipe)
    for node, parent, reader in row_readers(recipe, graph):
        if origin_of(node, reader) is None and reader.reference.exists():
            yield node, (*parent, *reader.place), reader
    for read in graph.decontaminate:
        if read.origin is None and read.reference.exists():
            yield None, read.place, RowReader(read.place, read.reference, (), "training rows are compared with")


def _report(
    node: StageNode | None, reader: RowReader, rule: _LengthRule | None, limit: int | None, family: ModelFamily
) -> RowReport:
    report = RowReport(reader)
    most = min((number for number in (limit, reader.limit) if number is not None), default=None)
    try:
        for where, row in reading.read_located(reader.reference.path(), most):
            report.rows += 1
            if isinstance(row, ValueError):
                report.add_error(str(row))
                continue
            if node is None:
                continue
            try:
                row = convert(row, reader.format, where)
                if not _check_row(node, reader, row, where, family):
                    report.equal.append(where)
                    continue
            except ValueError as error:
                report.add_error(str(error))
                continue
            _look_at_texts(report, row, where, rule, family)
    except (ValueError, OSError) as error:
        report.add_error(str(error))
    return report


def _check_row(node: StageNode, reader: RowReader, row: Row, where: str, family: ModelFamily) -> bool:
    """Check one row in the same way as the stage will.

    Return False if the row is a preference between two equal answers.

    Raises ValueError if the row is wrong. The message begins with the place of the row.
    """
    kind = located_kind(row, where)
    if kind not in reader.kinds:
        raise ValueError(f"{where}: {reader.description} {' or '.join(reader.kinds)} rows; this is a {kind}")
    if isinstance(node.stage, EvaluateStage):
        name = str(node.stage.benchmarks[int(reader.place[1])].benchmark)
        if name in BENCHMARK_KINDS:
            user_rows.check_row(row, name, where)
    elif kind == "task":
        _check_task(node, row, where)
    elif kind == "document":
        check_columns(row, "document", where)
        check_document(row, where)
    elif kind == "conversation":
        check_columns(row, "conversation", where)
        messages, tools = conversation_of(row, where)
        if isinstance(node.stage, TrainingStage):
            list(chat_segments(messages, where, tools, family))
    elif kind == "preference":
        return pair_of(row, where) is not None
    elif kind == "feedback":
        feedback_of(row, where)
    elif not all(isinstance(row.get(column), str) for column in ("prefix", "middle", "suffix")):
        raise ValueError(f"{where}: `prefix`, `middle` and `suffix` must be text")
    return True


def _check_task(node: StageNode, row: Row, where: str) -> None:
    """Check a task row. The row needs no tests if the stage is GRPO and no reward of the stage runs tests."""
    form_of(row, where)
    stage = node.stage
    if isinstance(stage, GrpoStage) and row.get("tests") is None and not any(r.name in GRADING for r in stage.rewards):
        if not isinstance(row["prompt"], str):
            raise ValueError(f"{where}: `prompt` must be text, not {type(row['prompt']).__name__}")
        return
    check_task(row, where)


def _look_at_texts(report: RowReport, row: Row, where: str, rule: _LengthRule | None, family: ModelFamily) -> None:
    """Add a valid row to the report if its texts contain a special token, or if it has more tokens than the limit."""
    if isinstance(row.get("language"), str) and row.get("tests"):
        report.languages.add(row["language"])
    texts = all_texts(row)
    if any(formats.contains_special_text(text, family) for text in texts):
        report.special.append(where)
    # A byte-level tokenizer makes at most one token of a byte. Each turn has up to 8 more, the default system prompt
    # 40.
    if rule is None or sum(len(text.encode()) + 8 for text in texts) + 40 <= rule.limit:
        return
    if report.measured < _MEASURED:
        report.measured += 1
        if rule.count(row) > rule.limit:
            report.overlong.append(where)


def _mistakes(report: RowReport, rule: _LengthRule | None) -> Iterator[str]:
    path = display(report.reader.reference.path())
    if report.wrong:
        more = report.wrong - len(report.errors)
        lines = [*report.errors, *([f"and {more} more"] if more else [])]
        count = f"{report.wrong} of {report.rows} rows can't be used" if report.rows else "can't be read"
        yield f"{path}: {count}:" + "".join(f"\n      {line}" for line in lines)
    if report.equal:
        yield (
            f"{path}: {len(report.equal)} of {report.rows} preferences {_SAME_ANSWERS}, and the stage would leave these rows "
            f"out; remove them:{_places(report.equal)}"
        )
    if rule is not None and report.overlong:
        if rule.is_error:
            yield (
                f"{path}: {len(report.overlong)} rows are longer than {rule.setting} ({rule.limit} tokens), and the stage would "
                f"stop at the first (`overlong: error`):{_places(report.overlong)}"
            )
        elif len(report.overlong) == report.rows:
            yield f"{path}: every row is longer than {rule.setting} ({rule.limit} tokens): no row would be left"


def _notes(report: RowReport, rule: _LengthRule | None) -> Iterator[str]:
    path = display(report.reader.reference.path())
    if report.special:
        yield (
            f"{path}: {len(report.special)} of {report.rows} rows have the text of a special token in them, which stays text:"
            f"{_places(report.special)}"
        )
    if rule is not None and report.overlong and not rule.is_error:
        measured = f" (the first {_MEASURED} long rows were measured)" if report.measured == _MEASURED else ""
        yield (
            f"{path}: {len(report.overlong)} of {report.rows} rows are longer than {rule.setting} ({rule.limit} tokens) and would "
            f"be left out{measured}:{_places(report.overlong)}"
        )


def _places(places: list[str]) -> str:
    """Format the first places of a list, and the number of further places, as the end of a message."""
    more = len(places) - _SHOWN
    return " " + ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _length_rule(recipe: Recipe, node: StageNode) -> _LengthRule | None:
    """Return the limit on the length of a stage's rows.

    None if the stage has no limit, or the tokenizer is not on this machine.
    """
    stage = node.stage
    if not isinstance(stage, SftStage | DpoStage | KtoStage | GrpoStage):
        return None
    setting = "max_prompt_length" if isinstance(stage, GrpoStage) else "max_length"
    limit = stage.max_prompt_length if isinstance(stage, GrpoStage) else stage.train.get("max_length", 1024)
    file = _tokenizer_file(recipe)
    if not isinstance(limit, int) or file is None or (isinstance(stage, SftStage) and stage.overlong == "split"):
        return None
    tokenizer = _FileTokenizer(file)
    is_error = not isinstance(stage, GrpoStage) and stage.overlong == "error"
    count = {"sft": _sample_length, "dpo": _pair_length, "kto": _feedback_length, "grpo": _prompt_length}[stage.kind]
    return _LengthRule(setting, limit, lambda row: count(row, tokenizer), is_error)


def _tokenizer_file(recipe: Recipe) -> Path | None:
    for reference in (recipe.model.tokenizer, recipe.model.path):
        if reference is not None:
            file = reference.path() / "tokenizer.json"
            return file if file.is_file() else None
    return None


def _sample_length(row: Row, tokenizer: Any) -> int:
    """Count the tokens of a conversation or document."""
    if "messages" in row:
        messages, tools = conversation_of(row, "a conversation")
        segments = chat_segments(messages, "a conversation", tools, family_of(tokenizer))
        return sum(1 if special else len(formats.encode_text(tokenizer, text)) for text, special, _ in segments)
    return 1 + sum(len(formats.encode_text(tokenizer, text)) for text in all_texts(row))


def _pair_length(row: Row, tokenizer: Any) -> int:
    """Count the tokens of the longer dialogue of a preference."""
    pair = pair_of(row, "a preference")
    assert isinstance(pair, DialoguePair)
    sample = tokenize_pair(pair, tokenizer)
    return len(sample["prompt_ids"]) + max(len(sample["chosen_ids"]), len(sample["rejected_ids"]))


def _feedback_length(row: Row, tokenizer: Any) -> int:
    """Tokens of a prompt and the answer to it."""
    sample = tokenize_feedback(feedback_of(row, "feedback"), tokenizer)
    return len(sample["prompt_ids"]) + len(sample["completion_ids"])


def _prompt_length(row: Row, tokenizer: Any) -> int:
    """Count the tokens of a task's prompt, written as a conversation."""
    family = family_of(tokenizer)
    prompt = [{"role": "user", "content": formats.escape_special_text(row["prompt"], family)}]
    return len(tokenizer.encode(formats.chat(prompt, add_generation_prompt=True, family=family)))
