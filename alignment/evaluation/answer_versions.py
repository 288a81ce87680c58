"""Classify a code block, from the text before it, as a correction, as an example of wrong code, or as neither."""

from __future__ import annotations

import enum
import re


class Version(enum.Enum):
    """Classes of code blocks, according to the text before a block: neither, a correction, or an example of wrong
    code.
    """

    PLAIN = "plain"
    CORRECTION = "correction"
    WRONG = "wrong"


_BAD = r"(?:wrong|incorrect|buggy|broken|faulty|flawed|erroneous|bad|naive but wrong|invalid)"
_FAULT = r"(?:mistakes?|bugs?|errors?|pitfalls?|problems?|issues?|traps?|gotchas?)"
_THING = r"(?:version|code|solution|way|approach|implementation|attempt|answer|example|variant|function|program|fix|correction|method|idea|one)"
_NOT = r"(?:should|must|do|does|did|would|could|can|is|was|will)(?:\s+not|n[o']?['’]?t)"
_WRONG = re.compile(
    rf"""
    \b(?:{_NOT}|never)\s+(?:\w+\s+)?(?:use|be\s+used|write|do|copy|submit|rely|recommend(?:ed)?|advis(?:ed|able))\b
    | \b(?:how|what|ways?)\s+not\s+to\b | \bnot\s+(?:like\s+this|this|recommended|to\s+use|advised)\b
    | ^\W*(?:but\s+|so\s+|please\s+)?avoid\b | \bto\s+avoid\W*$ | \bto\s+be\s+avoided\b
    | \b(?:a|an|the|some|one|another|this|following|common|typical|frequent|similar|seemingly)\s+(?:\w+\s+){{0,2}}{_BAD}\s+{_THING}\b
    | \b(?:a|an|one|another|common|typical|frequent|usual|classic|popular)\s+(?:\w+\s+){{0,2}}{_FAULT}\b
    | \banti-?patterns?\b | \bcounter-?examples?\b | ^\W*{_BAD}\W*$ | ^\W*{_BAD}\s*[:(-]
    | ^\W*this\s+(?:\w+\s+){{0,3}}(?:is|would\s+be|fails?|breaks)\b[^.]*\b(?:{_BAD}|fails?|breaks)\b[^.]*:\W*$
    | \b(?:instead\s+of|rather\s+than|compared?\s+(?:this\s+)?(?:with|to)|in\s+contrast\s+to|unlike|as\s+opposed\s+to)\W*$
    | \b(?:this|the\s+following|next)\b[^.]*\b(?:would|will|may|can)\s+(?:fail|break|crash|be\s+{_BAD})\b
    | \bwatch\s+out\b | \bbeware\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Matches text which says that the following code is an example of wrong code."""
_CONFESSION = re.compile(
    rf"""
    \b(?:there\s+(?:is|was|are|were)|there['’]s)\b[^.:]*\b{_FAULT}\b
    | \bI\s+(?:have\s+|just\s+)?(?:made|see|saw|noticed|found|realised|realized|introduced|overlooked|forgot|missed)\b
    | \b(?:oops|sorry|apolog\w+|on\s+second\s+thought)\b | ^\W*wait\b
    | \b(?:corrects?|fix(?:es|ed)?|avoids?|without)\s+(?:\w+\s+){{0,3}}{_FAULT}\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Matches text which admits an error in the previous code, or says that the following code repairs an error."""
_BEFORE = re.compile(
    rf"""
    \b(?:that|it|above|first|previous|earlier|my|original|initial|last)\b[^.]*\b(?:{_BAD}|{_FAULT}|fails?|(?:does|do)(?:\s+not|n['’]t)\s+work)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Matches text which says that the previous code has an error."""
_CORRECTION = re.compile(
    r"""
    \b(?:correct(?:ed|ion|ly|s|ing)?|fix(?:ed|es|ing)?|revised|final|improved|amended|repaired|updated|working|proper|right)\b
    | \bshould\s+(?:have\s+been|be|look)\b | \binstead\s+of\s+(?:the|that|my|this)\b | \binstead\s*[,:]
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ABOUT_BEFORE = re.compile(r"(?i)\b(?:that|above|previous|earlier|first|it)\s+(?:\w+\s+){0,2}(?:is|was|fails?)\b")
_NOT_CORRECT = re.compile(r"(?i)\bnot\s+(?:\w+\s+)?(?:correct|right|work)")


def version_of(introduction: str) -> Version:
    """Classify a code block by the text before it.

    The last sentence that says something about a block counts. "The wrong way would be:" is about the block that
    follows; "That is wrong." is about the previous block, so the block that follows is a correction.

    Args:
        introduction: the text between the previous code block and this one.
    """
    for sentence in reversed(_sentences(introduction[-2000:])):
        text = re.sub(r"[*_`]", "", sentence)
        if _CONFESSION.search(text):
            return Version.CORRECTION
        if _WRONG.search(text) and not _ABOUT_BEFORE.search(text):
            return Version.WRONG
        if _BEFORE.search(text) or (_CORRECTION.search(text) and not _NOT_CORRECT.search(text)):
            return Version.CORRECTION
    return Version.PLAIN


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]
