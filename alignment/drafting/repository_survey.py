"""Survey a repository for a recipe: languages, history, code for a benchmark, commits for instructions, tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from alignment.drafting.suite_survey import SuiteSurvey, survey_suites
from alignment.grading.protected_files import is_test_file
from data_builders.commits import CommitLimits, drop_commit
from data_builders.parsing.languages import detect
from data_builders.parsing.python_functions import functions
from data_builders.private_benchmark import TEXTS, code_pieces, select_new
from data_builders.repositories import git, history
from data_builders.repositories.sources import Repository, read_texts
from data_builders.tasks.python.python_suite import is_documentation

SHARES = (0.2, 0.1, 0.4)
"""Shares of the newest commits to hold out for a benchmark. The first share that gives enough pieces of code is used."""
ENOUGH_PIECES = 20
"""Smallest number of held-out pieces of code with which a benchmark can show a difference between two models."""
ENOUGH_COMMITS = 20
"""Instructions are made from commits if this many commits or more are usable."""
ENOUGH_FUNCTIONS = 10
"""Instructions are made from Python functions if there are this many functions or more."""
MAX_COMMITS = 5000
"""Largest number of commits that are read."""
MAIN_SHARE = 0.05
"""A language is a main language if it has at least this share of the characters of a repository's code."""


@dataclass(frozen=True)
class RepositorySurvey:
    """Counts that decide which training data and benchmarks a recipe can make from one repository."""

    name: str
    languages: dict[str, float]
    """Maps each main language to its share of the code's characters, largest share first."""
    characters: int
    """Number of characters of code, without documentation and data files."""
    held_out: float | None = None
    """Share of the newest commits to hold out for a benchmark. None if the repository has no history, or its newest
    commits add no code."""
    new_pieces: int = 0
    """Number of pieces of code that only the held-out commits have."""
    new_functions: dict[str, int] = field(default_factory=dict)
    """Number of functions in the code that only the held-out commits have, by the language of the test suite that can
    call them: `python`, or `javascript` for JavaScript and TypeScript. Executable tasks can be made from them."""
    commits: int = 0
    """Number of commits from which an instruction can be made."""
    python_functions: int = 0
    """Number of Python functions outside of tests and documentation."""
    suites: list[SuiteSurvey] = field(default_factory=list)
    history_problem: str = ""
    """Why no code can be held out, or "" if code is held out."""

    @property
    def runnable(self) -> list[SuiteSurvey]:
        """Surveys of the test suites that can be run on this machine."""
        return [suite for suite in self.suites if not suite.problem]


def survey(repository: Repository) -> RepositorySurvey:
    """Survey one repository by reading its files and history. No code of the repository is executed.

    Raises:
        ValueError: the repository is damaged.
    """
    texts = read_texts(repository)
    languages = _languages(texts)
    suites = [_of_main_language(suite, _main(languages)) for suite in survey_suites(repository, texts)]
    held_out, pieces, problem = _hold_out(repository, texts)
    return RepositorySurvey(
        name=repository.name,
        languages=_main(languages),
        characters=sum(languages.values()),
        held_out=held_out,
        new_pieces=pieces["pieces"],
        new_functions={language: count for language, count in pieces.items() if language != "pieces"},
        commits=_usable_commits(repository) if repository.is_git else 0,
        python_functions=_python_functions(texts),
        suites=suites,
        history_problem=problem,
    )


def _of_main_language(suite: SuiteSurvey, main: Mapping[str, float]) -> SuiteSurvey:
    """Return a suite with a problem if its language is no main language of the repository: then it only tests scripts.
    Return other suites unchanged.
    """
    languages = {"javascript", "typescript"} if suite.language == "javascript" else {suite.language}
    if suite.problem or languages & main.keys():
        return suite
    return replace(suite, problem=f"less than {MAIN_SHARE:.0%} of the repository's code is {suite.language}")


def _languages(texts: Mapping[str, str]) -> Counter[str]:
    characters: Counter[str] = Counter()
    for path, text in texts.items():
        language = detect(path, text)
        if language not in TEXTS and not is_documentation(path):
            characters[language] += len(text)
    return characters


def _main(characters: Counter[str]) -> dict[str, float]:
    total = sum(characters.values())
    return {name: size / total for name, size in characters.most_common(4) if size >= MAIN_SHARE * total}


def _python_functions(texts: Mapping[str, str]) -> int:
    return sum(
        len(functions(path, text)) for path, text in texts.items()
        if path.endswith(".py") and not is_test_file(path) and not is_documentation(path)
    )  # fmt: skip


def _hold_out(repository: Repository, now: Mapping[str, str]) -> tuple[float | None, Counter[str], str]:
    """Choose the share of commits to hold out, and count the code that only these commits have.

    Returns the share (None if no code can be held out), the counts, and the reason why no code can be held out ("" if
    code can be held out). The counts are `pieces`, and the number of functions for each language of a test suite.
    """
    if not repository.is_git:
        return None, Counter(), "it is a plain folder: without a git history no newer code can be held out"
    best: tuple[int, float, Counter[str]] = (0, 0.0, Counter())
    for share in SHARES:
        try:
            split = git.commit_before_newest(repository.path, repository.commit, share)
        except ValueError as error:
            return None, Counter(), str(error)
        earlier = replace(repository, commit=split, head=repository.commit)
        old = read_texts(earlier)
        counts: Counter[str] = Counter()
        new = select_new(code_pieces(earlier, now, old), old, now, counts)
        new_counts = Counter("python" if piece.language == "python" else "javascript" for piece in new if piece.name)
        new_counts["pieces"] = len(new)
        if len(new) > best[0]:
            best = (len(new), share, new_counts)
        if len(new) >= ENOUGH_PIECES:
            return share, new_counts, ""
    if not best[0]:
        return None, Counter(), "the newest 40% of its commits add no code that the earlier files do not contain"
    return best[1], best[2], ""


def _usable_commits(repository: Repository) -> int:
    """Count commits whose message, author and number of files meet the limits of the builder `commits`."""
    limits, usable, seen = CommitLimits(), 0, 0
    with git.BlobReader(repository.path) as reader:
        for batch in history.commit_batches(repository.path, repository.commit):
            usable += sum(
                not drop_commit(commit, limits) for commit in history.read_commits(repository.path, batch, reader)
            )
            seen += len(batch)
            if seen >= MAX_COMMITS:
                break
    return usable
