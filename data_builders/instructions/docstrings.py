"""Prepare docstrings as answers: without examples and markup, and only if they tell what the shown code does."""

from __future__ import annotations

import ast
import re
import textwrap

from data_builders.instructions.function_facts import raised_names
from data_builders.parsing.python_functions import Definition

WIDTH = 79
"""Width of a paragraph that is broken into lines anew."""
MAX_WORDS = 150
"""Maximum number of words of a docstring that is an answer."""
MAX_SUMMARY_WORDS = 60
"""Maximum number of words of a docstring's first paragraph that is used as a summary."""

_ELSEWHERE = re.compile(
    r"https?://|\bversion(?:added|changed)\b|\bdeprecated\b|\.\. \w+::|\bsee\b|\bsame as\b|\bsimilar to\b|\balias (?:of|for|to)\b|"
    r"\bTODO\b|\bFIXME\b|\bXXX\b|#\d+|\bissue\b|\bnew in\b|\bchanged in\b|\bas of (?:version|python)\b|\bdocumentation\b|"
    r"compatib|\bhistor|\blegacy\b|workaround|\bbugs?\b|\bintended\b|\bin the future\b|\bcurrently\b|\bfor now\b|\bno longer\b|"
    r"recommend|\bprefer|\binstead you\b|\buseful\b|\bhelpful\b|\bhandy\b|convenien|\bcommonly\b|\btypically\b|"
    r"\busually\b|\boften\b|\bpopular\b|\binspired\b|\bnamed after\b|\boriginal(?:ly)? (?:from|author|version|implement)|\bfun\b|"
    r"\bnice\b|\bdesigned\b|\bplatforms?\b|(?-i:\b(?:Windows|Linux|macOS)\b)|\bpypy\b|\bcpython\b|\bpython \d|\bFIPS\b|\bsubclass|"
    r"\boverrid|\bhelper\b|\breverse of\b|\binverse of\b|\bcounterpart\b|\bnote that\b|\bbe careful\b|\bbeware\b|\bfor example\b|\be\.g\.|"
    r"\bdefault implementation\b|^\W*(?:don't|do not|never|avoid|use|override|called|call|must|should|needed|required|try to)\b|"
    r"\bdiffers? from\b|\bconsider\b|\bmostly\b|\bmeant\b|\brarely\b|\byou\b|\byour\b|\bpretty\b|\befficien|\bmemory\b|\bspeed\b|"
    r"\bstability\b|\bretained\b|\binternal(?:ly)?\b|(?:^|[.!?]\s+)there (?:is|are)\b|\bcan fail\b|\bstandards?\b|\bparallelism\b|^\w[\w.]*\(.*\)\s*->|"
    r"\butility\b|\bmore details\b|\bdetailed\b|\bcheck out\b|\bunfortunately\b|\bexact copy\b|"
    r"\bworks like\b|\blike :|\bequivalent (?:of|to) :|\bcompare with\b|\bbased on\b|\bborrowed\b|\bstolen\b|\bcredit\b|"
    r"\bfaster\b|\bslower\b|\bperformance\b|\bbenchmark|\bwe\b|(?-i:\bI\b)|\bI'm\b|\b(?:see|listed|described|mentioned|as|shown|examples?) (?:above|below)\b|\bthanks\b|\bcookbook\b",
    re.IGNORECASE,
)
"""Words of docstrings that speak of something that the code does not show."""
_ROLE = re.compile(r":[\w:]+:`[~.]?([^`<]+?)(?:\s*<[^`>]*>)?`")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)\s+(?=[A-Z`:*(])")
_PARAMETER = re.compile(
    r":param(?:\s+[\w.\[\], |]+?)?\s+\*{0,2}(\w+)\s*:|^\s{2,}\*{0,2}(\w+)(?:\s*\([^)]*\))?\s*:\s", re.MULTILINE
)
_SECTION = re.compile(r"^\s*(?:Args|Arguments|Parameters|Keyword Args|Keyword Arguments)\s*:?\s*$", re.MULTILINE)


def without_markup(text: str) -> str:
    """Replace the roles and double backticks of reStructuredText by plain backticks."""
    return re.sub(r"``([^`]+)``", r"`\1`", _ROLE.sub(r"`\1`", text))


def grounded(doc: str) -> str:
    """Return the part of a docstring that speaks of the function itself: no examples, history, advice or references.

    In prose, single sentences are left out; other paragraphs are left out as a whole. If the first sentence would be
    left out, the result is "".
    """
    paragraphs = re.split(r"\n[ \t]*\n", without_examples(doc))
    kept: list[str] = []
    for number, paragraph in enumerate(paragraphs):
        if not _ELSEWHERE.search(paragraph):
            kept.append(paragraph)
            continue
        is_prose = not re.search(r"^(?:\s|[-*:.]|\d+\.)|:$", paragraph, re.MULTILINE)
        sentences = _SENTENCE_END.split(" ".join(paragraph.split())) if is_prose else []
        good = [sentence for sentence in sentences if not _ELSEWHERE.search(sentence)]
        if number == 0 and (not good or good[0] != sentences[0]):
            return ""
        # A sentence after a removed one may refer to what the removed one said.
        while good and re.match(
            r"(?:This|That|These|Those|It|They|Instead|However|But|Otherwise|Then|Also|So)\b", good[-1]
        ):
            good.pop()
        if good:
            kept.append(textwrap.fill(" ".join(good), WIDTH, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(kept).strip()


def without_examples(doc: str) -> str:
    """Return a docstring up to its first example, without the words that announce the example."""
    place = re.search(
        r"^[ \t]*(?:>>>|\$ |In \[)|::[ \t]*$|^[ \t]*```|^[ \t]*(?:Examples?|Usage)\s*:?\s*$", doc, re.MULTILINE
    )
    if place is None:
        return doc.strip()
    text = doc[: place.start()].rstrip()
    paragraphs = re.split(r"\n[ \t]*\n", text)
    while paragraphs and (paragraphs[-1].rstrip().endswith((":", ",")) or len(paragraphs[-1].split()) < 2):
        # The rest of a paragraph that announces an example can stay if it has complete sentences.
        kept, dot, _ = paragraphs.pop().rpartition(". ")
        if dot:
            paragraphs.append(f"{kept}.")
    return "\n\n".join(paragraphs).strip()


def summary_of(doc: str) -> str:
    """Return the first paragraph of a docstring as one line of plain sentences, or "" if it is no summary."""
    paragraph = re.split(r"\n[ \t]*\n|\n[ \t]*[-*+][ \t]", grounded(doc), maxsplit=1)[0]
    if paragraph.rstrip().endswith(":") and ". " in paragraph:
        paragraph = paragraph.rpartition(". ")[0] + "."  # the last sentence announced a list
    text = without_markup(" ".join(paragraph.split()))
    if text.endswith((":", ",", "-")) or re.search(r":param|:return|^\s*(?:Args|Returns|Raises)\s*:", text):
        return ""
    if len(text.split()) > MAX_SUMMARY_WORDS:
        return ""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ")")) or not text else f"{text}."


def documentation_fault(doc: str, node: Definition) -> str:
    """Return why a docstring is no answer to a question about the code alone, or "".

    Args:
        doc: the docstring, or a part of it.
        node: the documented function.
    """
    if _ELSEWHERE.search(doc):
        return "docstring_points_elsewhere"
    if len(doc.split()) > MAX_WORDS:
        return "docstring_too_long"
    without_roles = _ROLE.sub("", doc)
    plain = re.sub(r"`[^`]*`(?!_)|^[ \t]*\*[ \t]", "", without_roles, flags=re.MULTILINE)
    has_broken_role = re.search(r":\w+`", without_roles) or re.search(r"`{3}|`_|\|\w+\|", plain)
    if has_broken_role or len(re.findall(r"(?<!\*)\*(?!\*)", plain)) % 2:
        return "docstring_with_broken_markup"
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    known = {item.arg for item in arguments if item is not None}
    section = _SECTION.search(doc)
    described = {
        explicit or (listed if section and place >= section.end() else "")
        for explicit, listed, place in ((match[1], match[2], match.start()) for match in _PARAMETER.finditer(doc))
    } - {"", None}
    sections = {"Returns", "Raises", "Yields", "Note", "Notes", "Warning", "Example", "Examples", "Attributes"}
    if not node.args.kwarg and described - known - sections:
        return "docstring_with_wrong_parameters"
    if names_other_exceptions(doc, node):
        return "docstring_with_wrong_claims"
    if re.search(r"\byields?\b", doc, re.IGNORECASE) and not _gives_iterator(node):
        return "docstring_with_wrong_claims"
    return ""


def names_other_exceptions(doc: str, node: Definition) -> bool:
    """Whether a docstring names an exception that a function with `raise` statements does not raise."""
    raised = {name.rpartition(".")[2] for name in raised_names(node.body)}
    return bool(raised and set(re.findall(r"\b[A-Z]\w+(?:Error|Exception)\b", doc)) - raised)


def _gives_iterator(node: Definition) -> bool:
    """Whether a function has `yield` or a generator expression, or returns the result of a call."""
    return any(isinstance(item, ast.Yield | ast.YieldFrom | ast.GeneratorExp | ast.Call) for item in ast.walk(node))
