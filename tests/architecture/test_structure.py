"""Limits on the sizes of files and functions, on names, and on what is imported at the start."""

import ast
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path for folder in ("alignment", "data_builders", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "module",
    [
        "alignment.cli",
        "alignment.recipe",
        "alignment.chain.conductor",
        "alignment.grading",
        "alignment.export",
        "data_builders",
    ],
)
def test_light_packages_load_without_torch(module):
    code = f"import sys, {module}; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_file_has_more_than_400_lines():
    assert not [relative(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400]


def test_no_function_has_more_than_80_lines_and_the_median_is_under_12():
    lengths = {
        f"{relative(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
    }
    assert not {name: length for name, length in lengths.items() if length > 80}
    assert statistics.median(lengths.values()) < 12


def test_no_two_modules_have_the_same_name():
    places = defaultdict(list)
    for path in FILES:
        if path.name not in ("__init__.py", "__main__.py"):
            places[path.stem].append(relative(path))
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def test_no_two_public_classes_have_the_same_name():
    places = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{relative(path)}:{node.lineno}")
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_of_others(tree: ast.Module) -> list[str]:
    """Return the private names of other modules of the project that a file imports or reads."""
    modules: set[str] = set()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("alignment", "data_builders")):
            names += [f"line {node.lineno}: {alias.name}" for alias in node.names if private(alias.name)]
            modules |= {alias.asname or alias.name for alias in node.names if not alias.name[:1].isupper()}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and private(node.attr)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            names.append(f"line {node.lineno}: {node.value.id}.{node.attr}")
    return names


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=relative)
def test_no_private_name_of_another_module_is_used(path):
    assert not private_names_of_others(ast.parse(path.read_text(encoding="utf-8")))
