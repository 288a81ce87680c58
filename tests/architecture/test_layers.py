"""Every import, also inside functions, is from the own layer of a module or from a lower layer."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the top down. A module belongs to the longest name that it begins with; modules of one layer may import each
# other.
LAYERS = [
    {"benchmarks"},
    {"alignment.cli"},
    {"alignment.ui"},
    {"alignment.report"},
    {"alignment.chain"},
    {"alignment.stages"},
    {"alignment.drafting"},
    {"alignment.planning"},
    {"alignment.launch"},
    {"alignment.tracking"},
    {"alignment.provenance"},
    {"alignment.tokenization"},
    {"alignment.recipe"},
    {"data_builders"},
    {"alignment.export"},
    {"alignment.rewards"},
    {"alignment.evaluation"},
    {"alignment.environments"},
    {"alignment.grading"},
    {"alignment.rows"},
    {"alignment.models"},
    {"alignment.sandbox"},
    {"alignment.processes"},
    {
        "alignment",
        "alignment.cache",
        "alignment.extensions",
        "alignment.files",
        "alignment.fingerprints",
        "alignment.installation",
        "alignment.listening",
        "alignment.logs",
        "alignment.progress",
        "alignment.settings",
        "alignment.settings_help",
        "alignment.wording",
    },
]
LAYER_OF = {name: len(LAYERS) - number for number, names in enumerate(LAYERS) for name in names}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(path): path
    for folder in ("alignment", "data_builders", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def layer_name(module: str) -> str:
    names = [name for name in LAYER_OF if module == name or (module.startswith(f"{name}.") and name != "alignment")]
    assert names, f"{module} belongs to no layer: add it to LAYERS"
    return max(names, key=len)


def imports(path: Path) -> list[tuple[int, str]]:
    """Return (line, module) of every import of the project's own modules, also inside functions."""
    modules: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                modules.append((node.lineno, submodule if submodule in FILES else node.module))
    return [(line, module) for line, module in modules if module in FILES]


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_module_imports_only_its_own_layer_and_lower_ones(module):
    layer = LAYER_OF[layer_name(module)]
    upward = [
        f"{FILES[module].relative_to(ROOT)}:{line} imports {other}"
        for line, other in imports(FILES[module])
        if LAYER_OF[layer_name(other)] > layer
    ]
    assert not upward


def test_no_two_modules_import_each_other_in_a_circle():
    edges = {module: {other for _, other in imports(path)} - {module} for module, path in FILES.items()}
    remaining = dict(edges)
    while leaves := [module for module, others in remaining.items() if not others & remaining.keys()]:
        for module in leaves:
            del remaining[module]
    # What is left imports, directly or not, a module of a circle; packages' own __init__ files are edges too.
    assert not remaining
