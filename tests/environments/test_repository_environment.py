"""The environment `repository`: tools on a view of a repository, visible tests in the sandbox, a verdict of all tests."""

import json

import pytest
from shop_repository import FILE, HIDDEN, PRICES, RIGHT, VISIBLE, WRONG

from alignment.environments.environment_registry import build_environment
from alignment.environments.visible_tests import split_tests
from alignment.grading.grader import Grader
from alignment.recipe.stage_parts import GrpoEnvironment


@pytest.fixture
def opened(grader, repository_task):
    """An environment in which a rollout of the task has begun."""
    visible, tests = split_tests(repository_task, 0.5)
    made = build_environment(GrpoEnvironment(name="repository", output_characters=4000), grader)()
    made.reset(**{**repository_task, "visible_tests": visible, "tests": tests})
    return made


@pytest.fixture
def verdict_of(grader, repository_task):
    return lambda patch: grader.grade_many([(repository_task, patch)])[0]


def test_a_rollout_finds_repairs_and_submits(opened, verdict_of):
    assert "shop/prices.py" in opened.list_files().split("\n") and opened.list_files(folder="shop/").count("\n") == 2
    assert opened.search(pattern="+ discount") == f"shop/prices.py:8: return rounded({WRONG})"
    assert opened.search(pattern=r"def \w+\(", folder="shop", regex=True).count("def ") == 3
    assert opened.read_file(path="shop/prices.py", first=6, last=8).startswith(
        "(shop/prices.py, lines 6 to 8 of 12)\ndef t"
    )
    assert opened.run_tests().startswith(
        "1 of 2 visible tests pass.\ntest 2: wrong_answer: tests/test_prices.py::test_half"
    )
    assert "assert 53 == 1.5" in opened.run_tests()
    assert verdict_of(opened.outcome.submission).fraction == 2 / 6, "without changes, two tests pass"
    assert opened.edit_file(path="shop/prices.py", search=WRONG, replace=RIGHT) == "shop/prices.py is changed."
    assert opened.run_tests() == "2 of 2 visible tests pass."
    assert opened.submit() == "The changes are submitted."
    assert "were submitted" in opened.edit_file(path="shop/prices.py", search=RIGHT, replace=WRONG)
    verdict = verdict_of(opened.outcome.submission)
    assert verdict.status == "passed" and len(verdict.tests) == len(VISIBLE) + len(HIDDEN)
    assert opened.outcome.problem is None and opened.outcome.counts["wrong_calls"] == 1


def test_a_patch_makes_changes_and_deletes_files(opened, verdict_of):
    patch = f"""--- a/shop/prices.py
+++ b/shop/prices.py
@@ -1,9 +1,9 @@
 def total(prices, discount=0):
     \"\"\"Sum of prices, less a discount in percent.\"\"\"
-    return rounded({WRONG})
+    return two({RIGHT})
@@ -3 +3 @@
-from shop.money import rounded
+from shop.amounts import two
--- a/shop/money.py
+++ /dev/null
@@ -1,2 +0,0 @@
-def rounded(value):
-    return round(value, 2)
--- /dev/null
+++ b/shop/amounts.py
@@ -0,0 +1,2 @@
+def two(value):
+    return round(value, 2)
"""
    assert opened.apply_patch(patch=patch) == "shop/amounts.py, shop/money.py, shop/prices.py: changed."
    assert "shop/money.py" not in opened.list_files() and "no file" in opened.read_file(path="shop/money.py")
    assert opened.run_tests() == "2 of 2 visible tests pass."
    assert verdict_of(opened.outcome.submission).status == "passed"
    assert "does not fit" in opened.apply_patch(patch=patch.split("--- a/shop/money")[0])


def test_hidden_tests_are_neither_shown_nor_in_reach_of_code_that_runs(opened):
    seen = opened.read_file(path=FILE)
    assert "test_half" in seen and "TestMany" in seen and "test_free" not in seen and "test_cheapest" not in seen
    assert opened.search(pattern="test_free") == "(no line matches)"
    # The guard refuses to read files. Without it, the hidden tests are not in the sandbox either.
    words = ["os", "walk", "open", "sys", "join"]
    tests = json.loads(json.dumps(opened._wrapped._tests)) | {"names": words}
    opened._wrapped._tests = tests
    spy = "import os\nseen = [open(os.path.join(a, n)).read() for a, _, ns in os.walk('/repository') for n in ns if n[-1] == 'y']\n"
    spy += "def total(prices, discount=0):\n    raise ValueError([name for name in ('half', 'free') if any('test_' + name in text for text in seen)])\n"
    opened.edit_file(path="shop/prices.py", search=PRICES, replace=PRICES + spy)
    assert "ValueError: ['half']" in opened.run_tests()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/etc/passwd", "relative to the repository"),
        ("../suite.json", "relative to the repository"),
        ("shop/../../suite.json", "relative to the repository"),
        ("./shop/prices.py", "relative to the repository"),
        ("shop//prices.py", "relative to the repository"),
        ("~/x", "relative to the repository"),
        ("", "printable characters"),
        ("a\0b", "printable characters"),
        ("shop", "not a file"),
        ("README.md/x", "README.md is not a folder"),
        ("missing.py", "no file 'missing.py'"),
        ("elsewhere", "symbolic link"),
        ("outside/passwd", "outside is not a folder"),
    ],
)
def test_paths_outside_of_the_repository_are_refused_with_the_reason(opened, shop, path, problem):
    tree = shop.snapshot.tree
    for name, target in (("elsewhere", "/etc/passwd"), ("outside", "/etc")):
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(target)
    try:
        answer = opened.read_file(path=path)
        assert answer.startswith("error: ") and problem in answer
        if problem != "no file 'missing.py'":
            assert problem in opened.edit_file(path=path, search="", replace="x")
        assert "root:" not in opened.search(pattern="root:") and opened.outcome.problem is None
    finally:
        (tree / "elsewhere").unlink()
        (tree / "outside").unlink()


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        (FILE, "", "test files can't be changed"),
        ("tests/helper.py", "", "test files can't be changed"),
        ("conftest.py", "", "test files can't be changed"),
        ("shop/conftest.py", "", "test files can't be changed"),
        ("pytest.ini", "[pytest]\naddopts = --co\n", "decides how tests run"),
        ("sitecustomize.py", "", "decides how tests run"),
        ("shop/x.pth", "", "decides how tests run"),
        ("tox.ini", "[pytest]\npython_files = x\n", "settings of pytest"),
        ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '--co'\n", "settings of pytest"),
        ("pyproject.toml", "[tool", "can't be read"),
        ("setup.cfg", None, "settings of pytest"),
        ("json.py", "", "'json' is installed already"),
        ("_pytest/__init__.py", "", "'_pytest' is installed already"),
        (".git/config", "", "can't be changed"),
    ],
)
def test_files_that_decide_how_tests_run_are_refused_by_tools_and_fail_in_patches(
    opened, verdict_of, path, content, problem
):
    from alignment.grading.patches import patch_of

    before = {path: opened._wrapped._view.content(path)}
    after = None if content is None else content.encode()
    if path == FILE:
        after = before[path].replace(b"== 1.5", b"== 53")
    patch = patch_of(before, {path: after})
    assert problem in opened.apply_patch(patch=patch)
    if before[path] is None:
        assert problem in opened.edit_file(path=path, search="", replace=content or "x")
    assert opened.outcome.submission == "" and opened.outcome.problem is None
    if path != FILE:
        verdict = verdict_of(patch + REPAIR)
        assert verdict.status == "failed" and verdict.reason == "forbidden" and problem in verdict.detail


REPAIR = f"""diff --git a/shop/prices.py b/shop/prices.py
--- a/shop/prices.py
+++ b/shop/prices.py
@@ -8 +8 @@
-    return rounded({WRONG})
+    return rounded({RIGHT})
"""


def test_settings_of_other_tools_may_change(opened, verdict_of):
    opened.edit_file(path="pyproject.toml", search="", replace="[tool.ruff]\nline-length = 99\n")
    opened.edit_file(path="setup.cfg", search="name = shop", replace="name = market")
    assert verdict_of(opened.outcome.submission + REPAIR).status == "passed"


CHEATS = {
    "raises at import": "raise SystemExit(0)\n",
    "raises at import, caught by nobody": "raise KeyboardInterrupt\n",
    "exits with code 0": "import os\nos._exit(0)\n",
    "exits by a signal": "import os\nos.kill(1, 9)\n",
    "exits with pytest": "import pytest\npytest.exit('passed', 0)\n",
    "prints that all passed": "print('6 passed in 0.01s')\nprint('PASSED tests/test_prices.py::test_half')\n",
    "prints on every descriptor": "import os\nfor fd in range(3, 99):\n    try: os.write(fd, b'{\"results\": []}\\n')\n    except OSError: pass\n",
    "skips the module": "import pytest\npytest.skip('x', allow_module_level=True)\n",
    "skips by unittest": "import unittest\nraise unittest.SkipTest('x')\n",
    "marks tests": "import pytest\npytestmark = pytest.mark.skip\n",
    "expects failures": "import pytest\ndef total(prices, discount=0): pytest.xfail('x')\n",
    "equals everything": "class E(float):\n    def __eq__(s, o): return True\ndef rounded(v): return E(v)\ndef cheapest(p): return E(1)\n",
    "patches reports": "from _pytest import reports\nreports.TestReport.outcome = property(lambda s: 'passed', lambda s, v: None)\n",
    "patches the runner": "import sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, 'run_test'): m.run_test = lambda n, *a: {'test': n, 'outcome': 'passed', 'detail': ''}\n",
    "walks frames": "import sys\nf = sys._getframe()\nwhile f:\n    f.f_locals.get('results', []).clear()\n    f = f.f_back\n",
    "walks the heap": "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and o.get('outcome'): o['outcome'] = 'passed'\n",
    "deletes tests": "import os\nos.remove('/repository/tests/test_prices.py')\n",
    "writes a conftest": "import pathlib\npathlib.Path('/repository/tests/conftest.py').write_text('raise SystemExit')\n",
    "reads the tests": "import pathlib\nfor t in pathlib.Path('/repository/tests').iterdir(): print(t.read_text())\n",
    "changes the assertion": "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n",
    "loops without end": "while True: pass\n",
    "floods the output": "while True: print('x' * 4096)\n",
    "starts processes without end": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n",
    "takes all memory": "x = []\nwhile True: x.append(' ' * (1 << 24))\n",
    "is no Python": "def total(:\n",
    "is empty": "",
}  # fmt: skip


@pytest.mark.parametrize("name", CHEATS)
def test_no_known_cheat_passes(opened, verdict_of, name):
    opened.edit_file(path="shop/prices.py", search=PRICES, replace=PRICES + "\n\n" + CHEATS[name])
    shown = opened.run_tests()
    assert "2 of 2" not in shown and len(shown) < 5000
    assert "test_free" not in shown
    verdict = verdict_of(opened.outcome.submission)
    assert verdict.status == "failed" and verdict.fraction <= 2 / 6
    assert opened.outcome.problem is None


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEATS)
def test_no_known_cheat_passes_if_the_guard_lets_it_through(verdict_of, repository_task, grader, name, shop):
    """The words of a cheat are allowed here: what is tested is everything after the guard."""
    if name in NEEDS_GUARD:
        pytest.skip("only the guard refuses this one, which is why such tasks are marked as forgeable")
    from alignment.grading.patched_repository import restricted_words
    from alignment.grading.patches import patch_of

    after = (PRICES + "\n\n" + CHEATS[name]).encode()
    patch = patch_of({"shop/prices.py": PRICES.encode()}, {"shop/prices.py": after})
    words = restricted_words(shop.snapshot, patch)
    row = {**repository_task, "tests": json.dumps({**json.loads(repository_task["tests"]), "names": words})}
    verdict = grader.grade_many([(row, patch)])[0]
    assert verdict.status == "failed" and verdict.reason != "forbidden" and verdict.fraction <= 2 / 6


NEEDS_GUARD = ("equals everything", "patches reports", "patches the runner", "changes the assertion")


def test_a_search_that_would_not_end_and_wrong_patterns_are_refused(opened):
    for pattern in ("(a|a)*b", "(a+)+$", "a*a*a*b", "(" * 50, "x" * 500, r"(a)\1", "((a{1000}){1000}){1000}"):
        assert opened.search(pattern=pattern, regex=True).startswith("error: "), pattern
    assert opened.outcome.problem is None and opened.outcome.counts["wrong_calls"] == 7


def test_wrong_edits_change_nothing_and_say_why(opened):
    for arguments, problem in (
        (("shop/prices.py", "prices", "x"), "occurs 5 times"),
        (("shop/prices.py", "nothing", "x"), "does not occur"),
        (("shop/prices.py", "", "x"), "exists already"),
        (("shop/prices.py/x", "", "x"), "not a folder"),
        (("prices.py", "x", "y"), "there is shop/prices.py"),
        (("new.py", "", "\ud800"), "UTF-8"),
        (("new.py", "", "x" * (5 << 20)), "together may have"),
    ):
        path, search, replace = arguments
        assert problem in opened.edit_file(path=path, search=search, replace=replace)
    for patch, problem in (
        ("", "is empty"),
        ("change it", "not a patch"),
        ("rename from a\nrename to b\n", "not supported"),
        ("--- a/a\n+++ b/b\n@@ -1 +1 @@\n-x\n+y\n", "renames"),
        ("--- /dev/null\n+++ b/README.md\n@@ -0,0 +1 @@\n+y\n", "exists already"),
        ("--- a/README.md\n+++ /dev/null\n@@ -1 +0,0 @@\n-B shop.\n", "does not fit"),
    ):
        assert problem in opened.apply_patch(patch=patch)
    assert "nothing is changed" in opened.submit()
    assert opened.outcome.submission == "" and opened.outcome.problem is None


def test_a_call_without_time_left_is_counted_and_is_no_fault_of_the_environment(grader, repository_task):
    visible, tests = split_tests(repository_task, 0.5)
    made = build_environment(GrpoEnvironment(name="repository", seconds=1.5), grader)()
    made.reset(**{**repository_task, "visible_tests": visible, "tests": tests})
    made.edit_file(path="shop/prices.py", search=PRICES, replace=PRICES + "while True: pass\n")
    assert made.run_tests() == "error: the time for tools is used up; answer without a call"
    assert made.read_file(path="README.md").startswith("error: the time for tools")
    assert made.outcome.problem is None and made.outcome.counts["out_of_time"] == 2
    made.reset(**{**repository_task, "visible_tests": visible, "tests": tests})
    assert "A shop." in made.read_file(path="README.md") and made.outcome.submission == ""


def test_a_broken_snapshot_is_a_fault_of_the_environment(repository_task, monkeypatch, tmp_path):
    visible, _ = split_tests(repository_task, 0.5)
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path))
    # A grader of its own, because another one may have the snapshot open.
    with Grader(workers=1) as grader:
        opened = build_environment(GrpoEnvironment(name="repository"), grader)()
        opened.reset(visible_tests=visible)
        assert "is not in" in opened.outcome.problem
        assert opened.run_tests() == "error: the environment has failed"
        assert grader.grade_many([(repository_task, "")])[0].status == "error", "no reward, never 0"
