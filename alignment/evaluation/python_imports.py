"""Add missing imports to Python code, for names of the standard library that the code uses but does not import."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator

_MODULES = [
    "abc",
    "array",
    "ast",
    "asyncio",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "numbers",
    "operator",
    "os",
    "pathlib",
    "pickle",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "shutil",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "uuid",
    "warnings",
    "weakref",
    "zlib",
]
_NAMES = {
    "collections": "Counter OrderedDict ChainMap defaultdict deque namedtuple",
    "functools": "cache cached_property cmp_to_key lru_cache partial partialmethod reduce singledispatch total_ordering wraps",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort insort_left insort_right",
    "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby"
    " islice pairwise permutations product repeat starmap takewhile tee zip_longest",
    "math": "ceil comb copysign cos degrees dist exp factorial floor fmod fsum gcd hypot inf isclose isfinite isinf isnan isqrt"
    " lcm log log10 log1p log2 nan perm pi prod radians sin sqrt tan tau trunc",
    "copy": "deepcopy",
    "dataclasses": "asdict astuple dataclass field",
    "enum": "Enum Flag IntEnum IntFlag StrEnum auto",
    "abc": "ABC ABCMeta abstractmethod",
    "contextlib": "contextmanager redirect_stdout suppress",
    "fractions": "Fraction",
    "decimal": "Decimal ROUND_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP getcontext localcontext",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits punctuation",
    "operator": "attrgetter itemgetter methodcaller mul",
    "statistics": "mean median mode multimode pstdev pvariance stdev variance",
    "datetime": "date timedelta timezone",
    "random": "choice randint randrange shuffle",
    "pathlib": "Path PurePath",
    "io": "BytesIO StringIO",
    "threading": "Lock RLock Thread",
    "types": "MappingProxyType SimpleNamespace",
    "typing": "AbstractSet Any Awaitable Callable ClassVar Collection Container Coroutine DefaultDict Deque Dict Final FrozenSet"
    " Generator Generic Hashable Iterable Iterator KeysView List Literal Mapping MutableMapping MutableSequence NamedTuple"
    " NewType NoReturn Optional ParamSpec Protocol Self Sequence Set Sized Text Tuple Type TypeAlias TypeVar TypedDict Union"
    " ValuesView cast overload",
}  # fmt: skip
_FROM = {name: module for module, names in _NAMES.items() for name in names.split()}
_ALIASES = {"np": "import numpy as np", "pd": "import pandas as pd", "plt": "import matplotlib.pyplot as plt"}
_SAME_NAME = {
    "datetime": ["now", "strptime", "today", "utcnow", "fromtimestamp", "fromisoformat", "combine"],
    "bisect": [],
    "copy": [],
    "pprint": [],
    "time": [],
}
"""Attributes that show that a name means a class or function instead of the module of the same name, keyed by name. For
example, `datetime.now` means the class, because the module `datetime` has no `now`."""


def add_imports(code: str) -> str:
    """Add imports of the standard library, numpy, pandas and matplotlib for names that the code does not define."""
    try:
        tree = ast.parse(code)
        free = free_names(tree, code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    own = {name for name in free & _SAME_NAME.keys() if _uses_own_name(tree, name)}
    lines = [f"import {name}" for name in _MODULES if name in free - own]
    lines += [line for name, line in _ALIASES.items() if name in free]
    for module in sorted(set(_FROM.values()) | own):
        names = [name for name in sorted(free) if _FROM.get(name) == module or (name in own and name == module)]
        if names:
            lines.append(f"from {module} import {', '.join(names)}")
    if not lines:
        return code
    head = "\n".join(lines)
    future = re.match(r"(?:from __future__ import [^\n]*\n)+", code)
    if future:
        return code[: future.end()] + head + "\n" + code[future.end() :]
    late = next((node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"), None)
    if late is not None:  # a docstring or comments precede the future import, which must stay the first statement
        split = code.split("\n")
        return "\n".join([*split[: late.end_lineno], head, *split[late.end_lineno :]])
    return f"{head}\n\n{code}"


def _uses_own_name(tree: ast.AST, name: str) -> bool:
    """Whether `name` in the code means the function or class (`datetime.datetime`), not the module of the same name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            f"{name}.{attribute}" for attribute in _SAME_NAME[name]
        }:
            return True
    return False


def free_names(tree: ast.Module, code: str) -> set[str]:
    """Return the names that code reads from its global scope but does not bind.

    Args:
        tree: the syntax tree of the code.
        code: source text.
    """
    module = symtable.symtable(code, "<answer>", "exec")
    bound = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    read: set[str] = set()
    for table in _tables(module):
        for symbol in table.get_symbols():
            if symbol.is_declared_global() and symbol.is_assigned():
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (symbol.is_global() or table is module):
                read.add(symbol.get_name())
    annotations = {name for node in ast.walk(tree) for name in _annotation_names(node)}
    local = {name for table in _tables(module) for name in table.get_identifiers() if table is not module} - read
    return (read | (annotations - local)) - bound


def _annotation_names(node: ast.AST) -> set[str]:
    """Return the names in the annotations of a syntax node.

    The symbol table omits these names under `from __future__ import annotations`.
    """
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts.append(node.returns)
    elif isinstance(node, ast.arg | ast.AnnAssign):
        parts.append(node.annotation)
    return {
        part.id for annotation in parts if annotation for part in ast.walk(annotation) if isinstance(part, ast.Name)
    }


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
