"""Clean the messages of commits, and choose the messages that tell a reader what to change.

A prompt must not name the people who worked on a change. It must not point to issues, reviews or other commits either,
because a model cannot look them up. Trailers, acknowledgements and references are removed from the body of a message. A commit
whose subject is about a person, an issue or another commit is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_FLAGS = re.IGNORECASE
_NOISE = re.compile(
    r"""^(?:
    merge\ (?:branch|branches|pull|pr\b|mr\b|remote|tag|commits?\b|upstream|origin|main|master|trunk|develop|head\b|latest
        |changes?\ from|from\b|in\ |\#|'|"|[\w.-]+/|(?:the\ )?\S+\ branch\b|\S+\ into\b|.*\binto\ (?:main|master|trunk|develop)\b)
    |revert\b(?!\ to\b)
    |bump\ (?:(?:the\ |up\ |up\ the\ )?(?:version|dependenc|deps|requirement|copyright|year|minor|major|patch|release|minimum|required|(?:\S+\ )?group)
        |to\b|\S+\ (?:from|to)\b|\S+\ version|.*\bv?\d+(?:\.\d+)|.*\bversions?\b)
    |release\ (?:v?\d|version|candidate|notes|prep|of\ v?\d|\S+\ v?\d)|release:?$
    |versions?\ (?:bump|v?\d|number|to\b|update|up\b)|version:?$|v?\d+\.\d
    |wip\b|work\ in\ progress|fixup!|squash!|amend!
    |update\ (?:the\ )?(?:versions?(?:\ (?:number|string|to|in|for|info)\b|$|:)|changelog|change\ log|dependenc|deps\b|lock\ ?files?|\S*\.lock|requirements\b)
    |prepare\ (?:for\ )?(?:the\ )?(?:next\ )?(?:v?\d|release\b(?!\ of\ the)|version|development)
    |initial\ commit|first\ commit|auto(?:matic|mated)\ (?:commit|update|build|change|merge|sync|release|version|translation|format)
    |\[?(?:skip\ ci|ci\ skip)|(?:chore|build)\(deps|cherry[-\ ]pick(?:ed)?\b
    )|\bdependabot\b""",
    _FLAGS | re.VERBOSE,
)
_VAGUE = re.compile(
    r"""^(?:(?:address|apply|incorporate|integrate|respond\ to|react\ to|act\ on|take\ in|follow)\ (?:\w+\ ){0,3}
        (?:review(?:er)?(?:'?s|s')?|code\ review|feedback|suggestions?|nit(?:pick)?s?|remarks|pr|mr|pull\ request)
        (?:\ (?:comments?|feedback|suggestions?|remarks?|notes?|changes?|findings?|requests?|nits?|fixes|edits|points?|from|by|of|in|on)\b.*)?$
    |(?:implement|handle|resolve|fix|do|make|add|include)\ (?:\w+\ ){0,2}(?:code\ |pr\ )?review(?:er)?(?:'?s|s')?\ (?:comments?|feedback|suggestions?|remarks?|notes?|changes?|findings?|requests?|nits?|fixes|edits|points?)\b.*$
    |(?:address|apply|incorporate|implement|integrate|make)\ (?:\w+\ ){0,3}(?:comments?|changes|requests?|fixes|suggestions?)\ (?:from|by|of|(?:made|requested|asked\ for|suggested)\ (?:in|by|during)|on|in)\ (?:the\ |a\ )?(?:\w+\ )?(?:code\ )?(?:review|reviewer|pr|pull\ request|mr)
    |(?:try|attempt)(?:\ again|\ (?:to|and)\ (?:fix|make|get|repair|please|satisfy|appease|debug|solve)|\ (?:another|something|a\ different|one\ more|yet\ another)\b)
    |(?:hopefully|maybe|perhaps|another\ (?:attempt|try|fix)|one\ more|yet\ another|let'?s|see\ if|oops|forgot|argh|damn|sigh|ugh)\b
    |(?:fix|repair|unbreak|make|get|keep|satisfy|appease|please|calm|silence)\ (?:the\ |our\ )?(?:failing\ |broken\ |red\ )?(?:build|ci|pipeline|travis|appveyor|circleci|github\ actions?|lint(?:er|ing|s)?|flake8|pylint|pycodestyle|pyflakes|mypy|ruff|black|isort|eslint|rubocop|clippy|pre-commit|sonar\w*|codecov|coverage|the\ compiler|tests?|\ and\ |,\ )+
        (?:\ (?:again|once\ more|happy|green|pass(?:ing)?|work(?:ing)?|for\ real|failures?|errors?|issues?|warnings?|complaints?|problems?|now|finally|please|on\ (?:ci|travis|windows|linux|macos?|py\S*|python\S*)))*$
    |(?:update|change|modify|edit|improve|clean(?:\ ?up)?|tidy(?:\ up)?|polish|tweak|refactor|fix|adjust|correct|rework|make|do|add|apply|commit|push|save|implement|finish|continue|clarify|simplify)\ 
        (?:up\ )?(?:(?:some|several|a\ (?:few|couple\ of|bunch\ of|lot\ of|little)|various|many|minor|small|more|misc\w*|other|further|final|last|all\ the|tiny|little|additional|the|remaining|of|my|current|bit)\ )*
        (?:things?|stuff|code|bugs?|issues?|problems?|errors?|changes?|fixes|tweaks?|improvements?|clean-?ups?|work|progress|bits?|touches|edits?|files?|everything|nits?|it|this|that|them|style|formatting)
        (?:\ (?:here|there|and|in|of|to|for|up|a|bit|little|more|again|the|this|that|some|code|files?|module|project|repo(?:sitory)?|things|better|further|now|around|today|so|far|old|new|from|yesterday|last|night|week))*$
    |(?:commit|push|save|store|check\ in|checkpoint)\ (?:\w+\ ){0,3}(?:work|progress|changes|state|stuff|everything)\b
    |.*\b(?:once\ more|one\ more\ time|yet\ again|for\ the\ (?:last|second|third|nth|umpteenth)\ time|\(?(?:second|third|2nd|3rd|another)\ (?:try|attempt)\)?)$
    )""",
    _FLAGS | re.VERBOSE,
)
_CONVENTIONAL = re.compile(
    r"^(?:\[[^\]]{1,30}\]\s*|[a-z]+(?:\([^)]{1,40}\))?!?:\s+|[\w./-]{1,40}:\s+|\(?(?:(?:bug|issue|ticket|pr)s?\s*#?|#|gh-|bpo-)\d+\)?\s*[:,-]?\s+"
    r"|(?:fix(?:es)?|close[sd]?|resolves?)\s+(?:(?:bug|issue|ticket|pr)\s*)?#?\d+(?:\s*[:,-]\s+|\s+(?-i:(?=[A-Z])))"
    r"|(?-i:[A-Z][A-Z0-9]+-\d+)\s*[:,-]?\s+)+",
    _FLAGS,
)
_VERBS = (
    "embed|feed|seed|speed|proceed|exceed|succeed|shed|wed|bleed|breed|heed|weed|shred|bring|string|ring|sing|ping|swing|"
    "spring|fling|cling|sling|mention|caution|condition|partition|position|section|transition|question|auction|portion|"
    "station|action|ration|motion|proportion|sanction|implement|document|comment|increment|decrement|augment|complement|"
    "supplement|experiment|fragment|segment|instrument|ferment|lament|cement|torment|compliment|harness|witness|apply|"
    "supply|multiply|reply|rely|comply|imply|fly|ply|tally|ally|rally"
)
_IMPERATIVE = re.compile(rf"^(?:re|un|de|pre|co|over|mis)?-?(?:{_VERBS})$", _FLAGS)
"""Verbs that end like participles, nouns or adverbs."""
_NOT_IMPERATIVE = re.compile(
    r"(?:ed|ing|tion|ment|ness|ly)$|^(?:the|a|an|this|that|some|more|minor|small|new|now|no|not|it|we|i|is|was|are|for|in|"
    r"on|of|to|with|and|or|but|when|if|all|also|just|still|only|too|typo|typos|better|various)$",
    _FLAGS,
)

_CAPITAL = r"[A-ZÀ-ÖØ-Þ][\w'’-]*\.?"
_FULL_NAME = rf"(?:{_CAPITAL}\s+(?:(?:{_CAPITAL}|van|von|de|der|den|di|da|du|la|le|bin|al)\s+)*{_CAPITAL})"
_HANDLE = r"@[A-Za-z][\w-]*"
_ADDRESS = r"<?[\w.+-]+@[\w-]+\.[\w.-]+>?"
_DEEDS = (
    "reported|contributed|suggested|found|spotted|noticed|pointed out|discovered|requested|provided|submitted|written|"
    "authored|co-authored|developed|reviewed|tested|approved|acked|signed(?: off)?|helped|debugged|diagnosed|proposed|"
    "inspired|triaged|sponsored|merged|committed|fixed|implemented|created|prepared|designed|ported|adapted|investigated"
)
_CREDIT = re.compile(
    rf"""\b(?:(?i:thanks?,?(?:\ (?:you|a\ lot|very\ much|again|also))*,?(?:\ (?:to|go(?:es)?\ to|for))?|thx(?:\ to)?|kudos\ to|credits?\ (?:to|go(?:es)?\ to)
        |courtesy\ of|hat\ tip\ to|h/t|props\ to|shout-?out\ to|cc:?|/cc|ping
        |(?:patch|fix|code|report|idea|work|change|suggestion|contribution|diagnosis|analysis|pr|pull\ request)(?:\ (?:is|was|were))?(?:\ (?:{_DEEDS}))?\ (?:by|from))
        \s*:?\s+(?:{_HANDLE}|{_CAPITAL}|{_ADDRESS})
    |(?i:(?:{_DEEDS})\s+(?:by|with)|(?:together|paired|pairing|discussed|worked|collaboration|pair-programmed|cooperation)\s+with|by|from)\s*:?\s+(?:{_FULL_NAME}|{_HANDLE}|{_ADDRESS})
    |(?:{_FULL_NAME}|{_HANDLE})\s+(?i:has\ |have\ |had\ )?(?i:{_DEEDS}|wrote|said|says|noted|asked|mentioned|explained|gave|helped|thinks|did)\b)
    |{_HANDLE}\s+(?i:(?:{_DEEDS}|wrote|said|noted|asked|mentioned)\b)|(?i:\bas\ )(?:{_FULL_NAME}|{_HANDLE})\s""",
    re.VERBOSE,
)
"""A credit: words that thank or name the person who did something."""
_NAME_IN_BRACKETS = re.compile(
    rf"\s*[(\[](?:{_FULL_NAME}|{_HANDLE}|{_ADDRESS})(?:\s*(?:,|and|&|\+)\s*(?:{_FULL_NAME}|{_HANDLE}))*[)\]]"
)
_NAME_AT_END = re.compile(
    rf",?\s*[-–—(]*\s*\b(?i:by|from|via|thanks to|courtesy of|cc|with)\s+(?:{_FULL_NAME}|{_HANDLE}|{_ADDRESS})\)?\.?$"
)

_HASH = r"(?<![#\w/.-])(?=[0-9a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,40}(?![\w-])"
_KEY = r"(?-i:\b[A-Z][A-Z0-9]+-\d+)"
_LINK = r"https?://\S+"
_TRACKER_LINK = r"https?://\S*(?:/(?:issues?|pulls?|commits?|merge_requests|discussions|compare|browse|ticket|bugs?|detail|review)\b|show_bug|[?&]id=)\S*"
_NUMBER = r"(?:[\w.-]+(?:/[\w.-]+)?)?#\d+|(?:gh|bpo|pr|mr|issue|bug)-\d+|!\d+"
_WORDED = r"(?:pr|mr|pull\ requests?|merge\ requests?|issues?|bugs?|tickets?|jira|bpo|task|story|defect|case|rev(?:ision)?|changeset|commit)s?\s*(?:no\.?|number|nr\.?|\#|:)?\s*\#?(?:\d+|[A-Z][A-Z0-9]+-\d+|[0-9a-f]{7,40})\b"
_ANY_REFERENCE = rf"(?:{_WORDED}|{_NUMBER}|{_KEY}|{_LINK}|{_HASH})"
_POINTER = re.compile(rf"\b(?:{_WORDED})|(?<![\w&])(?:{_NUMBER})\b|{_HASH}|{_TRACKER_LINK}", _FLAGS)
"""A reference to an issue, a review, a page or a commit inside of a sentence."""
_REFERENCE_LINE = re.compile(
    rf"^\W*(?:(?:fix(?:es|ed)?|close[sd]?|resolve[sd]?|refs?|references?|see(?:\ also)?|related(?:\ to)?|part\ of|follow-?\ ?up\ (?:of|to|for)|addresses|"
    rf"implements|cf\.?|link|issue|bug|ticket|jira|pr|backport(?:s|\ of)?|cherry\ picked\ from|from|part-of|for|in|task|tracker|url|bugs?|and)\W*)*"
    rf"{_ANY_REFERENCE}(?:\W+(?:(?:and|or|in|from)\W+)?{_ANY_REFERENCE})*\W*$",
    _FLAGS,
)
"""A line that only points to issues, reviews, pages or commits."""
_REFERENCE_IN_BRACKETS = re.compile(rf"\s*[(\[](?:\w+\s+){{0,3}}{_ANY_REFERENCE}(?:\W+{_ANY_REFERENCE})*[)\]]", _FLAGS)
_REFERENCE_AT_END = re.compile(
    rf"[\s,;:-]*(?:\b(?:fix(?:es)?|close[sd]?|closes|resolve[sd]?|refs?|see|for|in|as\ per|per|of|from|to\ fix|re)\s+)?(?:{_WORDED}|{_NUMBER}|{_KEY}|{_LINK})\.?$",
    _FLAGS,
)
_DANGLING = re.compile(
    r"\b(?:in|of|to|for|by|with|and|or|from|the|a|an|see|per|via|at|on|as|includes?|including|address(?:es|ing)|fix(?:es|ing)|"
    r"clos(?:es|ing)|resolv(?:es|ing)|than|that|since|after|before|like|because)$",
    _FLAGS,
)
"""The end of a subject that is incomplete, because a reference stood at its end."""
_STANDARDS = re.compile(
    r"\b(?:UTF|ISO|SHA|PEP|RFC|CVE|MD|BASE|AES|CP|EUC|KOI|IEEE|ANSI|FIPS|ECMA|PY|ES|HTTP|TLS|LATIN|WINDOWS|X|DES|RSA|GPL|LGPL|MPL|BSD|CRC|ED|P)-\d"
)
_TRAILER = re.compile(
    r"""^\s*[*-]?\s*(?:
    [\w-]+(?:[-\ ](?:by|with|to))\s*:.*                       # Signed-off-by:, Approved by:, Co-authored-by:
    |(?:authors?|committer|contributors?|reviewers?|testers?|cc|maintainers?)\s*:.*
    |[A-Z][A-Za-z]*(?:-[A-Za-z]+)*-(?:id|revid|url|link|on|bug|issue|number|version|commit|ref|refs|pr|change|release|label|hash)\s*:.*
    |git-svn-id\s*:.*|differential\ (?:revision|diff)\s*:.*|(?:test\ plan|subscribers|tags|tasks|blame\ revision|auditors|cherry-pick|gitorigin\S*|topic|release\ note[s]?)\s*:.*
    |(?:fixes|closes|resolves|refs?|bug|issue|change|commit|link|url)\s*:\s*\S+\s*(?:\(.*\))?
    |\(cherry\ picked\ from\ .*\)|this\ (?:reverts|closes|fixes)\ (?:the\ )?(?:commit|issue|bug|pr|\#|[0-9a-f]{7}).*|-+\s*8<.*
    )$""",
    _FLAGS | re.VERBOSE,
)
_SENTENCES = re.compile(r"(\s*\n(?=\s*(?:[-*+]|\d+[.)])\s)|(?<=[.!?])\s+(?=[^a-z])|(?<=[.!?][)\"'])\s+(?=[^a-z]))")


def names_of(people: Collection[str]) -> frozenset[str]:
    """Return the full names among the names of authors, in lower case and with single blanks.

    A name of one word is left out, because the word may have another meaning in a message.
    """
    words = (name.lower().split() for name in people)
    return frozenset(
        " ".join(parts) for parts in words if 2 <= len(parts) <= 4 and all(len(part) > 1 for part in parts)
    )


def names_a_person(text: str, names: Collection[str]) -> bool:
    """Whether a text contains one of the names, or credits somebody with a contribution."""
    if _CREDIT.search(text) or _NAME_IN_BRACKETS.search(text):
        return True
    words = [word.strip(".,;:()[]<>\"'") for word in text.lower().split()]
    return any(
        " ".join(words[start : start + count]) in names
        for count in (2, 3, 4)
        for start in range(len(words) - count + 1)
    )


def points_elsewhere(text: str) -> bool:
    """Whether a text refers to an issue, a review, a page or a commit."""
    return bool(_POINTER.search(text))


def subject_and_body(message: str, names: Collection[str] = ()) -> tuple[str, str]:
    """Split a commit message into a cleaned subject and a cleaned body.

    Args:
        message: the message of the commit.
        names: full names of people, from `names_of`. Sentences with one of the names are removed from the body.

    Returns:
        The subject without prefixes, trailing references and credits, and the body without trailers, references and
        sentences that credit a person.
    """
    subject, _, body = message.partition("\n")
    subject = _CONVENTIONAL.sub("", subject.strip())
    for pattern in (_REFERENCE_IN_BRACKETS, _NAME_IN_BRACKETS, _NAME_AT_END):
        subject = pattern.sub("", subject).strip()
    if not _STANDARDS.search(subject):
        subject = _REFERENCE_AT_END.sub("", subject).strip()
    paragraphs = (_paragraph(part, names) for part in re.split(r"\n[ \t]*\n", body))
    return subject[:1].upper() + subject[1:], "\n\n".join(part for part in paragraphs if part)


def _paragraph(text: str, names: Collection[str]) -> str:
    """Return a paragraph without trailers, reference lines, and sentences with a credit or a reference."""
    lines = [
        line for line in text.split("\n")
        if not _TRAILER.match(line) and not (_REFERENCE_LINE.match(line) and not _STANDARDS.search(line))
    ]  # fmt: skip
    text = "\n".join(lines)
    for pattern in (_REFERENCE_IN_BRACKETS, _NAME_IN_BRACKETS):
        text = text if _STANDARDS.search(text) else pattern.sub("", text)
    parts = _SENTENCES.split(text)
    kept: list[str] = []
    for sentence, separator in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if not names_a_person(sentence, names) and not points_elsewhere(sentence):
            kept += [sentence, separator]
    return "".join(kept).strip()


def drop_by_message(
    message: str, names: Collection[str], *, imperative: bool, min_characters: int, min_words: int
) -> str:
    """Return the name of the rule that drops a commit because of its message, or "".

    Args:
        message: the message of the commit.
        names: full names of people, from `names_of`.
        imperative: whether the subject must begin with a verb in the imperative.
        min_characters: minimum length of the cleaned subject.
        min_words: minimum number of words of the cleaned subject.
    """
    subject, _ = subject_and_body(message, names)
    first_line = message.split("\n", 1)[0]
    if _NOISE.search(first_line) or _NOISE.search(subject):
        return "merge_bump_or_revert"
    words = subject.split()
    if len(subject) < min_characters or len(words) < min_words:
        return "short_subject"
    first_word = re.sub(r"[^\w-]", "", words[0])
    if imperative and _NOT_IMPERATIVE.search(first_word) and not _IMPERATIVE.search(first_word):
        return "not_imperative"
    if _VAGUE.search(subject.rstrip(".!")):
        return "says_nothing"
    if names_a_person(subject, names):
        return "names_a_person"
    return "points_elsewhere" if points_elsewhere(subject) or _DANGLING.search(subject) else ""
