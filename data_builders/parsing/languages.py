"""Detect the language of a file from its name, shebang and content, among the 92 languages of Qwen2.5-Coder.

The list of languages is from the README of the model's official repository. For other languages `detect` returns "".
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

# Maps a language to its extensions, without the dot. For extensions in `_AMBIGUOUS`, the content decides.
EXTENSIONS: dict[str, str] = {
    "ada": "adb ads ada",
    "agda": "agda",
    "alloy": "als",
    "antlr": "g4",
    "applescript": "applescript scpt",
    "assembly": "asm s nasm",
    "augeas": "aug",
    "awk": "awk gawk mawk",
    "batchfile": "bat cmd",
    "bluespec": "bsv",
    "c": "c h",
    "c#": "cs csx cake",
    "c++": "cpp cc cxx c++ hpp hh hxx h++ ipp tpp inl",
    "clojure": "clj cljs cljc edn",
    "cmake": "cmake",
    "coffeescript": "coffee cson",
    "common-lisp": "lisp lsp asd",
    "css": "css scss less",
    "cuda": "cu cuh",
    "dart": "dart",
    "dockerfile": "dockerfile",
    "elixir": "ex exs",
    "elm": "elm",
    "emacs-lisp": "el",
    "erlang": "erl hrl",
    "f#": "fs fsi fsx",
    "fortran": "f f77 f90 f95 f03 f08 for",
    "glsl": "glsl vert frag geom comp tesc tese",
    "go": "go",
    "groovy": "groovy gradle gvy",
    "haskell": "hs",
    "html": "html htm xhtml",
    "idris": "idr",
    "isabelle": "thy",
    "java": "java",
    "java-server-pages": "jsp jspx tag",
    "javascript": "js mjs cjs jsx",
    "json": "json jsonc json5",
    "julia": "jl",
    "jupyter-notebook": "ipynb",
    "kotlin": "kt kts",
    "lean": "lean",
    "literate-agda": "lagda",
    "literate-coffeescript": "litcoffee",
    "literate-haskell": "lhs",
    "lua": "lua",
    "makefile": "mk mak",
    "maple": "mpl",
    "markdown": "md markdown mdx",
    "mathematica": "wl wls nb mathematica",
    "matlab": "m",
    "objectc++": "mm",
    "ocaml": "ml mli",
    "pascal": "pas dpr lpr",
    "perl": "pl pm",
    "php": "php phtml php5",
    "powershell": "ps1 psm1 psd1",
    "prolog": "pro prolog",
    "protocol-buffer": "proto",
    "python": "py pyi pyw",
    "r": "r",
    "racket": "rkt",
    "restructuredtext": "rst rest",
    "rmarkdown": "rmd",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "sas": "sas",
    "scala": "scala sc sbt",
    "scheme": "scm ss",
    "shell": "sh bash zsh ksh",
    "smalltalk": "st",
    "solidity": "sol",
    "sparql": "sparql rq",
    "sql": "sql",
    "stan": "stan",
    "standard-ml": "sml sig",
    "stata": "do ado",
    "swift": "swift",
    "systemverilog": "sv svh",
    "tcl": "tcl",
    "tcsh": "tcsh csh",
    "tex": "tex sty cls bib",
    "thrift": "thrift",
    "typescript": "ts tsx mts cts",
    "verilog": "v vh",
    "vhdl": "vhd vhdl",
    "visual-basic": "vb bas frm",
    "vue": "vue",
    "xslt": "xsl xslt",
    "yacc": "y yy",
    "yaml": "yml yaml",
    "zig": "zig",
}
LANGUAGES = frozenset(EXTENSIONS)

_BY_EXTENSION = {extension: language for language, names in EXTENSIONS.items() for extension in names.split()}

_BY_NAME = {
    "makefile": "makefile", "gnumakefile": "makefile", "dockerfile": "dockerfile", "containerfile": "dockerfile",
    "cmakelists.txt": "cmake", "rakefile": "ruby", "gemfile": "ruby", "podfile": "ruby", "vagrantfile": "ruby",
    "brewfile": "ruby", "jenkinsfile": "groovy", "sconstruct": "python", "sconscript": "python", "wscript": "python",
    "snakefile": "python", "build.bazel": "python", "pkgbuild": "shell", "bashrc": "shell", ".bashrc": "shell",
    ".zshrc": "shell", ".profile": "shell", ".bash_profile": "shell", ".emacs": "emacs-lisp", ".babelrc": "json",
    ".eslintrc": "json", "composer.lock": "json", ".clang-format": "yaml", "apkbuild": "shell", "meson.build": "python",
}  # fmt: skip

_BY_INTERPRETER = {
    "python": "python", "pypy": "python", "sh": "shell", "bash": "shell", "dash": "shell", "zsh": "shell",
    "ksh": "shell", "csh": "tcsh", "tcsh": "tcsh", "node": "javascript", "nodejs": "javascript", "deno": "typescript",
    "ts-node": "typescript", "ruby": "ruby", "perl": "perl", "php": "php", "awk": "awk", "gawk": "awk", "mawk": "awk",
    "tclsh": "tcl", "wish": "tcl", "lua": "lua", "luajit": "lua", "rscript": "r", "escript": "erlang",
    "elixir": "elixir",
    "runghc": "haskell", "runhaskell": "haskell", "stack": "haskell", "groovy": "groovy", "pwsh": "powershell",
    "osascript": "applescript", "julia": "julia", "swift": "swift", "scala": "scala", "racket": "racket",
    "sbcl": "common-lisp", "swipl": "prolog", "make": "makefile", "ocaml": "ocaml", "guile": "scheme",
}  # fmt: skip

# Maps an extension to (pattern, language) pairs. The first pattern that matches the text decides on the language; `""`
# means none of the listed languages. If no pattern matches, the language in `EXTENSIONS` is used.
_AMBIGUOUS: dict[str, list[tuple[str, str]]] = {
    "h": [
        (r"^\s*(?:@interface|@protocol|@class|#import)\b", "objectc++"),
        (r"^\s*(?:class\s+\w+|namespace\s+\w+|template\s*<|using\s+\w+|(?:public|private|protected):)|\bstd::|\bnullptr\b",
         "c++"),
    ],
    "m": [
        (r"^\s*(?:@interface|@implementation|@protocol|@end|#import|@import)\b", "objectc++"),
        (r"\(\*.*\*\)|^\s*\w+\[[^\]]*_\]\s*:=|BeginPackage\[", "mathematica"),
        (r"^\s*:- module", ""),
    ],
    "v": [(r"^\s*(?:Require|Theorem|Lemma|Proof|Inductive|Fixpoint)\b", "")],
    "pl": [(r"^\s*:-|^[a-z]\w*\(.*\)\s*:-|^[a-z]\w*\([^;]*\)\.\s*$", "prolog"), (r"", "perl")],
    "fs": [(r"^\s*#version\b|\bgl_FragColor\b|^\s*precision\s+\w+p\s+float", "glsl"), (r"^: \w+ ", "")],
    "cls": [
        (r"^\s*\\(?:NeedsTeXFormat|ProvidesClass|documentclass|newcommand)", "tex"),
        (r"^\s*(?:Attribute VB_|VERSION 1\.0 CLASS)", "visual-basic"),
        (r"", ""),
    ],
    "ts": [(r"^<\?xml|<!DOCTYPE TS>", "")],
    "st": [(r"^\s*(?:\"|!|\w+ subclass: |\w+ class >>|Object subclass)", "smalltalk"), (r"", "")],
    "do": [
        (r"^\s*(?:\*|use |gen |clear|set more|regress|//|version \d|program define|forvalues|foreach)", "stata"),
        (r"", ""),
    ],
    "sc": [(r"\bSynthDef\b|\bUgen\b", "")],
    "tag": [(r"<%@", "java-server-pages"), (r"", "")],
    "y": [(r"^%%", "yacc"), (r"", "")],
    "yy": [(r"^%%", "yacc"), (r"", "")],
    "als": [(r"^\s*(?:sig|pred|fact|module|abstract sig|one sig|open|assert|run|check)\b", "alloy"), (r"", "")],
    "inl": [(r"", "c++")],
    "frm": [(r"^VERSION 5", "visual-basic"), (r"", "")],
    "rest": [(r"^(?:=|-|~){3,}\s*$|^\.\. ", "restructuredtext"), (r"", "")],
    "sig": [(r"^\s*signature\b", "standard-ml"), (r"", "")],
    "s": [(r"^\s*(?:\.\w+|\w+:|\s+(?:mov|push|pop|ldr|str|add|jmp|call|ret)\b)|[;#@]", "assembly"), (r"", "")],
    "pro": [(r"^\s*:-|^[a-z]\w*\(.*\)\s*(?::-|\.)", "prolog"), (r"", "")],
    "nb": [(r"Notebook\[|BeginPackage\[|\(\*", "mathematica"), (r"", "")],
    "cmd": [(r"^#!", "shell")],
}  # fmt: skip
_RULES = {
    extension: [(re.compile(pattern, re.MULTILINE), language) for pattern, language in rules]
    for extension, rules in _AMBIGUOUS.items()
}
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?env(?:\s+-\S+|\s+\w+=\S*)*\s+(\S+)|#!\s*(?:\S*/)?([^\s/]+)")
HEAD_CHARACTERS = 16_384
"""Number of characters at the start of a file that the rules for detecting a language by content search."""


def detect(path: str, text: str = "") -> str:
    """Detect the language of a file.

    Args:
        path: path or name of the file.
        text: content of the file. It is used for shebangs, and for extensions that several languages share.

    Returns:
        One of `LANGUAGES`, or "" for any other language.
    """
    name = PurePosixPath(path).name.lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    stem, dot, extension = name.rpartition(".")
    if dot and stem.endswith(".lagda"):
        return "literate-agda"
    if name.startswith(("dockerfile.", "containerfile.")):
        return "dockerfile"
    if name.startswith("makefile."):
        return "makefile"
    if not dot or (not stem and extension not in _BY_EXTENSION):
        return _interpreter(text)
    if name.endswith(".blade.php"):
        return "php"
    head = text[:HEAD_CHARACTERS]
    for pattern, language in _RULES.get(extension, ()):
        if pattern.search(head):
            return language
    return _BY_EXTENSION.get(extension, "") or _interpreter(text)


def _interpreter(text: str) -> str:
    match = _SHEBANG.match(text[:200])
    if not match:
        return ""
    program = (match.group(1) or match.group(2)).rsplit("/", 1)[-1].lower()
    return _BY_INTERPRETER.get(program, "") or _BY_INTERPRETER.get(program.rstrip("0123456789.-"), "")


# Languages by the marker that starts a comment to the end of the line.
_HASH = {"python", "ruby", "shell", "perl", "r", "yaml", "makefile", "elixir", "julia", "dockerfile", "cmake", "tcl",
         "awk", "powershell", "coffeescript", "tcsh"}  # fmt: skip
_SLASHES = {"c", "c++", "c#", "java", "javascript", "typescript", "go", "rust", "kotlin", "swift", "scala", "dart",
            "php", "groovy", "solidity", "zig", "cuda", "glsl", "objectc++", "verilog", "systemverilog",
            "protocol-buffer",
            "thrift", "vue", "f#", "stan"}  # fmt: skip
_DASHES = {"sql", "haskell", "lua", "ada", "vhdl", "elm", "agda", "idris", "lean"}
_SEMICOLONS = {"clojure", "common-lisp", "scheme", "emacs-lisp", "racket", "assembly"}
_PERCENTS = {"erlang", "tex", "matlab", "prolog"}


def line_comment(language: str) -> str:
    """Return the marker of line comments in a language, or "" if the marker is unknown."""
    for marker, group in (("#", _HASH), ("//", _SLASHES), ("--", _DASHES), (";", _SEMICOLONS), ("%", _PERCENTS)):
        if language in group:
            return marker
    return ""
