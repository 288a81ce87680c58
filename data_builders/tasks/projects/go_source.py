"""Go functions in tasks: mutants, trivial bodies, and the code that a body needs, found by name resolution."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from alignment.grading.projects.go_language import go_import_path
from alignment.grading.projects.go_scope import FUNCTIONS, free_names, imports_of, package_name
from alignment.grading.projects.go_syntax import full_name
from alignment.grading.projects.project_language import ProjectFunction
from alignment.grading.source_tree import SourceTree, descend
from data_builders.tasks.projects.project_source import NeededDeclarations
from data_builders.tasks.projects.syntax_mutants import definition, mutants

MAX_VALUE, MAX_COMMENT = 1500, 300
"""Maximum number of characters of a declaration, and of the comment above it."""
_NUMBERS = re.compile(r"u?int(?:8|16|32|64)?|uintptr|byte|rune|float(?:32|64)")


@dataclass(frozen=True)
class GoDeclaration:
    """A declaration at the top level of a file."""

    file: str
    code: str
    """The code that a prompt shows: of functions the signature."""
    place: int
    names: frozenset[str]
    """Names that the shown code uses."""
    owner: str = ""
    """The type of a method."""


class GoSource:
    """Go functions in tasks. See `ProjectSource`."""

    masked_body = '\n\tpanic("not implemented")\n'
    mask_line = "\t// write this body"

    def mutants(self, text: str, function: ProjectFunction, count: int) -> list[str]:
        return mutants(text, function, count, "go", {"true": "false", "false": "true"})

    def trivial(self, text: str, function: ProjectFunction) -> list[str]:
        types = _result_types(text, function)
        if not types:
            return [definition(text, function, "\n")]
        zeros = "".join(f"\tvar zero{number} {kind}\n" for number, kind in enumerate(types))
        values = [f"zero{number}" for number in range(len(types))]
        firsts = [values[0], *({"bool": ["true"], "string": ['"a"']}.get(types[0], []))]
        if _NUMBERS.fullmatch(types[0]):
            firsts.append("1")
        firsts += [name for name, kind in _parameters(text, function) if kind == types[0]][:3]
        return [
            definition(text, function, f"\n{zeros}\treturn {', '.join([first, *values[1:]])}\n")
            if first == values[0] or len(types) > 1 else definition(text, function, f"\n\treturn {first}\n")
            for first in firsts
        ]  # fmt: skip

    def needed(self, sources: Mapping[str, str], function: ProjectFunction) -> NeededDeclarations:
        text = sources[function.file]
        tree = SourceTree(text, "go")
        node = next(item for item in tree.root.children if tree.character(item.start_byte) == function.first)
        imports = imports_of(tree)
        known = _declarations(frozenset(_package_files(sources, posixpath.dirname(function.file)).items()))
        names = {tree.text(item) for item in free_names(tree, node)}
        members = _members(tree, node)
        owner = function.name.rpartition(".")[0]
        shown = list(_resolved(known, names, members, owner, function.name))
        others: dict[str, list[str]] = {}
        declarations: list[tuple[int, str]] = []
        for item in shown:
            if item.file == function.file:
                declarations.append((item.place, item.code))
            else:
                others.setdefault(item.file, []).append(item.code)
        for alias, path in sorted(imports.items()):
            if alias in names:
                for item in _imported(sources, function.file, path, members):
                    others.setdefault(item.file, []).append(item.code)
        used = names | {name for item in shown if item.file == function.file for name in item.names}
        clause = next(tree.text(item) for item in tree.root.children if item.type == "package_clause")
        lines = [f"\t{_import_line(alias, path)}" for alias, path in imports.items() if alias in used]
        block = [clause, "import (\n" + "\n".join(lines) + "\n)"] if lines else [clause]
        doc = f"{function.doc}\n" if function.doc else ""
        stub = f"{doc}{text[function.first : function.start]}"
        unresolved = names - imports.keys() - known.keys() - {owner}
        return NeededDeclarations([*block, *(code for _, code in sorted(declarations))], stub, others, unresolved)

    def tests_code(self, sources: Mapping[str, str], names: Sequence[str], characters: int) -> str:
        parts: list[str] = []
        for name in names:
            file, _, short = name.partition("::")
            code = _test_code(sources.get(file, ""), short)
            size = sum(map(len, parts)) + len(code)
            if code and (size <= characters or (not parts and size <= 2 * characters)):
                parts.append(code)
        return "\n\n".join(parts)


@lru_cache(maxsize=4096)
def _test_code(text: str, name: str) -> str:
    tree = SourceTree(text, "go")
    for node in tree.root.children:
        if node.type == "function_declaration" and tree.text(node.child_by_field_name("name")) == name:
            return tree.text(node)
    return ""


def _result_types(text: str, function: ProjectFunction) -> list[str]:
    """Return the types of a function's results."""
    result = _header(text, function).child_by_field_name("result")
    return (
        _types(result)
        if result is not None and result.type == "parameter_list"
        else [function.result]
        if function.result
        else []
    )


def _header(text: str, function: ProjectFunction) -> Any:
    tree = SourceTree(f"{text[function.first : function.start]}}}", "go")
    return next(node for node in tree.root.children if node.type in FUNCTIONS)


def _parameters(text: str, function: ProjectFunction) -> list[tuple[str, str]]:
    pairs = []
    for item in _header(text, function).child_by_field_name("parameters").named_children:
        if item.type == "parameter_declaration":
            kind = item.child_by_field_name("type").text.decode()
            pairs += [(name.text.decode(), kind) for name in item.children_by_field_name("name")]
    return pairs


def _types(parameters: Any) -> list[str]:
    types: list[str] = []
    for item in parameters.named_children:
        if item.type == "parameter_declaration":
            types += [item.child_by_field_name("type").text.decode()] * max(1, len(item.children_by_field_name("name")))
    return types


def _import_line(alias: str, path: str) -> str:
    return f'"{path}"' if alias == package_name(path) else f'{alias.partition(".")[0] or "."} "{path}"'


def _package_files(sources: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the source files of a package without tests."""
    return {
        path: text for path, text in sources.items()
        if posixpath.dirname(path) == folder and path.endswith(".go") and not path.endswith("_test.go")
    }  # fmt: skip


def _members(tree: SourceTree, node: Any) -> set[str]:
    """Return the names of fields and methods that code uses."""
    return {tree.text(item) for item in descend(node) if item.type == "field_identifier"}


@lru_cache(maxsize=64)
def _declarations(files: frozenset[tuple[str, str]]) -> dict[str, list[GoDeclaration]]:
    """Return the declarations of a package, keyed by name. Methods have the key `.name`."""
    known: dict[str, list[GoDeclaration]] = {}
    for file, text in sorted(files):
        tree = SourceTree(text, "go")
        for node in tree.root.children:
            for name, declaration in _declared(tree, file, node):
                known.setdefault(name, []).append(declaration)
    return known


def _declared(tree: SourceTree, file: str, node: Any) -> Iterator[tuple[str, GoDeclaration]]:
    if node.type in FUNCTIONS:
        body = node.child_by_field_name("body")
        end = body.start_byte if body is not None else node.end_byte
        code = _comment(tree, node) + tree.between(node.start_byte, end).rstrip()
        name = full_name(tree, node)
        owner, _, short = name.rpartition(".")
        uses = frozenset(tree.text(item) for item in descend(node) if item.end_byte <= end and item.type in ("type_identifier", "package_identifier"))  # fmt: skip
        yield (f".{short}" if owner else name), GoDeclaration(file, code, node.start_byte, uses, owner)
    elif node.type in ("var_declaration", "const_declaration", "type_declaration"):
        word = node.type.partition("_")[0]
        specs = [item for item in descend(node) if item.type in ("var_spec", "const_spec", "type_spec", "type_alias")]
        grouped = len(specs) > 1 and ("iota" in tree.text(node) or any(len(spec.named_children) == 1 for spec in specs))
        for spec in specs:
            if spec.type.startswith("type") and spec.parent.id != node.id:
                continue
            shown = node if grouped or len(specs) == 1 else spec
            code = _shortened(tree.text(shown) if shown.id == node.id else f"{word} {tree.text(shown)}")
            uses = frozenset(tree.text(item) for item in descend(spec) if item.type in ("type_identifier", "package_identifier", "identifier"))  # fmt: skip
            declaration = GoDeclaration(file, _comment(tree, node) + code, shown.start_byte, uses)
            for name in spec.children_by_field_name("name"):
                yield tree.text(name), declaration


def _shortened(code: str) -> str:
    if len(code) <= MAX_VALUE:
        return code
    kept = code[:MAX_VALUE].rpartition("\n")[0] or code[:80]
    return f"{kept}\n\t// ...\n}}"


def _comment(tree: SourceTree, node: Any) -> str:
    """Return the comment directly above a declaration with a line end, if it is short."""
    above = node.prev_sibling
    lines: list[str] = []
    row = node.start_point[0]
    while above is not None and above.type == "comment" and above.end_point[0] >= row - 1:
        lines.insert(0, tree.text(above).rstrip("\n"))
        row = above.start_point[0]
        above = above.prev_sibling
    text = "\n".join(lines)
    return f"{text}\n" if text and len(text) <= MAX_COMMENT else ""


def _resolved(
    known: Mapping[str, list[GoDeclaration]], names: set[str], members: set[str], owner: str, function: str
) -> Iterator[GoDeclaration]:
    """Yield the declarations of a package that a function needs, each once.

    These are the declarations of the names that it uses, the types in the shown signatures, and the methods that it calls
    of the shown types.
    """
    seen: set[tuple[str, int]] = set()
    types = {owner} if owner else set()
    waiting = sorted(names | types)
    shown: list[GoDeclaration] = []
    for depth in range(2):
        following: set[str] = set()
        for name in waiting:
            for item in known.get(name, []):
                if (item.file, item.place) not in seen and name != function:
                    seen.add((item.file, item.place))
                    shown.append(item)
                    types.add(name)
                    following |= {use for use in item.names if use in known and use[:1] != "."}
        waiting = sorted(following) if depth == 0 else []
    for member in sorted(members):
        for item in known.get(f".{member}", []):
            fits = item.owner in types or len(known[f".{member}"]) == 1
            if fits and f"{item.owner}.{member}" != function and (item.file, item.place) not in seen:
                seen.add((item.file, item.place))
                shown.append(item)
    yield from shown


def _imported(sources: Mapping[str, str], file: str, path: str, members: set[str]) -> Iterator[GoDeclaration]:
    """Yield the declarations that a function uses of another package of the same module."""
    for folder in sorted({posixpath.dirname(item) for item in sources if item.endswith(".go")}):
        if folder != posixpath.dirname(file) and go_import_path(sources, folder) == path:
            known = _declarations(frozenset(_package_files(sources, folder).items()))
            seen: set[tuple[str, int]] = set()
            for name in sorted(members):
                for item in (*known.get(name, []), *known.get(f".{name}", [])):
                    if (item.file, item.place) not in seen:
                        seen.add((item.file, item.place))
                        yield item
