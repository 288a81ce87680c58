"""Filter files by rules on their path and text. Reports count the dropped files by the name of the rule.

The limits on the length of lines, the alphanumeric share and the comment share are those of bigcode. All other limits
are from StarCoder2's report (arXiv 2402.19173, section 4): the number of lines, the alphabetic share, markers of
generated files in the first 5 lines, encoded data, the number of lines of data files, and the visible share of HTML.
OpenCoder's rules for Python (arXiv 2411.04905) are off by default, because `parse_python` parses every file, which
takes longer than all other rules together.

bigcode also drops files with a comment share below 0.01. This rule is off by default (`min_comment_share`): it is meant
for code from the web. A model should learn a company's own code even if the code has no comments.
"""

from __future__ import annotations

import ast
import re
import string
import warnings
from pathlib import PurePosixPath

from alignment.settings import Count, Settings, Share
from data_builders.parsing.comments import comment_share, remark_share
from data_builders.parsing.file_head import head_comments, without_license_header


class FilterSettings(Settings):
    """Limits of the file filters. Lengths are in characters, and shares are between 0 and 1."""

    max_bytes: Count = 1_048_576
    """Maximum size of a file in bytes. Larger files are not read."""
    max_notebook_bytes: Count = 33_554_432
    """Maximum size of a notebook in bytes. It is larger than `max_bytes`, because notebooks hold pictures."""
    min_characters: Count = 16
    """Minimum length of a file. Leading and trailing white space is not counted."""
    max_lines: Count = 100_000
    """Maximum number of lines of a file."""
    max_line_length: Count = 1000
    """Maximum length of the longest line. Not applied to prose and markup."""
    max_mean_line_length: Count = 100
    """Maximum mean length of the lines. Not applied to prose and markup."""
    min_alphanumeric_share: Share = 0.25
    """Minimum share of letters and digits among the bytes of a file."""
    min_alphabetic_share: Share = 0.25
    """Minimum share of letters among the bytes of a file."""
    min_comment_share: Share = 0.0
    """Minimum share of characters in whole-line comments."""
    max_comment_share: Share = 0.8
    """Maximum share of characters in comments, without the license header and documentation comments such as Javadoc."""
    max_data_lines: Count = 512
    """Maximum number of lines of a file in JSON, YAML or SQL."""
    min_visible_html_share: Share = 0.2
    """Minimum share of an HTML file that is text outside of tags, scripts and styles."""
    max_encoded_run: Count = 1024
    """Maximum length of one run of base64 or hexadecimal data."""
    max_encoded_share: Share = 0.5
    """Maximum share of a file that consists of runs of base64 or hexadecimal data."""
    keep_vendored: bool = False
    """Whether to keep third-party code that was copied into the repository. A folder `vendor` or `external` counts as
    third-party code in the top two levels, below folders of web assets, and if it holds a folder named as a domain."""
    keep_generated: bool = False
    """Whether to keep generated files and build output."""
    parse_python: bool = False
    """Whether to drop Python files that do not parse, or that are mostly `pass`, imports or prints (OpenCoder's
    limits)."""


_VENDORED = re.compile(
    r"(?:^|/)(?:node_modules|bower_components|jspm_packages|third[_-]?party|thirdparty|Godeps|_vendor(?:ed)?|"
    r"Pods|Carthage|site-packages|dist-packages|\.venv|venv|virtualenv|\.tox|\.nox|\.eggs|[^/]+\.egg-info|__pycache__|"
    r"\.git|\.svn|\.hg|\.idea|\.gradle|\.cargo|\.yarn|\.terraform)/|^(?:deps|dependencies)/"
    # Deep inside of a source tree, these names can be words of the project's own domain.
    r"|^(?:[^/]+/)?(?:vendors?|externals?)/|(?:^|/)(?:static|public|assets|www|web|js|css|themes?|media)/(?:.*/)?vendors?/"
    r"|(?:^|/)vendors?/[^/]+\.[a-z]+/"
    # Files that autotools copies into a repository.
    r"|(?:^|/)(?:configure|config\.(?:guess|sub)|aclocal\.m4|libtool\.m4|lt~?\w*\.m4|ltmain\.sh|install-sh|depcomp|missing|compile)$"
    r"|(?:^|/)(?:(?:jquery|bootstrap|modernizr)(?:[-.]\d[^/]*|[-.](?:ui|bundle|slim|custom|theme|grid|reboot)[^/]*)\.(?:js|css)|bootstrap\.css|jquery\.js|gradlew(?:\.bat)?|mvnw(?:\.cmd)?)$"
)
_LIBRARY_FILE = re.compile(
    r"(?:^|/)(bootstrap|jquery|modernizr|underscore|lodash|backbone|angular|vue|react|d3|moment|handlebars|knockout|ember|zepto|prototype)\b[^/]*\.(?:js|css)$"
)
"""Files that are a well-known library if the comment at their head says so."""
_BUILD_OUTPUT = re.compile(
    r"^(?!(?:.*/)?(?:src|sources?|internal|pkg|cmd)/).*(?:^|/)(?:dist|out|_build)/|"
    r"(?:^|/)(?:target/(?:debug|release|classes)|\.next|\.nuxt)/"
)
_LOCKFILE = re.compile(
    r"(?:^|/)(?:package-lock\.json|npm-shrinkwrap\.json|shrinkwrap\.yaml|yarn\.lock|pnpm-lock\.yaml|bun\.lock|deno\.lock|"
    r"composer\.lock|Cargo\.lock|poetry\.lock|uv\.lock|pdm\.lock|pixi\.lock|Pipfile\.lock|conda-lock\.ya?ml|Gemfile\.lock|"
    r"go\.(?:work\.)?sum|packages\.lock\.json|project\.(?:assets|lock)\.json|paket\.lock|flake\.lock|mix\.lock|rebar\.lock|"
    r"Podfile\.lock|Package\.resolved|Cartfile\.resolved|pubspec\.lock|gradle\.lockfile|renv\.lock|stack\.yaml\.lock|"
    r"cabal\.project\.freeze|buf\.lock|MODULE\.bazel\.lock|\.terraform\.lock\.hcl)$"
)
_MINIFIED = re.compile(r"[.-]min\.(?:js|css|mjs|html)$|\.(?:bundle|chunk|pack)\.js$|\.map$")
_GENERATED_NAME = re.compile(
    r"(?:_pb2(?:_grpc)?\.pyi?|_pb\.(?:js|rb|d\.ts|ts)|\.pb\.(?:go|cc|h|swift|dart)|\.pb\.gw\.go|\.pbobjc\.[hm]|_generated\.\w+|"
    r"\.g\.(?:dart|cs)|\.designer\.(?:cs|vb)|\.freezed\.dart|\.generated\.\w+|_string\.go|bindata\.go|zz_generated\.[^/]*\.go|"
    r"\.snap|/parsetab\.py|/lextab\.py|/lex\.yy\.cc?|\.tab\.[ch](?:pp)?|/moc_\w+\.cpp|/qrc_\w+\.cpp|/ui_\w+\.h|_wrap\.cxx)$",
    re.IGNORECASE,
)
_GENERATED_MARK = re.compile(
    r"""^\W*(?:@|code\ |file\ |source\ |this\ (?:file|code)\ )?(?:auto[-\ ]?|automatically\ |machine[-\ ])?generated\b
        \s*(?:by|from|with|using|via|on|at|file|code|source|automatically|:|\.|!|,|-|/|>|signedsource|do\ not|$)
    |^\W*(?:auto[-\ ]?|automatically\ |machine[-\ ])generated\b(?!\s+\w+s\b)
    |\b(?:this|the)\ (?:following\ )?(?:\w+\ ){1,3}(?:is|was|were|are|has\ been|have\ been)\ (?:an?\ )?(?:auto[-\ ]?|automatically\ |machine[-\ ])?generated\b
    |\b(?:is|was|been)\ (?:auto[-\ ]?|automatically\ |machine[-\ ])generated\ (?:by|from|with|using)
    |(?:generated|machine)[^"'`]{0,80}\bdo\ not\ (?:edit|modify)|\bdo\ not\ (?:edit|modify)[^"'`]{0,80}generated
    |^\W*do\ not\ (?:edit|modify)(?:\ (?:this|the)\ (?:file|class|code))?(?:\ manually|\ by\ hand|\ directly)?\W*$""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""A statement that the file is generated. It is searched in comments, each line without the comment's marker."""
_BINARY_SUFFIXES = frozenset(
    ["png", "jpg", "jpeg", "gif", "bmp", "ico", "webp", "tif", "tiff", "psd", "pdf", "zip", "gz", "tgz", "bz2",
     "xz", "zst", "7z", "rar", "jar", "war", "ear", "class", "pyc", "pyo", "so", "dll", "dylib", "a", "o", "lib",
     "exe", "bin", "dat", "db", "sqlite", "sqlite3", "parquet", "npy", "npz", "pkl", "pickle", "pt", "pth",
     "safetensors", "onnx", "h5", "hdf5", "mp3", "mp4", "avi", "mov", "wav", "ogg", "flac", "woff", "woff2", "ttf",
     "otf", "eot", "wasm", "whl", "egg", "iso", "img", "dmg", "deb", "rpm", "apk", "docx", "xlsx", "pptx", "doc",
     "xls", "ppt", "odt", "keystore", "jks", "p12"]
)  # fmt: skip
_DATA_LANGUAGES = frozenset({"json", "yaml", "sql"})
_CONFIG_JSON = re.compile(r"(?:^|/)(?:package|tsconfig[^/]*|composer|manifest|bower|\.eslintrc|\.babelrc)\.?(?:json)?$")
_PACKED_LANGUAGES = frozenset({"javascript", "css", "typescript"})
_TEXT_LANGUAGES = frozenset({"markdown", "restructuredtext", "tex", "html", "rmarkdown", "jupyter-notebook"})

_ALPHABETIC = bytes(range(65, 91)) + bytes(range(97, 123)) + bytes(range(128, 256))
_DIGITS = b"0123456789"
_ENCODED = re.compile(rb"[A-Za-z0-9+/=]{64,}(?:\r?\n[A-Za-z0-9+/=]{32,})*")
_RUNS = bytes(97 if chr(code) in string.ascii_letters + string.digits + "+/=" else 32 for code in range(256))
_LONG_RUN = b"a" * 64
_HEX_STARTS = (b"0x", b"\\x", b"\\u")
_HEX_LIST = re.compile(rb"(?:(?:0x|\\x)[0-9a-fA-F]{2}[,\s]{0,4}){16,}|(?:\\u[0-9a-fA-F]{4}){16,}")
_HEX_HINT = re.compile(rb"(?:0x|\\x)[0-9a-fA-F]{2}[,\s]{0,4}(?:0x|\\x)[0-9a-fA-F]{2}|(?:\\u[0-9a-fA-F]{4}){2}")
_HTML_CODE = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_HTML_TAG = re.compile(r"<[^>]*>")


def drop_by_path(path: str, settings: FilterSettings) -> str:
    """Return the name of the rule that drops a file by its path, or "" if the file has to be read."""
    extension = PurePosixPath(path).suffix[1:].lower()
    if extension in _BINARY_SUFFIXES:
        return "binary"
    if _LOCKFILE.search(path):
        return "lockfile"
    if _MINIFIED.search(path):
        return "minified"
    if not settings.keep_vendored and _VENDORED.search(path):
        return "vendored"
    if not settings.keep_generated and (_GENERATED_NAME.search(path) or _BUILD_OUTPUT.search(path)):
        return "generated"
    return ""


def drop_by_text(path: str, text: str, language: str, settings: FilterSettings) -> str:
    """Return the name of the rule that drops a file by its text, or "".

    Args:
        path: path of the file.
        text: text of the file.
        language: language of the file. Some rules apply only to some languages.
        settings: the limits.
    """
    if len(text.strip()) < settings.min_characters:
        return "too_short"
    lines = text.split("\n")
    if len(lines) > settings.max_lines:
        return "too_many_lines"
    comments = head_comments(text)
    if not settings.keep_generated and _is_generated(lines, comments):
        return "generated"
    if not settings.keep_vendored and _is_library(path, comments):
        return "vendored"
    if language in _DATA_LANGUAGES and len(lines) > settings.max_data_lines and not _CONFIG_JSON.search(path):
        return "data"
    if language not in _TEXT_LANGUAGES:
        if max(map(len, lines)) > settings.max_line_length:
            return "long_line"
        if len(text) / len(lines) > settings.max_mean_line_length:
            return "long_lines"
        if language in _PACKED_LANGUAGES and _is_packed(text):
            return "minified"
    elif language == "html" and (reason := _drop_html(text, settings)):
        return reason
    raw = text.encode("utf-8", "surrogatepass")
    alphabetic = len(raw) - len(raw.translate(None, _ALPHABETIC))
    alphanumeric = alphabetic + len(raw) - len(raw.translate(None, _DIGITS))
    if alphabetic < settings.min_alphabetic_share * len(raw):
        return "few_letters"
    if alphanumeric < settings.min_alphanumeric_share * len(raw):
        return "few_alphanumerics"
    if _encoded_blob(raw, settings):
        return "encoded_blob"
    if reason := _drop_by_comments(text, lines, language, settings):
        return reason
    if settings.parse_python and language == "python":
        return _drop_python(text)
    return ""


def _encoded_blob(raw: bytes, settings: FilterSettings) -> bool:
    # Most files have no long run. Two byte-wise passes detect this faster than the regular expression.
    patterns = [_ENCODED] if _LONG_RUN in raw.translate(_RUNS) else []
    if any(hint in raw for hint in _HEX_STARTS) and _HEX_HINT.search(raw):
        patterns.append(_HEX_LIST)
    total = 0
    for pattern in patterns:
        for match in pattern.finditer(raw):
            length = match.end() - match.start()
            total += length
            if length > settings.max_encoded_run:
                return True
    return total > settings.max_encoded_share * len(raw)


def _drop_html(text: str, settings: FilterSettings) -> str:
    visible = _HTML_TAG.sub("", _HTML_CODE.sub("", text))
    visible_length = len("".join(visible.split()))
    return "" if visible_length >= settings.min_visible_html_share * len(text) else "little_visible_text"


def _is_generated(lines: list[str], comments: list[str]) -> bool:
    """Whether a comment at the head of a file, or within the first five lines, says that the file is generated."""
    near = [line for line in lines[:5] if line.lstrip().startswith(("#", "//", "/*", "*", "--", ";", "%", "<!--"))]
    return any(
        _GENERATED_MARK.search(comment)
        for comment in (*comments, *near)
        if "enerated" in comment or "o not" in comment.lower() or "GENERATED" in comment
    )


def _is_library(path: str, comments: list[str]) -> bool:
    """Whether a file has the name of a well-known library, and its first comment states the library and a version."""
    match = _LIBRARY_FILE.search(path.lower())
    banner = comments[0][:400] if comments else ""
    return match is not None and bool(
        re.search(rf"{match[1]}\S*(?:\s+[\w,]+){{0,4}}\s+v?\d+\.\d", banner, re.IGNORECASE)
    )


def _is_packed(text: str) -> bool:
    """Whether code has nearly no white space and several statements per line: minified code, perhaps with breaks."""
    code = without_license_header(text)
    lines = code.count("\n", 0, len(code.rstrip())) + 1
    if len(code) < 600 or sum(map(code.count, ";{}")) < 4 * lines:
        return False
    return len(code) - len("".join(code.split())) < 0.09 * len(code)


def _drop_by_comments(text: str, lines: list[str], language: str, settings: FilterSettings) -> str:
    share = comment_share(lines, language)
    if share is None:
        return ""
    if share > settings.max_comment_share and remark_share(text, language) > settings.max_comment_share:
        return "mostly_comments"
    return "few_comments" if share < settings.min_comment_share else ""


def _drop_python(text: str) -> str:
    """Apply OpenCoder's rules: the file must parse, with at most 5% `pass`, 30% imports and 40% prints in its lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "does_not_parse"
    lines = [stripped for line in text.split("\n") if (stripped := line.strip()) and not stripped.startswith("#")]
    limits = (
        ("pass", 0.05, "mostly_pass"),
        (("import ", "from "), 0.30, "mostly_imports"),
        ("print(", 0.40, "mostly_prints"),
    )
    for start, limit, reason in limits:
        if sum(line.startswith(start) for line in lines) > limit * len(lines):
            return reason
    return ""
