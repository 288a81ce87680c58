"""Rejects function bodies that could forge their test results when they run in the same process as the tests.

The known ways to forge results begin with a few modules, names and attributes, here called restricted words. A body is
rejected if it uses a restricted word that the original file does not use. Code can always find a way to influence the
process in which it runs, so this check makes forging harder but not impossible. Tasks that are judged in one process
are therefore marked ``forgeable``.
"""

from __future__ import annotations

import ast

MODULES = frozenset(
    ["abc", "array", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "codecs", "collections",
     "colorsys", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "errno",
     "fractions", "functools", "getopt", "hashlib", "heapq", "hmac", "html", "io", "itertools", "json", "keyword",
     "locale", "math", "numbers", "operator", "os", "pathlib", "posixpath", "pprint", "queue", "random", "re",
     "secrets", "shlex", "stat", "statistics", "string", "struct", "sys", "tempfile", "textwrap", "threading",
     "time", "token", "tokenize", "types", "typing", "unicodedata", "urllib", "uuid", "warnings", "weakref", "zlib",
     "zoneinfo", "__future__"]
)  # fmt: skip
"""Modules that a body may import even if the original file does not import them."""
NAMES = frozenset(
    ["exec", "eval", "compile", "globals", "locals", "vars", "__import__", "breakpoint", "exit", "quit",
     "SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "__builtins__", "__loader__", "__spec__",
     "open", "input", "delattr", "setattr", "__debug__", "pytest"]
)  # fmt: skip
"""Names that a body may not use, unless the original file uses them."""
ATTRIBUTES = frozenset(
    ["_exit", "_getframe", "_current_frames", "modules", "meta_path", "settrace", "setprofile", "gettrace",
     "getprofile", "excepthook", "displayhook", "unraisablehook", "stdout", "stderr", "__stdout__", "__stderr__",
     "stdin", "exit", "abort", "kill", "killpg", "execv", "execve", "execl", "execvp", "fork", "forkpty", "system",
     "popen", "spawnv", "posix_spawn", "dup", "dup2", "write", "writev", "pwrite", "fdopen", "sendfile", "close",
     "closerange", "f_back", "f_locals", "f_globals", "f_code", "tb_frame", "tb_next", "gi_frame", "cr_frame",
     "ag_frame", "get_objects", "get_referrers", "get_referents", "register", "unregister", "atexit",
     "func_globals", "co_code", "co_consts", "putenv", "environ", "chdir", "remove", "unlink", "symlink", "rename",
     "_os", "_sys", "sys", "os",
     # Modules that allowed modules import. Through these, a body could reach any other module.
     "builtins", "bltns", "importlib", "inspect", "gc", "ctypes", "subprocess", "shutil", "_shutil", "linecache",
     "traceback", "signal", "_thread", "exec", "eval", "globals", "locals", "vars", "setattr", "delattr",
     # Writing files: code that is written to a file can be imported.
     "write_text", "write_bytes", "writelines",
     # Classes that are made from computed names.
     "new_class", "make_dataclass", "make_class", "prepare_class"]
)  # fmt: skip
"""Attributes that a body may not read or set, unless the original file uses them."""
SYS = frozenset(
    ["argv", "byteorder", "float_info", "getrecursionlimit", "getsizeof", "hash_info", "hexversion", "int_info",
     "intern", "maxsize", "maxunicode", "platform", "setrecursionlimit", "version", "version_info"]
)  # fmt: skip
"""Attributes of ``sys`` that a body may use. A body may not pass the module ``sys`` itself as an argument."""
DYNAMIC = ("getattr", "attrgetter", "methodcaller", "hasattr")
"""Functions with an attribute's name as an argument. A body may call them only if this name is a literal."""
DUNDERS = frozenset(
    ["__init__", "__new__", "__name__", "__doc__", "__len__", "__iter__", "__next__", "__class__", "__contains__",
     "__getitem__", "__setitem__", "__delitem__", "__enter__", "__exit__", "__call__", "__add__", "__repr__",
     "__str__", "__hash__", "__module__", "__qualname__", "__wrapped__"]
)  # fmt: skip
"""Special attributes that a body may use. All other special attributes are forbidden."""
COMPARISONS = frozenset(
    ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__instancecheck__", "__subclasscheck__",
     "__bool__", "__class__"]
)  # fmt: skip
"""Methods that a body may not define, because they determine the results of comparisons in the tests. A body may not use
their names in any other way either, for example as an attribute of a class or as a keyword argument."""


READS = frozenset(
    ["open", "open_code", "FileIO", "read_text", "read_bytes", "iterdir", "listdir", "scandir", "walk", "glob", "rglob",
     "get_data", "getsource", "getlines", "fromfile", "loadtxt", "genfromtxt", "memmap", "read_csv", "read_table"]
)  # fmt: skip
"""Attributes that read files. Only refused where the test files can be read (see `check`)."""


class Forbidden(Exception):
    """Raised if a body uses a restricted word, with which the body could forge its test results."""


def check(body: list[ast.stmt], known: frozenset[str], reads: bool = False) -> None:
    """Check that a body uses no restricted word, except the words in `known`.

    Args:
        body: The statements of the body.
        known: Restricted words that the original file uses. These words are allowed.
        reads: Whether reading files is refused too, because the body could read the tests.

    Raises:
        Forbidden: The body uses a restricted word that is not among `known`.
    """
    for statement in body:
        for node in ast.walk(statement):
            for word in (*words(node), *(reading_words(node) if reads else ())):
                if word not in known:
                    raise Forbidden(
                        f"line {getattr(node, 'lineno', 0)}: {word!r} is not allowed in a body that runs in the same "
                        "process as its tests"
                    )


def words(node: ast.AST) -> list[str]:
    """Return the restricted words that one node uses, without the words of its children."""
    return [*_used_words(node), *(name for name in _bound_names(node) if name in COMPARISONS)]


def reading_words(node: ast.AST) -> list[str]:
    """Return the words of `READS` that one node uses."""
    if isinstance(node, ast.Attribute):
        return [node.attr] if node.attr in READS else []
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names if alias.name in READS]
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in DYNAMIC:
        return [item.value for item in node.args if isinstance(item, ast.Constant) and item.value in READS]
    return []


def _bound_names(node: ast.AST) -> list[str]:
    """Return the names that a node binds, and the names of keyword arguments. `__class__` may be read."""
    if isinstance(node, ast.Name) and node.id == "__class__":
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
        return [node.name or ""]
    if isinstance(node, ast.keyword | ast.arg):
        return [node.arg or ""]
    if isinstance(node, ast.alias):
        return [node.asname or node.name]
    if isinstance(node, ast.MatchAs | ast.MatchStar):
        return [node.name or ""]
    return [node.rest or ""] if isinstance(node, ast.MatchMapping) else []


def _used_words(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        renamed = [alias.name for alias in node.names if alias.name == "sys" and alias.asname]
        return renamed + [
            alias.name.partition(".")[0] for alias in node.names if alias.name.partition(".")[0] not in MODULES
        ]
    if isinstance(node, ast.ImportFrom):
        module = (node.module or "").partition(".")[0]
        outside = [module] if not node.level and module not in MODULES else []
        risky = (lambda name: name not in SYS) if module == "sys" else _is_risky
        return outside + [alias.name for alias in node.names if risky(alias.name)]
    if isinstance(node, ast.Name):
        return [node.id] if node.id in NAMES else []
    if isinstance(node, ast.Attribute):
        of_sys = isinstance(node.value, ast.Name) and node.value.id == "sys" and node.attr not in SYS
        return [node.attr] if of_sys or _is_risky(node.attr) else []
    if isinstance(node, ast.MatchClass):
        return [name for name in node.kwd_attrs if _is_risky(name)]
    if isinstance(node, ast.Call):
        return _call_words(node)
    if isinstance(node, ast.Assign | ast.NamedExpr | ast.Return | ast.Match | ast.Yield):
        value = node.subject if isinstance(node, ast.Match) else node.value
        return [value.id] if isinstance(value, ast.Name) and value.id in ("sys", "getattr") else []
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_risky(node.value):
        return [node.value]  # a string can be the name argument of getattr
    if isinstance(node, ast.Global | ast.Nonlocal):
        return list(node.names)
    return []


def _call_words(call: ast.Call) -> list[str]:
    """Return the restricted words of a call.

    A call may not pass ``sys`` or a function of `DYNAMIC` as an argument. A call of a function of `DYNAMIC` may not
    compute the attribute name.
    """
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    restricted = [item.id for item in arguments if isinstance(item, ast.Name) and item.id in ("sys", *DYNAMIC)]
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "type" and len(arguments) > 1:
        restricted.append("type with a name and attributes")
    if name in DYNAMIC:
        named = call.args[1:2] if name in ("getattr", "hasattr") else call.args
        if not all(isinstance(item, ast.Constant) and type(item.value) is str for item in named):
            restricted.append(f"{name} of a computed name")
    return restricted


def _is_risky(word: str) -> bool:
    return word in ATTRIBUTES or (
        word.startswith("__") and word.endswith("__") and len(word) > 4 and word not in DUNDERS
    )
