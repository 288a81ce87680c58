"""Find passwords that do not stand next to a name such as `password`.

These are passwords in columns of CSV and Markdown tables, in SQL rows, in mappings from users to passwords, in
Kubernetes secrets, and in the password files of programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_builders.cleaning.findings import Finding, find_all
from data_builders.cleaning.secret_judgement import is_mixed, looks_secret
from data_builders.cleaning.text_index import TextIndex, WordSet

_PASSWORD_COLUMN = re.compile(
    r"[\"'`*\[]*(?:\w*_)?(?:passw(?:or)?d|passwort|kennwort|pwd|pass|passcode|passphrase)[\"'`*\]]*\Z", re.IGNORECASE
)
_SECRET_COLUMN = re.compile(
    r"[\"'`*\[]*(?:\w*_)?(?:secret|token|api_?key|secret_?key|access_?key|client_?secret)[\"'`*\]]*\Z", re.IGNORECASE
)
_HEADING = re.compile(
    r"[ \t]*\|?[ \t]*[\"'*]?[A-Za-z][\w \"'*-]{0,40}(?:[ \t]*[,;|\t][ \t]*[\w \"'*-]{1,40}){1,30}\|?[ \t]*\r?\Z"
)
_RULE = re.compile(r"[|\-: \t+]+\Z")
_CODE = re.compile(r"[(){}=]|=>|->")
_INSERT = re.compile(r"into\s+[\w.\"`\[\]]+\s*\(([^()]{1,2000})\)\s*values\s*(?=\()", re.IGNORECASE)
_TUPLE = re.compile(r"\s*,?\s*\(((?:[^()'\"]|'(?:[^'\\\n]|''|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|\([^()]*\)){1,4000})\)")
_CELL = re.compile(r"\s*(N?'((?:[^'\\\n]|''|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\"|(?:[^,'\"()]|\([^()]*\))*)\s*(?:,|\Z)")
_SET_PASSWORD = re.compile(
    r"set\s+password\s+(?:for\s+[^=\n]{1,80})?=\s*(?:password\s*\()?'([^'\n]{4,100})'", re.IGNORECASE
)
_MAP = re.compile(
    r"[sS][\"']?(?:[ \t]*:[ \t]*[A-Za-z][\w\[\], <>|]{0,40})?[ \t]*(?:=>?|:=|:)[ \t]*(?:new[ \t]+\w+[<(]?[^{\[(\n]{0,40}|\w{1,20}\()?(?P<open>[{\[(])"
)
"""From the last letter of a plural to the bracket that opens a mapping or list."""
_YAML_MAP = re.compile(
    r"(?im)^(?P<indent>[ \t]*)(?:-[ \t]+)?\w{0,30}passwords[ \t]*:[ \t]*\n(?P<body>(?:(?P=indent)[ \t]+(?:- )?[^\n:]{1,60}(?::[ \t][^\n]{1,100})?\n?){1,100})"
)
_YAML_ENTRY = re.compile(
    r"(?m)^[ \t]*(?:-[ \t]+|[\w.@\"'-]{1,60}[ \t]*:[ \t]+)[\"']?([^\s\"'#{}\[\]&*!|>%@`$<][^\s\"'#]{3,100})[\"']?[ \t]*(?:#.*)?$"
)
_ENTRY = re.compile(
    r"(?P<before>=>|[:,\[({=])\s*[bru]?(?P<quote>[\"'`])(?P<value>[^\"'`\s$<{}%]{4,200})(?P=quote)(?=(?P<after>\s*(?:=>|:|\]))?)"
)
_BRACKET = re.compile(r"[{}\[\]()]")
_COMMON = re.compile(
    r"common|weak|bad|leaked|forbidden|black|invalid|wrong|stop|special|valid|reserved|expected|test_?case|sample",
    re.IGNORECASE,
)
_KUBERNETES = re.compile(r"(?m)^kind:[ \t]*[\"']?Secret[\"']?[ \t]*$")
_KUBERNETES_DATA = re.compile(r"(?m)^(?:data|stringData):[ \t]*\n((?:[ \t]+[^\n]*\n?|[ \t]*\n)+)")
_KUBERNETES_ENTRY = re.compile(r"(?m)^[ \t]+[\w.-]+:[ \t]+[\"']?([^\s\"'{}$<|>&*#][^\s\"'{}$<]{3,4000})[\"']?[ \t]*$")
_PGPASS = re.compile(
    r"(?m)^(?:[A-Za-z*][\w.*-]{0,100}|\d{1,3}(?:\.\d{1,3}){3}):(?:\d{2,5}|\*):[\w.*-]{1,64}:[A-Za-z*][\w.*@-]{0,63}:((?=[^\n]*[A-Za-z])(?:[^\s:*\\]|\\.)(?:[^\s:\\]|\\.){3,200})\r?$"
)
_HTDIGEST = re.compile(r"(?m)^[\w.@-]{1,60}:[^:\n]{1,80}:([0-9a-f]{32})\r?$")
_TOLD_AFTER_LOGIN = re.compile(
    r"[^\n:]{0,24}:[ \t]*[`\"'*]*[\w.@-]{2,60}[`\"'*]*[ \t]*(?:[/|,]|:[ \t])[ \t]*[`\"'*]*([^\s`\"'*<>{}()/|,]{6,60})"
)
_TOLD_AFTER_USER = re.compile(
    r"(?:name)?[ \t:=]+[`\"'*]*[\w.@-]{2,60}[`\"'*]*(?:[ \t]*[,;/|][ \t]*|[ \t]+)(?:(?:and|und|with|mit)[ \t]+)?(?:the[ \t]+)?(?:pass(?:word|wd|wort)?|pw|pwd|kennwort)\b[ \t:=]+(?:is[ \t]+)?[`\"'*]*([^\s`\"'*<>{}()]{6,60}?)[`\"'*]*(?=[.,;]?(?:\s|\Z))",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z-]+", re.IGNORECASE)
_COMMENT_START = re.compile(r"//|/\*|^[ \t]*\*|#|--[ \t]|<!--|^[ \t]*;|%")
_COLUMN_WORDS = ("pass", "pwd", "kennwort", "secret", "token", "key")
_MAP_WORDS = ("passwords", "pwds", "secrets", "tokens", "apikeys", "api_keys", "credentials", "logins")
_LOGIN_WORDS = ("login", "log-in", "credential", "creds", "zugang", "account", "anmeldung")
_USER_WORDS = ("user", "login", "account", "benutzer", "admin")
_WORDS = WordSet(
    [*dict.fromkeys((*_COLUMN_WORDS, *_MAP_WORDS, *_LOGIN_WORDS, *_USER_WORDS, "into", "set password", "kind:"))]
)


def tabled_secrets(index: TextIndex, configuration: bool) -> list[Finding]:
    """Find passwords whose names stand in a heading, in a list of columns, or before a whole table.

    Args:
        index: the text to search.
        configuration: whether the language of the text is a configuration language or prose.
    """
    text = index.text
    possible = {_WORDS.words[number] for number in _WORDS.candidates(index)}

    def places(*words: str) -> list[int]:
        return sorted(place for word in words if word in possible for place in find_all(index.lowered, word))

    findings: list[Finding] = []
    table_end = 0
    for place in places(*_COLUMN_WORDS[: 6 if configuration else 3]):
        if place >= table_end:
            cells, table_end = _columns(text, *_line_span(text, place))
            findings += cells
    for place in places("into"):
        findings += _inserted(text, place)
    for place in places("set password"):
        if (match := _SET_PASSWORD.match(text, place)) and looks_secret(match.group(1), True):
            findings.append(Finding(*match.span(1), "PASSWORD"))
    for word in _MAP_WORDS:
        for place in places(word):
            findings += _map_values(text, place, word)
    if "passwords" in possible and configuration:
        for match in _YAML_MAP.finditer(text):
            findings += _spans(_YAML_ENTRY, text, "PASSWORD", *match.span("body"))
    if "kind:" in possible and _KUBERNETES.search(text):
        findings += _kubernetes(text)
    if configuration and text.count(":") >= 2:
        findings += [*_spans(_PGPASS, text, "PASSWORD"), *_spans(_HTDIGEST, text, "PASSWORD_HASH")]
    for place in places(*_LOGIN_WORDS):
        findings += _told(text, place, configuration, _TOLD_AFTER_LOGIN)
    if possible & {"pass", "pwd", "kennwort"} or "pw" in index.lowered:
        for place in places(*_USER_WORDS):
            findings += _told(text, place, configuration, _TOLD_AFTER_USER)
    return findings


def _line_span(text: str, place: int) -> tuple[int, int]:
    """Return the start and end of the line around an offset."""
    end = text.find("\n", place)
    return text.rfind("\n", 0, place) + 1, end if end >= 0 else len(text)


def _spans(pattern: re.Pattern[str], text: str, kind: str, start: int = 0, end: int | None = None) -> Iterator[Finding]:
    """Yield group 1 of each match that can be a password."""
    for match in pattern.finditer(text, start, len(text) if end is None else end):
        if looks_secret(match.group(1), True):
            yield Finding(*match.span(1), kind)


def _columns(text: str, start: int, end: int) -> tuple[list[Finding], int]:
    """Find the secrets in the columns below a heading such as `user,password`.

    Args:
        text: the text to search.
        start: start of the line that may be a heading.
        end: end of the line.

    Returns:
        The findings, and the end of the table, or of the line if the line is not a heading.
    """
    heading = text[start : min(end, start + 401)]
    if len(heading) > 400 or not _HEADING.match(heading):
        return [], end
    separator = next(sign for sign in ("|", ";", "\t", ",") if sign in heading)
    names = [cell.strip() for cell in heading.split(separator)]
    columns = {
        number: bool(_PASSWORD_COLUMN.match(name))
        for number, name in enumerate(names)
        if _PASSWORD_COLUMN.match(name) or _SECRET_COLUMN.match(name)
    }
    findings: list[Finding] = []
    while columns and end < len(text):
        start, end = _line_span(text, end + 1)
        line = text[start:end].rstrip("\r")
        cells = line.split(separator)
        if len(cells) != len(names) or (_CODE.search(line) and separator == ","):
            return findings, start
        for number, cell in enumerate(cells):
            value = cell.strip(" \t\"'`*")
            if number in columns and not _RULE.match(line) and _is_cell_secret(value, columns[number]):
                first = start + cell.index(value)
                findings.append(Finding(first, first + len(value), "PASSWORD" if columns[number] else "SECRET"))
            start += len(cell) + 1
    return findings, end


def _is_cell_secret(value: str, strong: bool) -> bool:
    return (" " not in value and "REDACTED" not in value and looks_secret(value, False)) or (strong and is_mixed(value))


def _inserted(text: str, place: int) -> Iterator[Finding]:
    """Yield the literals of an SQL statement `INSERT INTO` that belong to a column of passwords."""
    statement = _INSERT.match(text, place)
    if statement is None:
        return
    names = [name.strip(' \t\r\n`"[]') for name in statement.group(1).split(",")]
    strong = {number: bool(_PASSWORD_COLUMN.match(name)) for number, name in enumerate(names)}
    secret = {number for number, name in enumerate(names) if strong[number] or _SECRET_COLUMN.match(name)}
    position = statement.end()
    while secret and (row := _TUPLE.match(text, position)):
        position = row.end()
        place, number = row.start(1), 0
        while place < row.end(1) and (cell := _CELL.match(text, place, row.end(1))) and cell.end() > place:
            group = 2 if cell.group(2) is not None else 3
            if number in secret and cell.group(group) and looks_secret(cell.group(group), strong[number]):
                yield Finding(*cell.span(group), "PASSWORD" if strong[number] else "SECRET")
            place, number = cell.end(), number + 1


def _map_values(text: str, place: int, word: str) -> Iterator[Finding]:
    """Yield the literals in a mapping or list whose name ends with a plural such as `passwords`.

    Args:
        text: the text to search.
        place: offset of the plural.
        word: the plural.
    """
    start = _MAP.match(text, place + len(word) - 1)
    if start is None or _COMMON.search(text, max(0, place - 20), place):
        return
    strong = word in {"passwords", "pwds"}
    end = _closing_bracket(text, start.start("open"))
    for entry in _ENTRY.finditer(text, start.start("open"), end):
        value, after = entry.group("value"), (entry.group("after") or "").strip()
        if after in {"=>", ":"} or text[entry.start() - 1 : entry.start()] in {"]", ")"}:
            continue
        named = (entry.group("before") in {":", "=>"} and start.group("open") == "{") or entry.group("before") == "=>"
        if (named and looks_secret(value, strong)) if strong else _is_blob(value):
            yield Finding(*entry.span("value"), "PASSWORD" if strong else "SECRET")
        elif strong and is_mixed(value):
            yield Finding(*entry.span("value"), "PASSWORD")


def _closing_bracket(text: str, opening: int) -> int:
    """Return the offset after the bracket that closes the bracket at an offset; at most 4,000 characters are read."""
    depth = 0
    for bracket in _BRACKET.finditer(text, opening, opening + 4000):
        depth += 1 if bracket.group() in "{[(" else -1
        if depth == 0:
            return bracket.end()
    return opening


def _is_blob(value: str) -> bool:
    """Whether a value is a long mixture of letters and digits, as a token is."""
    return bool(
        re.fullmatch(r"(?=(?:[A-Za-z]*\d){2})(?=[\d]*[A-Za-z])[A-Za-z0-9+/=_-]{12,200}", value)
    ) and looks_secret(value, False)


def _kubernetes(text: str) -> Iterator[Finding]:
    """Yield the values of Kubernetes secrets in a file of YAML documents."""
    done = -1
    for kind in _KUBERNETES.finditer(text):
        if kind.start() < done:
            continue
        first = text.rfind("\n---", 0, kind.start())
        last = text.find("\n---", kind.end())
        done = last = last if last >= 0 else len(text)
        for data in _KUBERNETES_DATA.finditer(text, max(0, first), last):
            for entry in _KUBERNETES_ENTRY.finditer(text, *data.span(1)):
                if looks_secret(entry.group(1), True):
                    yield Finding(*entry.span(1), "SECRET")


def _told(text: str, place: int, configuration: bool, pattern: re.Pattern[str]) -> Iterator[Finding]:
    """Yield a password after a user's name in a sentence: in prose, and in comments of code."""
    if text[place - 1 : place].isalnum():
        return
    match = pattern.match(text, _WORD.match(text, place).end())  # type: ignore[union-attr]
    if match and _is_told_password(match.group(1)):
        line = text[text.rfind("\n", 0, place) + 1 : place]
        if configuration or _COMMENT_START.search(line):
            yield Finding(*match.span(1), "PASSWORD")


def _is_told_password(value: str) -> bool:
    """Whether a word in a sentence is a password: digits and letters, and a capital or a sign between them."""
    plain = re.fullmatch(r"[A-Za-z]+[-/]?[\d.]+|[a-z]+\d+|[\w.-]+\.[a-z]{2,4}|\d+\w{0,3}", value)
    return plain is None and is_mixed(value)
