"""Changes the syntax tree of test code so that every assert is recorded, and analyses which tests the code defines.

An assert that is a direct statement of the module or of a function counts as one test. It is wrapped in
``with __record__:``, so that the rest of the code still runs if the assert fails. An assert inside a loop or another
block is not a separate test: only the number of such asserts that pass is recorded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
RUNNERS = ("unittest.main", "pytest.main", "doctest.testmod", "testmod")
"""Names of functions that run the tests of `__main__`. Calls of these functions are removed, because the tester runs
the tests."""
XUNIT_FUNCTIONS = ("setup_module", "teardown_module", "setup_function", "teardown_function", "setup", "teardown")


def is_main_block(statement: ast.stmt) -> bool:
    """Whether a statement is ``if __name__ == "__main__":``."""
    if not isinstance(statement, ast.If) or not isinstance(statement.test, ast.Compare):
        return False
    sides = [statement.test.left, *statement.test.comparators]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    constants = [side.value for side in sides if isinstance(side, ast.Constant)]
    return names == ["__name__"] and constants == ["__main__"] and isinstance(statement.test.ops[0], ast.Eq)


def _is_runner(statement: ast.stmt) -> bool:
    """Whether a statement only starts a test runner, for example ``pytest.main()`` or ``sys.exit(pytest.main())``."""
    value: ast.expr | None = None
    if isinstance(statement, ast.Expr | ast.Assign):
        value = statement.value
    elif isinstance(statement, ast.Raise):
        value = statement.exc
    if not isinstance(value, ast.Call):
        return False
    if ast.unparse(value.func) in RUNNERS:
        return True
    is_exit = ast.unparse(value.func) in ("sys.exit", "exit", "quit", "SystemExit")
    return is_exit and any(isinstance(item, ast.Call) and ast.unparse(item.func) in RUNNERS for item in value.args)


def inline_main_blocks(module: ast.Module) -> ast.Module:
    """Replace every ``__main__`` block by the statements inside it, and remove calls of test runners."""
    body: list[ast.stmt] = []
    for statement in module.body:
        body += statement.body if is_main_block(statement) and isinstance(statement, ast.If) else [statement]
    module.body = [statement for statement in body if not _is_runner(statement)]
    return module


def module_definitions(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    """Yield the functions and classes of a module, including those inside `if`, `try`, `with` and loops."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement
            continue
        for block in ("body", "orelse", "finalbody"):
            yield from module_definitions(getattr(statement, block, []))
        for handler in getattr(statement, "handlers", []):
            yield from module_definitions(handler.body)


def needs_pytest(module: ast.Module) -> bool:
    """Whether the tests have to be run by pytest.

    This is the case if a test function is `async` or has parameters or decorators, if a test class has no base class,
    or if there are tests and the code imports pytest or defines one of `XUNIT_FUNCTIONS`.
    """
    tests, imports_pytest, prepares = False, False, False
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            imports_pytest |= any(alias.name.partition(".")[0] == "pytest" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports_pytest |= (node.module or "").partition(".")[0] == "pytest"
    for node in module_definitions(module.body):
        if isinstance(node, ast.ClassDef):
            if node.name.startswith("Test") and not node.bases:
                return True
            tests |= node.name.startswith("Test")
        elif node.name.startswith("test"):
            tests = True
            if has_parameters(node) or node.decorator_list or isinstance(node, ast.AsyncFunctionDef):
                return True
        else:
            prepares |= node.name in XUNIT_FUNCTIONS
    return tests and (imports_pytest or prepares)


def has_parameters(node: Function) -> bool:
    """Whether a function takes arguments."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return bool(named or arguments.vararg or arguments.kwarg)


def can_fail(module: ast.Module, entered: set[str]) -> bool:
    """Whether the code that ran contains a check: `raise`, `assert`, or a call such as ``assert_equal(...)``.

    The code that ran is the top level of the module and the functions in `entered`.

    Args:
        module: The test code.
        entered: Names of the functions of the test code that were called.
    """
    definitions = set(module_definitions(module.body))
    pending: list[ast.AST] = [module]
    while pending:
        node = pending.pop()
        if node in definitions and (isinstance(node, ast.ClassDef) or getattr(node, "name", "") not in entered):
            continue
        if isinstance(node, ast.Raise | ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2].lstrip("_").lower()
            if name.startswith(("assert", "raises", "fail")):
                return True
        pending += ast.iter_child_nodes(node)
    return False


class Recorded(ast.NodeTransformer):
    """Rewrites test code: wraps or counts every assert outside classes, and makes every function record its calls.

    Args:
        pytest_runs: Whether pytest runs the test functions. If so, the asserts of test functions are not changed,
            because a failed assert has to end its test.
    """

    def __init__(self, pytest_runs: bool) -> None:
        self.pytest_runs = pytest_runs

    def transform(self, module: ast.Module) -> ast.Module:
        functions = [node for node in module_definitions(module.body) if not isinstance(node, ast.ClassDef)]
        module.body = self._statements(module.body)
        for function in functions:
            place = 1 if ast.get_docstring(function, clean=False) is not None else 0
            function.body.insert(place, _call("entered", ast.Constant(function.name)))
        return ast.fix_missing_locations(module)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        return [node, ast.copy_location(_call("count"), node)]

    def _function(self, node: Function) -> ast.AST:
        if node.decorator_list or (self.pytest_runs and node.name.startswith("test")):
            return node
        if node.name.startswith("_"):
            return self.generic_visit(node)
        node.body = self._statements(node.body)
        return node

    def _statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        statements: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.Assert):
                context = ast.withitem(ast.Name("__record__", ast.Load()))
                statements.append(ast.copy_location(ast.With([context], [statement]), statement))
                continue
            new = self.visit(statement)
            statements += new if isinstance(new, list) else [new]
        return statements


def _call(method: str, *arguments: ast.expr) -> ast.Expr:
    """Return the statement ``__record__.method(arguments)``."""
    function = ast.Attribute(ast.Name("__record__", ast.Load()), method, ast.Load())
    return ast.Expr(ast.Call(function, list(arguments), []))
