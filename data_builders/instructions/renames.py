"""Make instructions of the kind `refactor`: rename a function in all files that use it."""

from __future__ import annotations

import ast
import io
import keyword
import random
import re
import tokenize
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from data_builders.instructions.function_facts import listed
from data_builders.instructions.instruction_kinds import Draft, Rejected
from data_builders.instructions.wordings import wording
from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.python_functions import functions, parse
from data_builders.tasks.python.python_suite import is_documentation, is_test_file

MAX_FILES = 5
"""Maximum number of files that a rename changes."""
MAX_CHARACTERS = 12_000
"""Maximum number of characters of code that a rename shows."""
MIN_NAME = 5
"""Minimum length of a function's name. Shorter names are not descriptive enough to be the target of a rename."""
_VERBS = {
    "get": "fetch", "make": "create", "create": "make", "build": "construct", "parse": "read", "compute": "calc", "remove": "delete",
    "delete": "remove", "find": "search", "is": "check", "has": "check", "load": "read", "read": "load", "write": "save",
    "add": "insert", "set": "assign", "check": "verify", "format": "render", "render": "format", "convert": "change",
    "split": "divide", "join": "merge", "merge": "join", "update": "change", "iter": "walk", "run": "execute", "copy": "clone",
}  # fmt: skip
"""Verbs at the start of a name, each with another verb that a programmer could have used."""


def refactors(repository: str, commit: str, texts: Mapping[str, str], seed: int) -> Iterator[Draft | Rejected]:
    """Yield instructions to rename a function in all files that use the function.

    The question shows the code with a less clear name. The answer is the original code. A function is selected only if
    other files use it, and if its name has no other meaning in the repository.
    """
    python = {path: text for path, text in texts.items() if path.endswith(".py") and parse(text) is not None}
    lines_of: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for path, text in python.items():
        for name, lines in _names(text).items():
            lines_of[name][path] = lines
    for path, text in sorted(python.items()):
        if is_test_file(path) or is_documentation(path):
            continue
        for function in functions(path, text):
            name = function.qualname
            uses = {file: lines for file, lines in lines_of.get(name, {}).items() if not is_test_file(file)}
            if not _can_be_renamed(name, path, uses, python):
                continue
            source = f"{repository}@{commit[:12]}:{path}:{name}"
            old = former_name(name, lines_of, random.Random(f"{seed}:{source}"))
            if not old or any(_is_text_elsewhere(python[file], name) for file in uses):
                yield Rejected("name_with_several_meanings")
                continue
            yield from _draft(
                source, old, name, {file: _statements(python[file], uses[file]) for file in sorted(uses)}, seed
            )


def _draft(source: str, old: str, name: str, code_of: Mapping[str, str], seed: int) -> Iterator[Draft]:
    """Yield the instruction that renames `old` to `name` in the code of some files, keyed by path."""
    before = {file: re.sub(rf"\b{name}\b", old, code) for file, code in code_of.items()}
    if sum(map(len, before.values())) > MAX_CHARACTERS or any(parse(code) is None for code in before.values()):
        return
    names = {"old": old, "name": name, "files": listed([f"`{file}`" for file in code_of])}
    material, answer = (
        "\n\n".join(f"`{file}`:\n\n{code_block(code)}" for file, code in codes.items()) for codes in (before, code_of)
    )
    yield Draft("refactor", wording("refactor", source, seed, names), material, answer, source)


def former_name(name: str, taken: Collection[str], rng: random.Random) -> str:
    """Return a less clear name that the function could have had, or "" if all candidates are taken.

    Candidates: another verb, the words in another order, abbreviated words, capital letters instead of underscores, a
    verb in front.
    """
    words = name.split("_")
    shorter = [_abbreviated(word) for word in words]
    candidates = [
        "_".join([_VERBS.get(words[0], words[0]), *words[1:]]),
        "_".join([*words[1:], words[0]]),
        "_".join(shorter),
        words[0] + "".join(word.capitalize() for word in words[1:]),
        "_".join([*words[:-1], words[-1], "impl"]),
        f"{rng.choice(('do', 'get', 'run', 'handle'))}_{name}",
    ]
    good = [
        item for item in dict.fromkeys(candidates) if item != name and item not in taken and not keyword.iskeyword(item)
    ]
    return rng.choice(good) if good else ""


def _abbreviated(word: str) -> str:
    """Return a word without its vowels after the first letter, or the word itself if it is short."""
    return word[0] + re.sub("[aeiou]", "", word[1:]) if len(word) > 4 else word


def _is_text_elsewhere(text: str, name: str) -> bool:
    """Whether a name occurs in a string that is neither a docstring nor an entry of `__all__`, or as an attribute."""
    tree = parse(text)
    assert tree is not None
    harmless: set[int] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            harmless.add(id(node.value))
        elif isinstance(node, ast.Assign) and any(
            isinstance(item, ast.Name) and item.id == "__all__" for item in node.targets
        ):
            harmless |= {id(part) for part in ast.walk(node)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in harmless:
            if re.search(rf"\b{name}\b", node.value):
                return True
        elif isinstance(node, ast.Attribute) and node.attr == name and getattr(node.value, "id", "") not in modules:
            return True
    return False


def _can_be_renamed(name: str, path: str, uses: Mapping[str, list[int]], python: Mapping[str, str]) -> bool:
    """Whether a name refers to nothing but one top-level function of the file `path`, and one to four other files use
    the name.
    """
    if "." in name or name.startswith("_") or len(name) < MIN_NAME or path not in uses:
        return False
    definitions = sum(len(re.findall(rf"\b(?:def|class)\s+{name}\b", python[file])) for file in uses)
    is_bound = any(re.search(rf"\b{name}\s*(?:=[^=]|:\s)|\bfor {name}\b|\bas {name}\b", python[file]) for file in uses)
    return 2 <= len(uses) <= MAX_FILES and definitions == 1 and not is_bound


def _names(text: str) -> dict[str, list[int]]:
    """Map each identifier of a file to the lines in which it occurs."""
    lines_of: dict[str, list[int]] = defaultdict(list)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                lines_of[token.string].append(token.start[0])
    except (tokenize.TokenError, SyntaxError):
        pass
    return lines_of


def _statements(text: str, lines: list[int]) -> str:
    """Return the top-level statements that contain one of the given lines. `# ...` replaces the code between them."""
    tree = parse(text)
    assert tree is not None
    rows = text.split("\n")
    parts: list[str] = []
    for node in tree.body:
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        last = node.end_lineno or first
        if any(first <= line <= last for line in lines):
            parts.append("\n".join(rows[first - 1 : last]))
    return "\n\n# ...\n\n".join(parts)
