"""Imports point one way, and the light rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A room may import rooms of a lower number, and its own. Shared rooms at the bottom are imported by all.
ROOMS = {
    "alignment.cli": 9,
    "benchmarks.chain_overhead": 9,  # a command that measures the rooms below
    "alignment.chain.conductor": 8,
    "alignment.report": 7,
    "alignment.tracking.weights_and_biases": 6,  # the stages log through it
    "alignment.stages": 6,
    "alignment.chain": 6,
    "alignment.chain.processes": 4,
    "alignment.chain.artifacts": 1,  # atomic writes, which all rooms need
    "alignment.rewards.builtin": 5,
    "alignment.evaluation": 4,
    "alignment.export": 4,
    "data_builders": 4,
    "alignment.grading": 3,
    "benchmarks.sandbox_speed": 8,  # a command that measures the rooms above
    "alignment.sandbox": 2,
    "alignment.models.formats": 1,
    "alignment.rows.reading": 1,
}


def room(module: str) -> int | None:
    names = [name for name in ROOMS if module == name or module.startswith(f"{name}.")]
    return ROOMS[max(names, key=len)] if names else None


def top_level_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = sorted([*ROOT.glob("alignment/**/*.py"), *ROOT.glob("data_builders/**/*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_a_room_above_its_own(path):
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return
    above = [name for name in top_level_imports(path) if (other := room(name)) is not None and other > own]
    assert not above


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
def test_light_rooms_load_without_torch(module):
    code = f"import sys, {module}; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_file_is_too_long_to_read_at_one_sitting():
    long = {str(path.relative_to(ROOT)) for path in MODULES if len(path.read_text().splitlines()) > 500}
    assert not long
