"""Make instructions of the kinds `implement` and `document` from JavaScript and TypeScript functions with a JSDoc comment."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from alignment.grading.node_syntax import TYPESCRIPT, JsFunction, js_functions
from data_builders.instructions.instruction_kinds import MIN_DOC_WORDS, Draft
from data_builders.repositories.sources import Repository
from data_builders.tasks.javascript.javascript_mutants import definition
from data_builders.tasks.javascript.javascript_runners import SOURCE, is_js_test
from data_builders.tasks.javascript.javascript_suite import NOT_SOURCE
from data_builders.tasks.python.python_suite import is_documentation

MAX_FILE_CHARACTERS = 6000
"""Maximum length of a file that an instruction of the kind `implement` shows. The whole file is shown, so that all names
which the answer uses are known."""
_WORDINGS = {
    "implement": ("Write the body of `{name}` in `{file}` as its comment describes it.",
                  "Implement `{name}` from its signature and its JSDoc comment.",
                  "The body of `{name}` is missing. Write it; keep the signature."),
    "document": ("Write the JSDoc comment of `{name}`.", "Document this function with a JSDoc comment.",
                 "Add a JSDoc comment to `{name}` from `{file}`. Do not change the code."),
}  # fmt: skip


def javascript_drafts(
    repository: Repository, texts: Mapping[str, str], kinds: Sequence[str], min_lines: int, dropped: Counter[str]
) -> Iterator[Draft]:
    """Yield the drafts of conversations from the JavaScript and TypeScript files of a repository.

    Args:
        repository: the repository.
        texts: texts of the repository's files, keyed by path.
        kinds: the wanted kinds. Kinds other than `implement` and `document` are made of Python only.
        min_lines: minimum number of lines of a function.
        dropped: counter of functions that give no draft, by reason.
    """
    for path, text in sorted(texts.items()):
        if not path.endswith(SOURCE) or path.endswith(NOT_SOURCE) or is_js_test(path) or is_documentation(path):
            continue
        for function in js_functions(path, text):
            if definition(text, function).count("\n") + 1 < min_lines:
                dropped["function_too_short"] += 1
            elif len(_description(function.doc).split()) >= MIN_DOC_WORDS:
                source = f"{repository.name}@{repository.commit[:12]}:{path}:{function.name}"
                if "implement" in kinds and len(text) <= MAX_FILE_CHARACTERS:
                    yield _implement(text, function, source)
                if "document" in kinds and _documents_parameters(function):
                    yield _document(text, function, source)


def _implement(text: str, function: JsFunction, source: str) -> Draft:
    shown = f"{text[: function.start]}\n  // write this body\n{text[function.end :]}"
    return _draft("implement", function, shown, definition(text, function), source)


def _document(text: str, function: JsFunction, source: str) -> Draft:
    code = textwrap.dedent(definition(text, function))
    comment = "\n".join(
        line.strip() if number == 0 else f" {line.strip()}" for number, line in enumerate(function.doc.split("\n"))
    )
    return _draft("document", function, code, f"{comment}\n{code}", source)


def _draft(kind: str, function: JsFunction, shown: str, answer: str, source: str) -> Draft:
    language = "typescript" if function.file.endswith(TYPESCRIPT) else "javascript"
    wordings = _WORDINGS[kind]
    wording = wordings[hashlib.sha256(f"{kind}:{source}".encode()).digest()[0] % len(wordings)]
    ask = wording.format(name=function.name.rpartition(".")[2], file=function.file)
    blocks = [f"```{language}\n{code.strip(chr(10))}\n```" for code in (shown, answer)]
    return Draft(kind, ask, blocks[0], blocks[1], source, language=language)


def _description(doc: str) -> str:
    """Return the text of a JSDoc comment before its first tag."""
    text = re.sub(r"^[ \t]*(?:/\*\*|\*/|\*)?[ \t]*|[ \t]*\*/", "", doc, flags=re.MULTILINE)
    return re.split(r"^[ \t]*@\w", text, maxsplit=1, flags=re.MULTILINE)[0]


def _documents_parameters(function: JsFunction) -> bool:
    """Whether all parameters that a comment names are parameters of the function. Comments of older code often differ."""
    named = re.findall(r"@param\s+(?:\{[^}\n]*\}+\s+)?\[?([\w$]+)", function.doc)
    return set(named) <= set(function.parameters)
