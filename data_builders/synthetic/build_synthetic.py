"""Write synthetic datasets as JSONL files: documents, conversations and tasks of the grammar.

Each function writes one file and returns its number of rows. The same arguments give the same bytes, except that
documents of the standard library depend on the Python version, and documents of the history depend on the checkout.
"""

import json
import random
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from data_builders.synthetic.documents import module_documents, notes_documents, repository_documents
from data_builders.synthetic.grammar import draw_composition, draw_distinct
from data_builders.synthetic.grammar_problems import Row, file_problem, fim_task, stated_problem
from data_builders.synthetic.real_code import history_documents, standard_library_documents

TaskForm = Literal["fim", "stated", "file"]
"""Form of a task: `fim` (fill in the middle), `stated` (an instruction that states all steps), or `file` (an
instruction that states all steps and shows a file to which the function is added)."""


def build_documents(
    path: Path,
    *,
    seed: int,
    modules: int,
    repositories: int = 0,
    notes: int = 0,
    standard_library: int = 0,
    history: int = 0,
    checkout: Path | None = None,
) -> int:
    """Write documents for continued pretraining.

    Args:
        path: the JSONL file to write.
        seed: seed of all random choices.
        modules: number of modules that are drawn from the grammar.
        repositories: number of small repositories that are drawn from the grammar, with two files each.
        notes: number of pages that describe functions in words and then show the code.
        standard_library: approximate number of characters of the standard library.
        history: approximate number of characters of commits. If the history is shorter, all commits are used.
        checkout: the git checkout whose commits are used for `history`.
    """
    parts = [
        module_documents(seed, modules),
        repository_documents(seed, repositories),
        notes_documents(seed, notes),
        standard_library_documents(seed, standard_library),
    ]
    if history and checkout is not None:
        parts.append(history_documents(checkout, history))
    return write_rows(path, chain(*parts))


def build_conversations(
    path: Path, *, seed: int, stated: int = 0, files: int = 0, functions: tuple[int, int] = (1, 2)
) -> int:
    """Write conversations from the split `train`, in random order.

    Args:
        path: the JSONL file to write.
        seed: seed of all random choices.
        stated: number of instructions that state the steps (one to three) and show no file.
        files: number of instructions that also show the file to which the function is added.
        functions: minimum and maximum number of functions in the shown file.
    """
    generator = random.Random(f"{seed}-conversations-{stated}-{files}-{functions}")
    problems = [
        stated_problem(draw_composition(generator, generator.choice((1, 2, 2, 3, 3)), "train"), generator)
        for _ in range(stated)
    ]
    for _ in range(files):
        composition = draw_composition(generator, generator.choice((2, 3)), "train")
        problems.append(file_problem(composition, generator, generator.randint(*functions)))
    generator.shuffle(problems)
    return write_rows(path, (problem.conversation() for problem in problems))


def build_tasks(
    path: Path, *, seed: int, split: str, form: TaskForm, count: int, functions: tuple[int, int] = (1, 2)
) -> int:
    """Write executable tasks. Each task asks for a different composition, which belongs to this split only.

    Args:
        path: the JSONL file to write.
        seed: seed of all random choices.
        split: `rl`, `dev` or `heldout`.
        form: form of the tasks.
        count: number of tasks.
        functions: minimum and maximum number of functions in the shown file, for the form `file`.

    Raises:
        ValueError: the form is unknown, or the grammar has fewer compositions than `count`.
    """
    return write_rows(path, draw_tasks(seed, split, form, count, functions))


def draw_tasks(seed: int, split: str, form: TaskForm, count: int, functions: tuple[int, int]) -> Iterator[Row]:
    """Yield the rows that `build_tasks` writes."""
    generator = random.Random(f"{seed}-{split}-{form}-{functions}")
    for number, composition in enumerate(draw_distinct(seed, split, count, (2, 3))):
        identifier = f"synthetic-{split}-{form}-{number:04d}"
        if form == "fim":
            yield fim_task(composition, identifier, generator)
        elif form == "stated":
            yield stated_problem(composition, generator).task(identifier, generator)
        elif form == "file":
            yield file_problem(composition, generator, generator.randint(*functions)).task(identifier, generator)
        else:
            raise ValueError(f"form is {form!r}; it must be fim, stated or file")


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSONL and return their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
