"""Collect the code of a repository that a function needs: imports, constants, and outlines of functions and classes.

Names are resolved as Python resolves them: every name that the body takes from its module is looked up there, and the
names that the module imports from the repository are looked up in the repository's files.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_builders.parsing.imports import Resolver
from data_builders.parsing.python_functions import Definition, Function
from data_builders.tasks.python.module_excerpt import class_outline, excerpt, member_names, stubs_of
from data_builders.tasks.python.module_source import (
    BUILTIN_NAMES,
    Detail,
    ModuleSource,
    attribute_names,
    global_names,
    imported_as,
    loaded_names,
    signature_names,
)

FULL, BRIEF = Detail(value=1500, body=300), Detail(value=200, body=0)
MAX_IMPORTS = 4
"""Maximum number of files through which a re-exported name is followed."""
MAX_BASES = 3
"""Maximum number of base classes, one above the other, whose members are shown."""
MASK_LINE = "...  # write this body"


@dataclass
class NeededCode:
    """The code that a function needs, and the function without its body."""

    module: str
    """Code of the function's module: what the body needs, without the function."""
    opening: str
    """The classes around the function, with the members that the body uses. "" for a function at module level."""
    stub: str
    """The function up to its body: decorators, signature and docstring, indented for its place in `opening`."""
    indentation: str
    """White space before a statement of the body."""
    others: dict[str, str] = field(default_factory=dict)
    """Definitions in other files of the repository, keyed by path."""

    @property
    def head(self) -> str:
        """The module up to the body: needed code, classes around the function, and its stub."""
        parts = [self.module, f"{self.opening}\n\n{self.stub}" if self.opening else self.stub]
        return "\n\n\n".join(part for part in parts if part)

    @property
    def other_files(self) -> str:
        """The definitions in other files, each file after a comment with its path."""
        return "\n\n".join(f"# {path}\n{code}" for path, code in self.others.items())

    @property
    def size(self) -> int:
        """Number of characters of the needed code, without the stub."""
        return len(self.module) + len(self.opening) + len(self.other_files)


class RepositoryCode:
    """The source files of a repository, from which prompts take the code that a function needs.

    Args:
        texts: texts of the repository's files without tests, keyed by path.
        repository: name of the repository.
    """

    def __init__(self, texts: Mapping[str, str], repository: str) -> None:
        self.texts = texts
        self.resolver = Resolver(texts, repository)

    def needed(self, function: Function, characters: int) -> NeededCode:
        """Collect the code that a function needs.

        Args:
            function: the function whose body is masked.
            characters: number of characters above which definitions are shortened: no docstrings, no long values.
        """
        needed = _collect(self.texts, self.resolver, function, FULL)
        return needed if needed.size <= characters else _collect(self.texts, self.resolver, function, BRIEF)


def _collect(texts: Mapping[str, str], resolver: Resolver, function: Function, detail: Detail) -> NeededCode:
    text = texts[function.file]
    depth = function.qualname.count(".")
    module = ModuleSource.parse(text)
    path = module.path_to(function.line) if module else []
    node = path[-1] if path else None
    if module is None or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return NeededCode("", "", stub_of(text, function, depth), "    " * (depth + 1))
    names, attributes = global_names(node), attribute_names([*function.body])
    owners = [item for item in path[:-1] if isinstance(item, ast.ClassDef)]
    shown = names | signature_names(node) | _base_names(module, owners)
    collected = excerpt(module, shown, attributes, detail, skip=[*path])
    imported = _ImportedCode(texts, resolver, detail)
    for name in sorted(shown):
        imported.add(function.file, module, name, attributes, [*function.body])
    needed = NeededCode(
        collected.text(),
        _opening(module, owners, node, attributes, detail),
        stub_of(text, function, depth),
        "    " * (depth + 1),
    )
    stars = dict.fromkeys(
        statement
        for name in sorted(collected.missing - BUILTIN_NAMES)
        for statement in imported.add_star(function.file, module, name, attributes)
    )
    needed.module = "\n".join([*stars, needed.module]).rstrip("\n")
    if owners:
        imported.add_bases(function.file, module, owners[-1], attributes - member_names(owners[-1]))
    needed.others = imported.text()
    return needed


def _base_names(module: ModuleSource, owners: Iterable[ast.ClassDef]) -> set[str]:
    """Return the names of the classes from which classes inherit, as far as they are in the module."""
    names: set[str] = set()
    waiting = [base for owner in owners for base in owner.bases]
    while waiting:
        new = loaded_names([waiting.pop()]) - names
        names |= new
        for name in new:
            nodes = (binding.node for binding in module.bindings.get(name, []))
            waiting += [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
    return names


def stub_of(text: str, function: Function, depth: int) -> str:
    """Return a function up to its body, indented for a place inside `depth` classes. The text ends with a line end."""
    head = text[function.first : function.start]
    if not head.endswith("\n"):
        head = head.rstrip() + "\n"  # the body begins on the line of `def`
    margin = len(head) - len(head.lstrip(" \t"))
    lines = [line[min(margin, len(line) - len(line.lstrip(" \t"))) :] for line in head.split("\n")]
    return textwrap.indent("\n".join(lines), "    " * depth)


def _opening(
    module: ModuleSource, owners: list[ast.ClassDef], node: Definition, attributes: set[str], detail: Detail
) -> str:
    """Return the classes around a function. Of outer classes, only the head is shown."""
    parts = []
    for depth, owner in enumerate(owners):
        used = attributes if owner is owners[-1] else set()
        parts.append(textwrap.indent(class_outline(module, owner, used, detail, without=node), "    " * depth))
    return "\n\n".join(parts)


@dataclass
class _ImportedCode:
    """Definitions in files of the repository that a module imports."""

    texts: Mapping[str, str]
    resolver: Resolver
    detail: Detail
    wanted: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    """Names and attributes that are needed from each file, keyed by path."""

    def text(self) -> dict[str, str]:
        """Return the definitions, keyed by path."""
        shown = {}
        for path in sorted(self.wanted):
            module = ModuleSource.parse(self.texts[path])
            names, attributes = self.wanted[path]
            if module and (code := stubs_of(module, sorted(names), attributes, self.detail)):
                shown[path] = code
        return shown

    def _want(self, path: str, name: str, attributes: set[str]) -> None:
        names, known = self.wanted.setdefault(path, (set(), set()))
        names.add(name)
        known |= attributes

    def add(self, file: str, module: ModuleSource, name: str, attributes: set[str], body: list[ast.stmt]) -> None:
        """Add what a name of a module stands for, if the module imports the name from a file of the repository."""
        for binding in module.bindings.get(name, []):
            node = binding.node
            if isinstance(node, ast.ImportFrom):
                self._add_from(file, node, name, attributes, body)
            elif isinstance(node, ast.Import):
                dotted = [alias.name for alias in node.names if imported_as(alias, node) == name]
                for path in self.resolver.dependencies(file, "python", dotted):
                    self._add_members(path, attribute_names(body), attributes)

    def _add_from(self, file: str, node: ast.ImportFrom, name: str, attributes: set[str], body: list[ast.stmt]) -> None:
        origin = "." * node.level + (node.module or "")
        original = next(alias.name for alias in node.names if imported_as(alias, node) == name)
        if place := self._definition(file, origin, original):
            self._want(*place, attributes)
            return
        submodule = f"{origin}{original}" if origin.endswith(".") else f"{origin}.{original}"
        for path in self.resolver.dependencies(file, "python", [submodule]):
            self._add_members(path, attribute_names(body, of=name), attributes)

    def _add_members(self, path: str, names: Iterable[str], attributes: set[str]) -> None:
        module = ModuleSource.parse(self.texts[path])
        for name in sorted(set(names) & set(module.bindings if module else ())):
            if place := self._definition_in(path, name, 0):
                self._want(*place, attributes)

    def _definition(self, file: str, origin: str, name: str, depth: int = 0) -> tuple[str, str] | None:
        """Return (path, name) of the definition that `from origin import name` in a file stands for."""
        for path in self.resolver.dependencies(file, "python", [origin]):
            if place := self._definition_in(path, name, depth):
                return place
        return None

    def _definition_in(self, path: str, name: str, depth: int) -> tuple[str, str] | None:
        module = ModuleSource.parse(self.texts[path])
        if module is None or depth > MAX_IMPORTS:
            return None
        for binding in module.bindings.get(name, []):
            node = binding.node
            if not isinstance(node, ast.Import | ast.ImportFrom):
                return path, name
            if isinstance(node, ast.ImportFrom):
                original = next(alias.name for alias in node.names if imported_as(alias, node) == name)
                if place := self._definition(path, "." * node.level + (node.module or ""), original, depth + 1):
                    return place
        for star in module.star_imports if name not in module.bindings else []:
            if place := self._definition(path, "." * star.level + (star.module or ""), name, depth + 1):
                return place
        return None

    def add_star(self, file: str, module: ModuleSource, name: str, attributes: set[str]) -> list[str]:
        """Add a name that `from ... import *` brings. Return the import statements that define the name.

        If no file of the repository defines the name, these are the imports of everything from other packages.
        """
        external = []
        for star in module.star_imports:
            origin = "." * star.level + (star.module or "")
            if place := self._definition(file, origin, name):
                self._want(*place, attributes)
                return [f"from {origin} import {name}"]
            if not self.resolver.dependencies(file, "python", [origin]):
                external.append(ast.unparse(star))
        return external

    def add_bases(
        self, file: str, module: ModuleSource, owner: ast.ClassDef, missing: set[str], depth: int = 0
    ) -> None:
        """Add outlines of the base classes that define attributes which a class does not define."""
        for base in owner.bases if depth < MAX_BASES and missing else ():
            place = self._definition_in(file, base.id, 0) if isinstance(base, ast.Name) else None
            if place is None:
                continue
            path, name = place
            source = ModuleSource.parse(self.texts[path])
            for binding in source.bindings.get(name, []) if source else []:
                if source and isinstance(binding.node, ast.ClassDef):
                    if member_names(binding.node) & missing and path != file:
                        self._want(path, name, missing)
                    self.add_bases(path, source, binding.node, missing - member_names(binding.node), depth + 1)
