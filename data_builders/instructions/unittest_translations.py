"""Make instructions of the kind `translate`: rewrite a `unittest` test method as a function for pytest.

Assertions are replaced in the source text, so that quotes, comments and line breaks stay as the repository has them.
Tests that need their class (set-up, helpers, subtests) and assertions without a plain counterpart are left out.
"""

from __future__ import annotations

import ast
import random
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from data_builders.instructions.instruction_kinds import Draft, Rejected
from data_builders.instructions.wordings import wording
from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.python_functions import SourceLines, parse
from data_builders.tasks.python.python_suite import is_test_file

MAX_PER_FILE = 25
"""Maximum number of translated tests of one file, so that a large suite does not outweigh the other kinds."""
_FORMS = {
    "assertEqual": "{0} == {1}", "assertEquals": "{0} == {1}", "assertNotEqual": "{0} != {1}", "assertIs": "{0} is {1}",
    "assertIsNot": "{0} is not {1}", "assertIn": "{0} in {1}", "assertNotIn": "{0} not in {1}",
    "assertTrue": "{0}", "assertFalse": "not {0}", "assertIsNone": "{0} is None",
    "assertIsNotNone": "{0} is not None", "assertGreater": "{0} > {1}", "assertLess": "{0} < {1}",
    "assertGreaterEqual": "{0} >= {1}", "assertLessEqual": "{0} <= {1}", "assertListEqual": "{0} == {1}",
    "assertDictEqual": "{0} == {1}", "assertSetEqual": "{0} == {1}", "assertTupleEqual": "{0} == {1}",
    "assertMultiLineEqual": "{0} == {1}", "assertIsInstance": "isinstance({0}, {1})",
    "assertNotIsInstance": "not isinstance({0}, {1})",
}  # fmt: skip
"""Maps a method of `unittest.TestCase` to the expression of a plain assertion."""
_RAISING = {
    "assertRaises": "raises",
    "assertRaisesRegex": "raises",
    "assertRaisesRegexp": "raises",
    "assertWarns": "warns",
}
_LOOSE = (
    ast.Compare, ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr, ast.Yield, ast.YieldFrom, ast.Starred,
)  # fmt: skip
"""Expressions that need brackets as an operand of a comparison."""
SET_UP = frozenset(
    (
        "setUp",
        "setUpClass",
        "tearDown",
        "tearDownClass",
        "asyncSetUp",
        "asyncTearDown",
        "run",
        "__init__",
        "setup_method",
    )
)


def translations(repository: str, commit: str, texts: Mapping[str, str], seed: int) -> Iterator[Draft | Rejected]:
    """Yield instructions to rewrite `unittest` test methods as functions for pytest, at most `MAX_PER_FILE` per file."""
    for path, text in sorted(texts.items()):
        tree = parse(text) if path.endswith(".py") and is_test_file(path) else None
        if tree is None:
            continue
        results = list(_of_file(f"{repository}@{commit[:12]}:{path}", path, text, tree, seed))
        drafts = [result for result in results if isinstance(result, Draft)]
        yield from (result for result in results if isinstance(result, Rejected))
        if len(drafts) > MAX_PER_FILE:
            yield from [Rejected("above_per_file")] * (len(drafts) - MAX_PER_FILE)
            chosen = random.Random(f"{seed}:{path}").sample(range(len(drafts)), MAX_PER_FILE)
            drafts = [drafts[place] for place in sorted(chosen)]
        yield from drafts


def _of_file(place: str, path: str, text: str, tree: ast.Module, seed: int) -> Iterator[Draft | Rejected]:
    """Yield one result for each test of a file whose assertions can be translated."""
    for owner in tree.body:
        for node in owner.body if isinstance(owner, ast.ClassDef) else ():
            if not isinstance(owner, ast.ClassDef) or not isinstance(node, ast.FunctionDef):
                continue
            after = as_function(text, node) if node.name.startswith("test") else ""
            if after and not _is_plain_class(tree, owner):
                yield Rejected("test_needs_its_class")
            elif after:
                source = f"{place}:{owner.name}.{node.name}"
                bases = ", ".join(ast.unparse(item) for item in owner.bases)
                method = textwrap.dedent("\n".join(text.split("\n")[node.lineno - 1 : node.end_lineno]))
                before = f"class {owner.name}({bases}):\n{textwrap.indent(method, '    ')}"
                ask = wording("translate", source, seed, {"name": node.name, "file": path})
                yield Draft("translate", ask, code_block(before), code_block(after), source)


def _is_plain_class(tree: ast.Module, owner: ast.ClassDef) -> bool:
    """Whether a class derives from `TestCase` alone, and nothing prepares its tests."""
    names = {item.name for item in owner.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    module = {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
    bases = [ast.unparse(item).rpartition(".")[2] for item in owner.bases]
    return bases == ["TestCase"] and not names & SET_UP and not module & {"setUpModule", "tearDownModule"}


def as_function(text: str, method: ast.FunctionDef) -> str:
    """Return a test method as a function for pytest, with `import pytest` if it is needed.

    Return "" if no assertion is translated, or if the test needs its class.
    """
    if method.decorator_list or len(method.args.args) != 1 or method.args.vararg or method.args.kwarg:
        return ""
    own = method.args.args[0].arg
    code = textwrap.dedent("\n".join(text.split("\n")[method.lineno - 1 : method.end_lineno]))
    contexts = _edited(code, own, _Edits.collect_contexts)
    assertions = _edited(contexts.code, own, _Edits.collect_assertions)
    if contexts.is_refused or (not contexts.changes and not assertions.changes):
        return ""
    code = re.sub(rf"^(\s*def\s+\w+\s*\(\s*){own}\b\s*,?\s*", r"\1", assertions.code)
    tree = parse(code)
    words = {item.id for item in ast.walk(tree) if isinstance(item, ast.Name)} if tree else {own}
    if words & {own, "super", "__class__"}:
        return ""
    return f"import pytest\n\n\n{code}" if contexts.needs_pytest or assertions.needs_pytest else code


def _edited(code: str, own: str, collect: Callable[[_Edits, ast.AST], None]) -> _Edits:
    """Apply one kind of replacement to the code of a method."""
    edits = _Edits(code, own)
    tree = parse(code)
    if tree is not None:
        collect(edits, tree)
    return edits


@dataclass
class _Edits:
    """Replacements in the text of a test file that turn one method into a function."""

    text: str
    own: str
    """Name of the method's first parameter."""
    changes: list[tuple[int, int, str]] = field(default_factory=list)
    """Start offset, end offset and new text of each replacement."""
    needs_pytest: bool = False
    is_refused: bool = False
    """Whether the method uses something that pytest does not have."""

    def __post_init__(self) -> None:
        self.lines = SourceLines(self.text)

    @property
    def code(self) -> str:
        """The code with all replacements."""
        code = self.text
        for start, end, new in sorted(self.changes, reverse=True):
            code = code[:start] + new + code[end:]
        return code

    def collect_contexts(self, tree: ast.AST) -> None:
        """Collect the replacements of `with self.assertRaises(...)`, and of the exception that its variable holds."""
        contexts: set[str] = set()
        for node in ast.walk(tree):
            for item in node.items if isinstance(node, ast.With) else ():
                if call := self._assertion(item.context_expr):
                    self._context(call)
                    if isinstance(item.optional_vars, ast.Name):
                        contexts.add(item.optional_vars.id)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in contexts:
                end = self.lines.span(node)[1]
                if node.attr == "exception":
                    self.changes.append((end - len(node.attr), end, "value"))
                else:
                    self.is_refused = True  # for example `warning`, which pytest has under another name

    def collect_assertions(self, tree: ast.AST) -> None:
        """Collect the replacements of assertions. Assertions that can't be replaced stay, and still use `self`."""
        for node in ast.walk(tree):
            call = self._assertion(node.value) if isinstance(node, ast.Expr) else None
            if isinstance(node, ast.Expr) and call is not None and (new := self._plain(call, node.col_offset)):
                self.changes.append((*self.lines.span(node), new))

    def _assertion(self, node: ast.expr) -> ast.Call | None:
        """Return the call of an assertion method of the test's class, or None."""
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            return node if node.func.value.id == self.own else None
        return None

    def _plain(self, call: ast.Call, column: int) -> str:
        """Return the statement that replaces an assertion, or "" if there is none."""
        assert isinstance(call.func, ast.Attribute)
        name, arguments = call.func.attr, list(call.args)
        message = ""
        form = _FORMS.get(name, "")
        count = 2 if "{1}" in form else 1
        keywords = {item.arg: item.value for item in call.keywords}
        if any(isinstance(item, ast.Starred) for item in arguments) or keywords.keys() - {"msg"}:
            return ""
        if name in _RAISING and len(arguments) >= 2 and not keywords:
            return self._raises(call, column)
        if not form:
            return self._almost_equal(arguments) if name == "assertAlmostEqual" and not keywords else ""
        if len(arguments) == count + 1:
            keywords["msg"] = arguments.pop()
        if len(arguments) != count:
            return ""
        if "msg" in keywords:
            message = f", {self._source(keywords['msg'])}"
        parts = [_moved_left(self._operand(item, form), column) for item in arguments]
        text = form.format(*parts)
        if name == "assertFalse" and (opposite := self._opposite(arguments[0])):
            text = opposite
        if form == "{0} == {1}" and isinstance(arguments[1], ast.Constant) and arguments[1].value is None:
            text = f"{parts[0]} is None"
        return f"assert {self._bracketed(text)}{message}"

    def _opposite(self, node: ast.expr) -> str:
        """Return the opposite of a test with `in` or `is`, which reads better than a test with `not` in front."""
        opposites = {ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is"}
        operator = opposites.get(type(node.ops[0])) if isinstance(node, ast.Compare) and len(node.ops) == 1 else None
        if operator is None or not isinstance(node, ast.Compare):
            return ""
        return f"{self._source(node.left)} {operator} {self._source(node.comparators[0])}"

    def _raises(self, call: ast.Call, column: int) -> str:
        """Return a `with` statement for an assertion that calls a function."""
        assert isinstance(call.func, ast.Attribute)
        expected, *rest = call.args
        match = f", match={self._source(rest.pop(0))}" if "Regex" in call.func.attr else ""
        if not rest or any("\n" in self._source(item) for item in rest):
            return ""
        function, *arguments = rest
        if isinstance(function, ast.Lambda) and not arguments:
            statement = self._source(function.body)
        elif isinstance(function, ast.Name | ast.Attribute):
            statement = f"{self._source(function)}({', '.join(map(self._source, arguments))})"
        else:
            return ""
        self.needs_pytest = True
        indent = " " * (column + 4)
        return f"with pytest.{_RAISING[call.func.attr]}({self._source(expected)}{match}):\n{indent}{statement}"

    def _context(self, call: ast.Call) -> None:
        """Replace `self.assertRaises` in a `with` statement."""
        assert isinstance(call.func, ast.Attribute)
        name = call.func.attr
        regex = "Regex" in name
        if name not in _RAISING or call.keywords or len(call.args) != 1 + regex:
            return
        self.needs_pytest = True
        parts = [self._source(item) for item in call.args]
        match = f", match={parts[1]}" if regex else ""
        self.changes.append((*self.lines.span(call), f"pytest.{_RAISING[name]}({parts[0]}{match})"))

    def _almost_equal(self, arguments: list[ast.expr]) -> str:
        if len(arguments) not in (2, 3):
            return ""
        left, right = (self._operand(item, "{0} - {1}") for item in arguments[:2])
        places = self._source(arguments[2]) if len(arguments) == 3 else "7"
        return f"assert round({left} - {right}, {places}) == 0"

    def _source(self, node: ast.expr) -> str:
        start, end = self.lines.span(node)
        text = self.text[start:end]
        # The brackets of a generator expression that is the only argument belong to the call.
        return f"({text})" if isinstance(node, ast.GeneratorExp) and not text.startswith("(") else text

    def _operand(self, node: ast.expr, form: str) -> str:
        text = self._source(node)
        is_alone = form in ("{0}", "isinstance({0}, {1})", "not isinstance({0}, {1})")
        is_negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        is_operand_of_not = form == "not {0}" and isinstance(node, ast.Compare)
        loose = (isinstance(node, _LOOSE) and not is_operand_of_not) or (is_negation and form != "not {0}")
        loose = loose or (form == "{0} - {1}" and isinstance(node, ast.BinOp))
        return f"({text})" if loose and not is_alone else text

    def _bracketed(self, text: str) -> str:
        """Put an expression in brackets if it would end at its first line break."""
        return text if "\n" not in text or parse(f"assert {text}") is not None else f"({text})"


def _moved_left(text: str, column: int) -> str:
    """Move the later lines of an argument to the left, so that its last line begins at a column."""
    first, *lines = text.split("\n")
    if not lines or '"""' in text or "'''" in text:
        return text
    shift = len(lines[-1]) - len(lines[-1].lstrip()) - column
    if shift <= 0 or any(line[:shift].strip() for line in lines):
        return text
    return "\n".join([first, *(line[shift:] for line in lines)])
