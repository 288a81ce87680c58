"""Parses Go to find the functions and tests of a file, and the function in a model's answer."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.grading.projects.go_guard import confines
from alignment.grading.projects.go_scope import FUNCTIONS, imports_of, without_unused_imports
from alignment.grading.projects.project_language import FunctionAnswer, ProjectFunction
from alignment.grading.source_tree import SourceTree, is_deeper

MAX_DEPTH = 150
"""Maximum depth of the syntax tree of a file with an answer. Real code is not nested more deeply."""
SAFE_IMPORTS = frozenset(
    [
        "bufio",
        "bytes",
        "cmp",
        "container/heap",
        "container/list",
        "context",
        "encoding/base64",
        "encoding/binary",
        "encoding/hex",
        "encoding/json",
        "errors",
        "fmt",
        "io",
        "maps",
        "math",
        "math/big",
        "math/bits",
        "path",
        "path/filepath",
        "regexp",
        "slices",
        "sort",
        "strconv",
        "strings",
        "sync",
        "sync/atomic",
        "text/tabwriter",
        "text/template",
        "time",
        "unicode",
        "unicode/utf16",
        "unicode/utf8",
    ]
)
"""Packages of the standard library that an answer may import."""


def go_functions(file: str, text: str) -> list[ProjectFunction]:
    """Return the functions and methods of a file. The result is empty if the file cannot be parsed."""
    tree = SourceTree(text, "go")
    if tree.root.has_error:
        return []
    functions = []
    for node in tree.root.children:
        body = node.child_by_field_name("body") if node.type in FUNCTIONS else None
        if body is None or not body.named_child_count or _short_name(tree, node) in ("init", "main", "_"):
            continue
        result = node.child_by_field_name("result")
        functions.append(
            ProjectFunction(
                file, full_name(tree, node), posixpath.dirname(file), node.start_point[0] + 1,
                tree.character(node.start_byte), tree.character(body.start_byte) + 1, tree.character(body.end_byte) - 1,
                (body.start_point[0] + 1, body.end_point[0] + 1), "A" if confines(tree, node) else "B",
                tree.between(node.start_byte, body.start_byte).rstrip(), _comment_above(tree, node),
                tuple(name for name, _ in _entries(tree, node.child_by_field_name("parameters")) if name not in ("", "_")),
                tree.text(result) if result is not None else "",
            )
        )  # fmt: skip
    return functions


def full_name(tree: SourceTree, node: Any) -> str:
    """Return the name of a function, or the names of a method's type and of the method: `Basket.Total`."""
    receiver = node.child_by_field_name("receiver")
    if receiver is None:
        return _short_name(tree, node)
    owner = re.search(r"\*?\s*([^\W\d]\w*)\s*(?:\[[^\]]*\])?\s*,?\s*\)$", tree.text(receiver))
    return f"{owner[1] if owner else ''}.{_short_name(tree, node)}"


def _short_name(tree: SourceTree, node: Any) -> str:
    return tree.text(node.child_by_field_name("name"))


def _comment_above(tree: SourceTree, node: Any) -> str:
    """Return the comment that ends in the line above a node."""
    first, above = node, node.prev_sibling
    while above is not None and (above.type == "comment" or not above.is_named):
        if above.type == "comment":
            if above.end_point[0] < first.start_point[0] - 1:
                break
            first = above
        above = above.prev_sibling
    return "" if first is node else tree.between(first.start_byte, node.start_byte).rstrip()


def _entries(tree: SourceTree, parameters: Any) -> list[tuple[str, str]]:
    """Return name and type of each parameter in a list. A parameter without a name has the name ""."""
    entries: list[tuple[str, str]] = []
    for item in parameters.named_children if parameters is not None else ():
        if item.type not in ("parameter_declaration", "variadic_parameter_declaration"):
            continue
        names = item.children_by_field_name("name")
        kind = re.sub(r"\s+", " ", tree.text(item.child_by_field_name("type")))
        dots = "..." if item.type.startswith("variadic") else ""
        entries += [(tree.text(name), dots + kind) for name in names] or [("", dots + kind)]
    return entries


def _signature(tree: SourceTree, node: Any) -> list[list[str]]:
    """Return the types of the receiver, the parameters and the results of a function."""
    parts = []
    for name in ("receiver", "parameters", "result"):
        part = node.child_by_field_name(name)
        if part is not None and part.type != "parameter_list":
            parts.append([re.sub(r"\s+", " ", tree.text(part))])
        else:
            parts.append([kind for _, kind in _entries(tree, part)])
    return parts


def read_go_answer(program: str, target: Mapping[str, Any]) -> FunctionAnswer | None:
    """Find the function in a model's answer, see `ProjectLanguage.read_answer`."""
    tree = SourceTree(program, "go")
    name = target["name"]
    functions = [node for node in tree.root.children if node.type in FUNCTIONS]
    matches = [node for node in functions if full_name(tree, node) == name] or [
        node for node in functions if _short_name(tree, node) == name.rpartition(".")[2]
    ]
    if matches:
        if tree.root.has_error or is_deeper(tree.root, MAX_DEPTH):
            return None
        node = matches[-1]
        body = node.child_by_field_name("body")
        if body is None:
            return None
        helpers = tuple(
            tree.text(child) for child in tree.root.children
            if child.is_named and child.id != node.id and child.type not in ("comment", "package_clause", "import_declaration", "method_declaration")
        )  # fmt: skip
        header = tree.between(node.start_byte, body.start_byte).rstrip()
        return FunctionAnswer(
            tree.between(body.start_byte + 1, body.end_byte - 1), header, helpers, tuple(imports_of(tree).values())
        )
    inner = SourceTree(f"func answer() {{\n{program}\n}}\n", "go").root
    if inner.has_error or inner.named_child_count != 1 or is_deeper(inner, MAX_DEPTH):
        return None  # more than one node: the answer closes the function and continues outside of it
    return FunctionAnswer(f"\n{program}\n")


def replace_go_function(
    text: str, target: Mapping[str, Any], answer: FunctionAnswer, facts: Mapping[str, Any]
) -> str | None:
    """Return the text of a file with the answer in place of a function, see `ProjectLanguage.replaced`.

    Helper functions of the answer are moved into the body. The names of parameters may differ from the original.
    Imports that the answer adds are inserted if they are in `SAFE_IMPORTS`, and imports that are no longer used become
    blank.
    """
    header = text[target["first"] : target["start"] - 1]
    if answer.header is not None:
        given, original = (SourceTree(f"{part} {{}}\n", "go") for part in (answer.header, header))
        nodes = [
            next((node for node in tree.root.children if node.type in FUNCTIONS), None) for tree in (given, original)
        ]
        if all(nodes) and not given.root.has_error and _signature(given, nodes[0]) == _signature(original, nodes[1]):
            header = f"{answer.header} "
    body = "".join(_inside(helper, facts) for helper in answer.helpers) + answer.body
    changed = f"{text[: target['first']]}{header}{{{body}}}{text[target['end'] + 1 :]}"
    tree, before = SourceTree(changed, "go"), SourceTree(text, "go")
    if tree.root.has_error or is_deeper(tree.root, MAX_DEPTH) or _outline(tree) != _outline(before):
        return None
    known = imports_of(tree)
    package = next((node for node in tree.root.children if node.type == "package_clause"), None)
    if package is not None:
        added = [path for path in answer.imports if path in SAFE_IMPORTS and path not in known.values()]
        place = tree.character(package.end_byte)
        lines = "".join(f'; import "{path}"' for path in dict.fromkeys(added))
        changed = f"{changed[:place]}{lines}{changed[place:]}"
    return without_unused_imports(changed)


def _outline(tree: SourceTree) -> list[str]:
    """Return the kinds of a file's top-level nodes, and the names of its functions."""
    return [
        f"{node.type} {full_name(tree, node) if node.type in FUNCTIONS else ''}"
        for node in tree.root.children if node.is_named
    ]  # fmt: skip


def _inside(helper: str, facts: Mapping[str, Any]) -> str:
    """Return a top-level declaration of an answer in a form that is allowed inside of a function body.

    A declaration of a name that the package already has is left out: answers often repeat the code of the prompt.
    """
    tree = SourceTree(f"{helper}\n", "go")
    node = tree.root.named_children[0] if tree.root.named_child_count else None
    if node is None or tree.root.has_error:
        return ""
    if node.type == "function_declaration":
        name, body = _short_name(tree, node), node.child_by_field_name("body")
        if name in facts["declared"] or body is None or node.child_by_field_name("type_parameters") is not None:
            return ""
        kind = tree.between(node.child_by_field_name("parameters").start_byte, body.start_byte).strip()
        return f"\nvar {name} func{kind}; {name} = func{kind} {tree.text(body)}; _ = {name}\n"
    names = [tree.text(item) for spec in node.named_children for item in spec.children_by_field_name("name")]
    if not names or node.type not in ("var_declaration", "const_declaration", "type_declaration"):
        return ""
    if set(names) & set(facts["declared"]):
        return ""
    used = "".join(f"; _ = {name}" for name in names) if node.type == "var_declaration" else ""
    return f"\n{helper}{used}\n"


def combine_go_bodies(
    text: str, target: Mapping[str, Any], answers: Sequence[FunctionAnswer], token: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return a file in which a function has several bodies, see `ProjectLanguage.combined`."""
    head, original, tail = text[: target["start"]], text[target["start"] : target["end"]], text[target["end"] :]
    parts, lines = [head, f" switch Variant_{token} {{\n"], []
    line = head.count("\n") + 2
    for number, answer in enumerate(answers, 1):
        part = f"case {number}:\n{answer.body}\n"
        lines.append((line, line + part.count("\n") - 1))
        line += part.count("\n")
        parts.append(part)
    parts.append(f"default:\n{original}\n}}\n")
    header = SourceTree(f"{text[target['first'] : target['start'] - 1]} {{}}\n", "go")
    function = next(node for node in header.root.children if node.type in FUNCTIONS)
    if function.child_by_field_name("result") is not None:
        parts.append('panic("no variant")\n')
    return without_unused_imports("".join([*parts, tail])), lines
