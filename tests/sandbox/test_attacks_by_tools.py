"""The hostile programs of the sandbox's tests, written into a repository by tool calls: none passes, none reaches the machine."""

import json

import pytest

from alignment.environments.environment_registry import build_environment
from alignment.grading.patched_repository import restricted_words
from alignment.grading.patches import patch_of
from alignment.recipe.stage_parts import GrpoEnvironment

from .hostile_hosts import BOILERPLATE, REACH
from .hostile_rewards import AGAINST_ASSERTS

pytestmark = pytest.mark.slow
BEFORE = "def f(x):\n    return None\n"
TESTS = """from square import f


def test_two():
    assert f(2) == 4


def test_three():
    assert f(3) == 9


def test_float():
    assert abs(f(1.5) - 2.25) < 1e-6


def test_sign():
    assert f(-1) != 0 and not f(0)
"""
OTHER = {"modules_of_the_trainer", "credentials_of_the_trainer"}
"""pytest is loaded in the process of the tests; and an attack that closes the channel of the report only fails itself."""
NAMES = [f"tests/test_square.py::test_{name}" for name in ("two", "three", "float", "sign")]


@pytest.fixture(scope="module")
def square(tmp_path_factory, grader):
    """A repository with one function, and a task to write the function."""
    from data_builders.repositories.sources import resolve
    from data_builders.tasks.python.python_suite import prepare_suite

    folder = tmp_path_factory.mktemp("work") / "square"
    (folder / "tests").mkdir(parents=True)
    (folder / "square.py").write_text(BEFORE)
    (folder / "tests" / "test_square.py").write_text(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(tmp_path_factory.mktemp("suites")))
        yield prepare_suite(resolve([str(folder)])[0])


def task_of(suite, **more):
    tests = {"suite": suite.id, "visible": NAMES[:1], "hidden": NAMES[1:], **more}
    return {"kind": "repository", "language": "python", "tests": json.dumps(tests)}


def rollout(grader, suite, program):
    made = build_environment(GrpoEnvironment(name="repository"), grader)()
    tests = {"suite": suite.id, "visible": NAMES[:1], "hidden": [], "withheld": NAMES[1:]}
    made.reset(visible_tests=json.dumps(tests))
    made.edit_file(path="square.py", search=BEFORE, replace=program)
    made.run_tests()
    made.submit()
    return made


def test_an_honest_change_passes(grader, square):
    made = rollout(grader, square, "def f(x):\n    return x * x\n")
    assert grader.grade_many([(task_of(square), made.outcome.submission)])[0].status == "passed"


@pytest.mark.parametrize("name", AGAINST_ASSERTS)
def test_no_hostile_program_passes(grader, square, name):
    made = rollout(grader, square, AGAINST_ASSERTS[name])
    assert made.outcome.problem is None
    verdict = grader.grade_many([(task_of(square), made.outcome.submission)])[0]
    assert verdict.status == "failed" and verdict.fraction < 1, verdict


@pytest.mark.parametrize("name", sorted(REACH.keys() - OTHER))
def test_the_host_is_out_of_reach(grader, square, name):
    attack = (
        f"ATTACK = {REACH[name]!r}\n{BOILERPLATE}\ndef f(x):\n    raise ValueError('WON' if won else 'contained')\n"
    )
    patch = patch_of({"square.py": BEFORE.encode()}, {"square.py": attack.encode("utf-8", "surrogatepass")})
    words = restricted_words(square.snapshot, patch)  # allowed here: what is tested is everything after the guard
    verdict = grader.grade_many([(task_of(square, names=words), patch)])[0]
    assert verdict.status == "failed" and "ValueError: contained" in verdict.detail, verdict
