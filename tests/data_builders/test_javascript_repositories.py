"""Tasks from JavaScript and TypeScript repositories: many runners, workspaces, methods, unusable tests."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder, write_files
from javascript_shop import FILES, LINKS, METHOD_HACKS

from alignment.grading import node_guard
from alignment.sandbox.toolchains import NoToolchain, toolchain
from data_builders.tasks.validation import TaskSettings

pytestmark = pytest.mark.slow
MODULES = "ALIGN_NODE_MODULES"


@contextlib.contextmanager
def empty_snapshot_store(factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty store of snapshots, so that everything is made again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(factory.mktemp("suites")))
        yield


def build_tasks(folder: Path, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (rows by place, account) of a repository."""
    run_builder("tasks", out, sources=[folder], settings=TaskSettings(forgeable_share=1.0, mutants=2))
    rows = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
    account = json.loads((out / "account.json").read_text())
    return {row["id"].partition("/")[2]: row for row in rows}, account[f"{folder.name} (javascript)"]


def build_tasks_afresh(folder: Path, factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """`build_tasks`, with an empty store of snapshots."""
    with empty_snapshot_store(factory):
        return build_tasks(folder, factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def node() -> str:
    try:
        return toolchain("javascript").tool
    except NoToolchain as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shop(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "shop"
    write_files(folder, FILES)
    for place, target in LINKS.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target)
    return folder


@pytest.fixture(scope="module")
def built(shop: Path, tmp_path_factory: pytest.TempPathFactory, grader: Any) -> Any:
    with empty_snapshot_store(tmp_path_factory):
        yield build_tasks(shop, tmp_path_factory.mktemp("tasks"))


def test_functions_of_every_form_become_tasks_of_the_best_possible_tier(built: Any) -> None:
    tiers = {row["entry_point"]: "B" if row["forgeable"] else "A" for row in built[0].values()}
    assert tiers == {
        "constructor": "B",
        "add": "B",
        "total": "B",
        "memo": "A",
        "totals": "A",
        "clamp": "A",
        "steps": "B",
    }


def test_functions_covered_by_two_tests_become_tasks_or_are_counted_by_reason(built: Any) -> None:
    account = built[1]
    assert account["covered_by_two"] == account["valid"] + sum(account["dropped_of_covered"].values())
    assert account["valid"] == account["tier_a"] + account["tier_b"] == len(built[0])


def test_unusable_tests_are_counted_by_reason(built: Any) -> None:
    outcomes = built[1]["outcomes"]
    assert {key: count for key, count in outcomes.items() if key != "passed"} == {
        "ends_the_process_or_hangs": 1, "failed": 1, "needs_a_browser": 1, "needs_network_or_database": 1, "skipped": 1,
        "slow": 1, "writes_into_the_repository": 1,
    }  # fmt: skip


def test_the_advice_names_missing_packages_and_broken_files(built: Any) -> None:
    lines = "\n".join(built[1]["advice"])
    assert "Cannot find module 'not-there'" in lines and "npm install" in lines
    assert "web.spec.js" in lines and "1 tests need the network" in lines


def test_references_pass_and_masked_functions_fail(built: Any, grader: Any) -> None:
    for row in built[0].values():
        masked = row["reference"].partition("{")[0] + "{ throw new Error('no'); }"
        verdicts = grader.grade_many([(row, row["reference"]), (row, masked)])
        assert [verdict.status for verdict in verdicts] == ["passed", "failed"], (row["id"], verdicts)


def test_a_second_build_gives_the_same_tasks(
    built: Any, shop: Path, tmp_path_factory: pytest.TempPathFactory, grader: Any
) -> None:
    assert build_tasks_afresh(shop, tmp_path_factory)[0] == built[0]


def row_of(built: Any, name: str) -> dict[str, Any]:
    return next(row for row in built[0].values() if row["entry_point"] == name)


@pytest.mark.parametrize("name", METHOD_HACKS)
def test_no_known_hack_passes_in_tier_b(built: Any, grader: Any, name: str) -> None:
    (verdict,) = grader.grade_many([(row_of(built, "total"), f"total() {{\n{METHOD_HACKS[name]}\n}}")])
    assert verdict.status == "failed", verdict


@pytest.mark.parametrize(
    "program",
    [
        "total() { return this.items.reduce((sum, item) => sum + item.price, 0); }",
        "class Basket {\n  total() {\n    return this.items.reduce((sum, item) => sum + item.price, 0);\n  }\n}",
        "  let sum = 0;\n  for (const { price } of this.items) sum += price;\n  return sum;",
        "const plus = (a, b) => a + b;\nclass Basket { total() { return this.items.map((i) => i.price).reduce(plus, 0); } }",
    ],
    ids=["method", "in its class", "body", "with a helper"],
)
def test_honest_answers_pass_in_every_form(built: Any, grader: Any, program: str) -> None:
    assert grader.grade_many([(row_of(built, "total"), program)])[0].status == "passed"


MATCHERS = "{ %s: () => true }"


@pytest.mark.parametrize("key", ["asymmetricMatch", "valueOf", "equals", "isEqualNode", "then"])
def test_no_returned_object_controls_its_comparison(built: Any, grader: Any, key: str) -> None:
    program = f"function totals(baskets, each) {{ return {MATCHERS % key}; }}"
    (verdict,) = grader.grade_many([(row_of(built, "totals"), program)])
    assert verdict.status == "failed", verdict


def test_the_test_files_are_empty_when_a_candidate_runs_in_their_process(built: Any, grader: Any) -> None:
    """The test files are empty even if the guard of restricted words is switched off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_guard, "restricted_words", lambda *_: set())
        seen = (
            "const fs = require('fs');\nconst all = ['/repository/packages/basket/test/basket.js', '/tmp/.replaced/0', '/tmp/.replaced/1', '/tmp/align.json'];\n"
            "const text = all.map((p) => { try { return fs.readFileSync(p, 'utf8'); } catch { return ''; } }).join('');\n"
            "if (text.includes('has a ' + 'total') || text.includes('non' + 'ce')) return -1;\nlet s = 0; for (const i of this.items) s += i.price; return s;"
        )
        (verdict,) = grader.grade_many([(row_of(built, "total"), f"total() {{\n{seen}\n}}")])
    assert verdict.status == "passed", verdict


TYPED: dict[str, str | bytes] = {
    "package.json": '{"name": "typed", "devDependencies": {"mocha": "*", "typescript": "*"}}',
    "tsconfig.json": '{\n  // paths\n  "compilerOptions": {"paths": {"~lib/*": ["src/*"],}}\n}',
    "src/shapes/index.ts": "export * from './area';\n",
    "src/shapes/area.ts": "export interface Box { width: number; height: number }\nenum Unit { One = 1 }\n\n"
    "export function area(box: Box, times?: number): number {\n  const scale: number = times ?? Unit.One;\n  return box.width * box.height * scale;\n}\n\n"
    "export class Shape<T extends Box> {\n  constructor(private readonly box: T) {}\n\n  isFlat(limit = 1): boolean {\n    return this.box.height < limit;\n  }\n}\n",
    "test/area.spec.ts": "import { strict as assert } from 'assert';\nimport { area, Shape } from '~lib/shapes';\nimport type { Box } from '../src/shapes/area';\n\n"
    "const box: Box = { width: 2, height: 3 };\ndescribe('area', () => {\n  it('of a box', () => assert.equal(area(box), 6));\n"
    "  it('twice', () => { assert.equal(area(box, 2), 12); });\n  it('flat', () => assert.equal(new Shape(box).isFlat(), false));\n"
    "  it('flat enough', () => assert.equal(new Shape(box).isFlat(4), true));\n});\n",
}  # fmt: skip


def test_typescript_is_transformed_and_graded(node: str, tmp_path_factory: pytest.TempPathFactory, grader: Any) -> None:
    try:
        toolchain("typescript")
    except NoToolchain as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("sources") / "typed"
    write_files(folder, TYPED)
    rows, account = build_tasks_afresh(folder, tmp_path_factory)
    assert {(row["entry_point"], row["language"], row["forgeable"]) for row in rows.values()} == {
        ("area", "typescript", False), ("isFlat", "typescript", True),
    }, account  # fmt: skip


EXPECT = {
    "jest": "const { sum } = require('../sum');\nconst each = jest.fn((n) => n);\n",
    "vitest": "import { expect, test, vi } from 'vitest';\nimport { sum } from '../sum';\nconst each = vi.fn((n) => n);\n",
}
SUITE = """
test.each([[[1, 2], 3], [[], 0]])('sum of %j', (values, expected) => expect(sum(values, each)).toBe(expected));
test('calls', () => { each.mockClear(); sum([1, 2], each); expect(each).toHaveBeenCalledTimes(2); });
test('objects', () => expect({ sum: sum([1], each) }).toEqual({ sum: expect.any(Number) }));
test('mocks', () => { LIBRARY.useFakeTimers(); sum([], each); });
test('snapshot', () => { expect(sum([], each)).toMatchSnapshot(); });
"""


@pytest.mark.parametrize("language", ["javascript", "typescript"])
@pytest.mark.parametrize("library", ["jest", "vitest"])
def test_the_installed_assertions_of_jest_and_vitest_are_used(
    node: str, tmp_path_factory: pytest.TempPathFactory, grader: Any, library: str, language: str
) -> None:
    modules = Path(os.environ.get(MODULES, "/")) / "node_modules"
    if not (modules / {"jest": "expect", "vitest": "vitest"}[library]).is_dir():
        pytest.skip(f"{library} is not installed: ${MODULES} names a folder where npm install jest vitest was run")
    folder = tmp_path_factory.mktemp("sources") / library
    package = json.dumps({"name": "x", "devDependencies": {library: "*"}})
    body = "function (values, each) {\n  let total = 0;\n  for (const value of values) total += each(value);\n  return total;\n}"
    source = f"exports.sum = {body};\n" if library == "jest" else f"export const sum = {body};\n"
    suite = EXPECT[library] + SUITE.replace("LIBRARY", "jest" if library == "jest" else "vi")
    files: dict[str, str | bytes] = {"package.json": package, "sum.js": source, "test/sum.test.js": suite}
    if language == "typescript":
        typed = body.replace("(values, each)", "(values: readonly number[], each: (value: number) => number): number")
        suite = suite.replace("const { sum } = require('../sum')", "import { sum } from '../sum'")
        suite = suite.replace("(n) =>", "(n: number): number =>").replace(
            "(values, expected)", "(values: number[], expected: number)"
        )
        files = {"package.json": package, "sum.ts": f"export const sum = {typed};\n", "test/sum.test.ts": suite}
    write_files(folder, files)
    (folder / "node_modules").symlink_to(modules)
    rows, account = build_tasks_afresh(folder, tmp_path_factory)
    assert account["outcomes"]["passed"] == 4, account
    assert [(row["entry_point"], row["language"]) for row in rows.values()] == [("sum", language)]
    assert any("useFakeTimers of their runner" in text for text in account["advice"])
