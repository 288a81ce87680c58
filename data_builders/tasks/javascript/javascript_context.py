"""Make the prompt of a JavaScript or TypeScript task: the declarations that the masked body needs, and some tests."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from alignment.evaluation.answer_forms import AnswerForm
from alignment.grading.node_syntax import CLASSES, FUNCTIONS, METHOD, TYPESCRIPT, JsFunction, Tree, js_functions
from alignment.grading.source_tree import descend
from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.imports import Resolver
from data_builders.tasks.javascript.javascript_scope import (
    DECLARATIONS,
    KNOWN_GLOBALS,
    JsDeclaration,
    declarations_around,
    function_at,
    member_uses,
    used_names,
)
from data_builders.tasks.python.module_excerpt import joined
from data_builders.tasks.task_rows import request_for

MAX_VALUE, MAX_BODY = 1500, 300
"""Maximum number of characters of a declaration, and of a function that is shown whole."""
MASK_LINE = "// write this body"


@dataclass
class JsNeededCode:
    """The code that a function needs, and the function without its body."""

    declarations: list[str]
    """Imports, constants and outlines of the module, in its order."""
    opening: list[str]
    """First lines of the classes and objects around the function, each with the members that the body uses."""
    stub: str
    """The function up to the opening brace of its body, with the comment above the function."""
    closing: list[str]
    """Last lines of the classes and objects around the function."""
    ending: str = "}"
    """The function's closing brace, and what follows in its statement."""
    others: dict[str, str] = field(default_factory=dict)
    """Definitions in other files of the repository, keyed by path."""
    unresolved: set[str] = field(default_factory=set)
    """Names that the body uses and that are declared nowhere in its file."""

    @property
    def head(self) -> str:
        """The module up to the body."""
        indented = [textwrap.indent(text, "  " * depth) for depth, text in enumerate(self.opening)]
        parts = [joined(self.declarations), *indented, textwrap.indent(self.stub, "  " * len(self.opening))]
        return "\n\n".join(filter(None, parts))

    @property
    def indentation(self) -> str:
        """White space before a statement of the body."""
        return "  " * (len(self.opening) + 1)

    @property
    def tail(self) -> str:
        """The module after the body, from the function's closing brace."""
        return "\n".join(
            textwrap.indent(text, "  " * depth)
            for depth, text in reversed(list(enumerate([*self.closing, self.ending])))
        )

    @property
    def other_files(self) -> str:
        """The definitions in other files, each file after a comment with its path."""
        return "\n\n".join(f"// {path}\n{code}" for path, code in self.others.items())

    @property
    def size(self) -> int:
        """Number of characters of the needed code, without the stub."""
        return sum(map(len, [*self.declarations, *self.opening])) + len(self.other_files)


def js_needed_code(texts: Mapping[str, str], function: JsFunction) -> JsNeededCode:
    """Collect the code that a JavaScript or TypeScript function needs.

    Args:
        texts: texts of the repository's JavaScript and TypeScript files, keyed by path.
        function: the function whose body is masked.
    """
    text = texts[function.file]
    tree = Tree(text, function.file)
    node = function_at(tree, function.start)
    assert node is not None, "the function is in the text"
    names = used_names(tree, node)
    scope = declarations_around(tree, node)
    containers = _containers(node)
    needed = [scope[name] for name in sorted(names & scope.keys()) if not _contains(scope[name].node, node)]
    members = member_uses(tree, node, "this")
    types = {tree.text(item) for item in descend(node) if item.type == "type_identifier"}
    stub, ending = _stub(tree, node, function)
    return JsNeededCode(
        declared_code(tree, needed),
        [_container_head(tree, item, members, node, inner=number > 0) for number, item in enumerate(containers)],
        stub,
        [_last_line(tree, item) for item in containers],
        ending,
        _imported_code(texts, tree, node, function.file, needed),
        names - scope.keys() - KNOWN_GLOBALS - types,
    )


def _contains(outer: Any, inner: Any) -> bool:
    return bool(outer.start_byte <= inner.start_byte and inner.end_byte <= outer.end_byte)


def declared_code(tree: Tree, declarations: Iterable[JsDeclaration]) -> list[str]:
    """Return the code of declarations in the order of the module, each once. Long ones are shortened."""
    parts: dict[int, str] = {}
    for item in declarations:
        node, part = item.node, item.part
        if node.type not in DECLARATIONS:
            continue  # a parameter of the module's wrapper
        if part.id == node.id:
            parts[node.start_byte] = _outline(tree, node)
        elif part.type == "variable_declarator":
            word = tree.between(node.start_byte, node.named_children[0].start_byte)
            parts[part.start_byte] = f"{word}{_outline(tree, part)}".rstrip(";") + ";"
    return [parts[place] for place in sorted(parts)]


def _outline(tree: Tree, node: Any) -> str:
    """Return a declaration: functions without their bodies, classes without the bodies of their methods."""
    text = tree.text(node)
    value = node.child_by_field_name("value") if node.type == "variable_declarator" else node
    if len(text) <= MAX_BODY or value is None:
        return text
    if value.type in FUNCTIONS or value.type in CLASSES:
        return _comment(tree, node) + _without_bodies(tree, node)
    if len(text) <= MAX_VALUE:
        return text
    kept = text[:MAX_VALUE].rpartition("\n")[0] or text[:80]
    return f"{kept}\n  // ..."


def _comment(tree: Tree, node: Any) -> str:
    """Return the first paragraph of the comment above a declaration, with a line end, or ""."""
    outer = node.parent if node.parent is not None and node.parent.type == "export_statement" else node
    above = outer.prev_sibling
    if above is None or above.type != "comment":
        return ""
    text = tree.text(above)
    return f"{text}\n" if len(text) <= MAX_BODY else ""


def _without_bodies(tree: Tree, node: Any) -> str:
    """Return code in which the bodies of functions are replaced by `{ ... }`."""
    bodies = []
    waiting = [node]
    while waiting:
        item = waiting.pop()
        body = item.child_by_field_name("body") if item.type in FUNCTIONS else None
        if body is not None:
            bodies.append((body.start_byte, body.end_byte))
        else:
            waiting += item.children
    parts, place = [], node.start_byte
    for start, end in sorted(bodies):
        parts += [tree.between(place, start), "{ ... }"]
        place = end
    return "".join([*parts, tree.between(place, node.end_byte)])


def _containers(node: Any) -> list[Any]:
    """Return the classes and object literals around a function, the outermost first."""
    containers = []
    outer = node.parent
    while outer is not None and outer.type not in FUNCTIONS:
        if outer.type in CLASSES or outer.type == "object":
            containers.append(outer)
        outer = outer.parent
    return containers[::-1]


def _container_head(tree: Tree, container: Any, members: set[str], function: Any, *, inner: bool) -> str:
    """Return the beginning of a class or object up to its brace, and the members that a method uses by `this`."""
    body = container.child_by_field_name("body") if container.type in CLASSES else container
    beginning = container.parent if container.parent.type == "pair" else container
    head = tree.between((beginning if inner else _statement(container)).start_byte, body.start_byte + 1)
    if head.count("\n") > 2:  # the object is inside of a long call or another object
        head = head.rpartition("\n")[2].strip()
    parts = []
    for child in body.named_children:
        if _contains(child, function):
            continue
        name = (
            child.child_by_field_name("name")
            or child.child_by_field_name("key")
            or child.child_by_field_name("property")
        )
        known = tree.text(name) if name is not None else ""
        if known == "constructor":
            parts.append(_constructor(tree, child, members))
        elif known in members:
            text = tree.text(child)
            parts.append(text if len(text) <= MAX_BODY and child.type != METHOD else _without_bodies(tree, child))
    return head + "".join(f"\n{textwrap.indent(textwrap.dedent(part), '  ')}" for part in parts if part)


def _constructor(tree: Tree, node: Any, members: set[str]) -> str:
    """Return a constructor if it sets a member that is used, or only the statements that set one if it is long."""
    body = node.child_by_field_name("body")
    setters = [
        statement for statement in body.named_children
        if any(re.search(rf"\bthis\.{re.escape(name)}\b", tree.text(statement)) for name in members)
    ]  # fmt: skip
    if not setters:
        return ""
    text = tree.text(node)
    if len(text) <= MAX_VALUE:
        return _aligned(tree, node)
    lines = "".join(f"\n  {tree.text(statement)}" for statement in setters)
    return f"{tree.between(node.start_byte, body.start_byte)}{{\n  // ...{lines}\n}}"


def _aligned(tree: Tree, node: Any) -> str:
    """Return the source of a node whose further lines are indented relative to its first line."""
    line = tree.between(tree.raw.rfind(b"\n", 0, node.start_byte) + 1, node.start_byte)
    margin = line if not line.strip() else ""
    return "\n".join(item.removeprefix(margin) for item in tree.text(node).split("\n"))


def _statement(node: Any) -> Any:
    while node.parent is not None and node.parent.type not in ("program", "statement_block", "class_body"):
        node = node.parent
    return node


def _stub(tree: Tree, node: Any, function: JsFunction) -> tuple[str, str]:
    """Return what is before and after the body of a function, in the function's statement or member."""
    body = node.child_by_field_name("body")
    outer = node
    while outer.parent is not None and outer.parent.type not in ("program", "statement_block", "class_body", "object"):
        outer = outer.parent
    if tree.between(outer.start_byte, body.start_byte).count("\n") > 12:  # the argument of a long call
        outer = node
    line = tree.between(tree.raw.rfind(b"\n", 0, outer.start_byte) + 1, outer.start_byte)
    margin = line if not line.strip() else ""
    text = tree.between(outer.start_byte, body.start_byte + 1)
    doc = f"{function.doc}\n" if function.doc and not text.startswith(function.doc) else ""
    ending = tree.between(body.end_byte - 1, outer.end_byte)
    begin = "\n".join(item.removeprefix(margin) for item in f"{doc}{text}".split("\n"))
    return begin, ending if "\n" not in ending and len(ending) <= 20 else "}"


def _last_line(tree: Tree, container: Any) -> str:
    """Return what closes a class or object: its brace, and the rest of its statement if that is short."""
    rest = tree.between(container.end_byte, _statement(container).end_byte)
    return "}" + (rest if "\n" not in rest and len(rest) <= 10 else "")


def _imported_code(
    texts: Mapping[str, str], tree: Tree, node: Any, file: str, needed: Sequence[JsDeclaration]
) -> dict[str, str]:
    """Return the definitions, in other files of the repository, of the functions that the code imports."""
    resolver = Resolver(texts)
    shown: dict[str, dict[int, str]] = {}
    for item in needed:
        text = tree.text(item.part if item.part.type == "variable_declarator" else item.node)
        names = (
            {item.name}
            | member_uses(tree, node, item.name)
            | set(re.findall(rf"([\w$]+)\s*(?::|as)\s*{re.escape(item.name)}\b", text))
        )
        for source in re.findall(r"""(?:\bfrom\s*|\brequire\s*\(\s*)["']([^"']+)["']""", text):
            for path in resolver.dependencies(file, "javascript", [source]):
                for function in js_functions(path, texts[path]):
                    if function.name.rpartition(".")[2] in names:
                        doc = f"{function.doc}\n" if len(function.doc) <= MAX_BODY and function.doc else ""
                        shown.setdefault(path, {})[function.start] = f"{doc}{_header(function)} {{ ... }}"
    return {path: "\n\n".join(parts[place] for place in sorted(parts)) for path, parts in sorted(shown.items())}


def _header(function: JsFunction) -> str:
    """Return the signature of a function. An unnamed one gets its name."""
    name = function.name.rpartition(".")[2]
    return (
        function.header
        if re.search(rf"\b{re.escape(name)}\s*(?:<|\()", function.header)
        else f"{name} = {function.header}"
    )


def js_prompt(
    repository: str, function: JsFunction, needed: JsNeededCode, tests: str, form: AnswerForm = "function"
) -> str:
    """Return the prompt of a task: a user message that asks for one function.

    Args:
        repository: name of the repository.
        function: the function whose body is masked.
        needed: the code that the function needs.
        tests: code of the tests to show, or "".
        form: what the model is asked to write.
    """
    language = "typescript" if function.file.endswith(TYPESCRIPT) else "javascript"
    word = "TypeScript" if language == "typescript" else "JavaScript"
    parts = [request_for(function.name, function.file, repository, form, word)]
    if needed.others:
        parts.append(f"Other files of the repository have:\n\n{code_block(needed.other_files, language)}")
    shown = f"{needed.head}\n{needed.indentation}{MASK_LINE}\n{needed.tail}"
    parts.append(f"`{function.file}`:\n\n{code_block(shown, language)}")
    if tests:
        parts.append(f"Among its tests are:\n\n{code_block(tests, language)}")
    return "\n\n".join(parts)


def js_code_before(function: JsFunction, needed: JsNeededCode) -> str:
    """Return the code up to the body: definitions of other files, then the function's module."""
    head = f"{needed.head}\n"
    return f"{needed.other_files}\n\n// {function.file}\n{head}" if needed.others else head


def js_code_of_tests(texts: Mapping[str, str], names: Sequence[str], characters: int) -> str:
    """Return the code of tests, with the declarations of their files that they need.

    Args:
        texts: texts of the test files, keyed by path.
        names: identifiers of the tests (`file::suite > title`), the most important ones first.
        characters: maximum number of characters. Tests that would exceed the limit are left out, except the first test
            if it has at most twice as many characters.
    """
    chosen: dict[str, list[str]] = {}
    text = ""
    for name in dict.fromkeys(names):
        file = name.partition("::")[0]
        longer = {**chosen, file: [*chosen.get(file, []), name]}
        code = "\n\n".join(
            filter(None, (_tests_of_file(texts.get(path, ""), path, ids) for path, ids in longer.items()))
        )
        if code != text and len(code) <= (characters if chosen else 2 * characters):
            chosen, text = longer, code
    return text


def _tests_of_file(text: str, path: str, names: Sequence[str]) -> str:
    tree, known = _test_calls(text, path)
    calls = [known[title] for title in map(_title, names) if title in known]
    needed: dict[str, JsDeclaration] = {}
    for call in calls:
        scope = declarations_around(tree, call)
        needed |= {name: scope[name] for name in used_names(tree, call) & scope.keys()}
    parts = declared_code(
        tree, [item for item in needed.values() if not any(_contains(item.node, call) for call in calls)]
    )
    sources = {call.start_byte: f"{_aligned(tree, call)};" for call in calls}
    return "\n\n".join([joined(parts), *(sources[place] for place in sorted(sources))]) if calls else ""


def _title(name: str) -> str:
    """Return the title of a test, which its identifier (`file::suite > title`) ends with."""
    return name.partition("::")[2].rpartition(" > ")[2]


@lru_cache(maxsize=32)
def _test_calls(text: str, path: str) -> tuple[Tree, dict[str, Any]]:
    """Return the parsed test file, and the calls that define tests (`test('title', ...)`), keyed by title."""
    tree = Tree(text, path)
    calls: dict[str, Any] = {}
    for node in descend(tree.root):
        arguments = node.child_by_field_name("arguments") if node.type == "call_expression" else None
        if arguments is not None and arguments.named_child_count > 1:
            first = arguments.named_children[0]
            if first.type in ("string", "template_string"):
                calls.setdefault(tree.text(first)[1:-1], node)
    return tree, calls


def js_rank_of_tests(texts: Mapping[str, str], function: str, names: Iterable[str]) -> dict[str, tuple[bool, int]]:
    """Return a rank for each test. Tests that name the function come first, and short tests before long ones.

    Args:
        texts: texts of the test files, keyed by path.
        function: name of the function, without its class.
        names: identifiers of the tests.
    """
    ranks: dict[str, tuple[bool, int]] = {}
    for name in names:
        path = name.partition("::")[0]
        tree, calls = _test_calls(texts.get(path, ""), path)
        call = calls.get(_title(name))
        source = tree.text(call) if call is not None else ""
        ranks[name.partition("[")[0]] = (not re.search(rf"\b{re.escape(function)}\b", source), len(source) or 1 << 30)
    return ranks
