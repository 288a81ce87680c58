"""Decode files to text: UTF-8, UTF-16, UTF-32, a declared encoding, or Windows-1252; and plain `\\n` as line end.

Repositories contain files of several decades and systems. A file is refused only if it is binary, or if its encoding is
neither declared nor one of the encodings that can be told apart with certainty.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import tokenize

_CODING = re.compile(rb"coding[:=][ \t]*([-\w.]+)")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this mark
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_OF_FILES = ("punycode", "idna", "undefined", "unicode-escape", "raw-unicode-escape")
"""Codecs that are no encodings of files: they take minutes per megabyte, or evaluate escapes."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_IN_PATHS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")
_LONGEST_RUN = 2
"""Letters with accents seldom stand next to each other in languages written in Windows-1252. Longer runs of bytes above
127 are typical of Cyrillic, Greek and East Asian encodings."""


def decode(content: bytes) -> tuple[str, str]:
    """Decode a file.

    The encoding is that of the byte order mark, or UTF-16 if every second byte is zero, or UTF-8, or the encoding that a
    comment in the first two lines declares. A file that is UTF-8 except for a few bytes is decoded as UTF-8, with U+FFFD
    for these bytes. Any other file is decoded as Windows-1252 if its letters are mostly ASCII.

    Returns:
        The text (with `\\n` as line ends) and "", or "" and the reason why decoding failed (`binary`, `encoding`).
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _strictly(content, encoding) or ("", "encoding")
    if b"\0" in content:
        return _utf16_without_mark(content) or ("", "binary")
    if decoded := _strictly(content, "utf-8"):
        return decoded
    declared = _CODING.search(b"\n".join(content[:400].split(b"\n")[:2]))
    if declared and (decoded := _declared(content, declared.group(1).decode("ascii"))):
        return decoded
    return _guessed(content) or ("", "encoding")


def unix_lines(text: str) -> str:
    """Return a text with `\\n` in place of the line ends `\\r\\n` and `\\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def decode_python(content: bytes) -> str | None:
    """Decode a Python file as Python does, with `\\n` as line ends. Return None if Python refuses the encoding."""
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(lines).readline)
        text = lines.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError, ValueError):
        return None
    return text if "\0" not in text else None


def python_as_utf8(content: bytes) -> bytes:
    """Return a Python file in UTF-8 with `\\n` as line ends and without a byte order mark. The program stays the same.

    A declaration of another encoding is changed to UTF-8. A file that Python refuses is returned unchanged.
    """
    text = decode_python(content)
    if text is None:
        return content
    lines = text.encode("utf-8").split(b"\n", 2)
    for number, line in enumerate(lines[:2]):
        declared = _CODING.search(line) if line.lstrip(b" \t\f").startswith(b"#") else None
        if declared:
            lines[number] = line[: declared.start(1)] + b"utf-8" + line[declared.end(1) :]
            break
    return b"\n".join(lines)


def is_plain_path(path: str) -> bool:
    """Whether a path can stand in a row: UTF-8 without control characters such as line breaks."""
    return path.isprintable() and not any("\ud800" <= character <= "\udfff" for character in path)


def printable_path(path: str) -> str:
    """Return a path as text in one line. Bytes that are not UTF-8 and control characters are escaped as `\\xff`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else _IN_PATHS.sub(lambda match: ascii(match[0])[1:-1], text)


def _strictly(content: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        return unix_lines(content.decode(encoding)), ""
    except UnicodeDecodeError:
        return None


def _utf16_without_mark(content: bytes) -> tuple[str, str] | None:
    """Decode UTF-16 in which most characters are ASCII: nearly every second byte is zero, and hardly any other."""
    half = len(content) // 2
    if len(content) % 2:
        return None
    for encoding, zeros, others in (
        ("utf-16-le", content[1::2], content[::2]),
        ("utf-16-be", content[::2], content[1::2]),
    ):
        if zeros.count(0) >= 0.7 * half and others.count(0) <= 0.02 * half:
            decoded = _strictly(content, encoding)
            return decoded if decoded and not _CONTROL.search(decoded[0]) else None
    return None


def _declared(content: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        if codecs.lookup(encoding).name in _NOT_OF_FILES:
            return None
        text = content.decode(encoding)
    except (LookupError, UnicodeDecodeError, ValueError):
        return None
    return (unix_lines(text), "") if isinstance(text, str) and text else None


def _guessed(content: bytes) -> tuple[str, str] | None:
    """Decode a file that is not valid UTF-8 and has no valid declaration."""
    replaced = content.decode("utf-8", "replace")
    if _CONTROL.search(replaced):
        return None
    bad = replaced.count("\ufffd") - content.count("\ufffd".encode())
    good = sum(character > "\x7f" for character in replaced) - replaced.count("\ufffd")
    if good > bad:
        return unix_lines(replaced), ""
    runs = _HIGH_RUNS.findall(content)
    high, short = sum(map(len, runs)), sum(len(run) for run in runs if len(run) <= _LONGEST_RUN)
    if short < 0.8 * high or high > 0.3 * len(content):
        return None
    return _strictly(content, "cp1252")
