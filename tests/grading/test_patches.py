"""Patches in git's form: what is written can be applied, as git applies it, and wrong patches are refused."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.grading.patches import PatchError, apply_patch, patch_of
from alignment.grading.withheld_tests import withheld_by_file, without_tests

LINES = st.lists(
    st.sampled_from(["a\n", "b\n", "c\n", "-- x\n", "++ y\n", "\n", " \n", "\\ d\n", "@@ -1 +1 @@\n", "e\r\n"]),
    max_size=12,
)
CONTENT = st.none() | st.builds(
    lambda lines, end: ("".join(lines) + end).encode(), LINES, st.sampled_from(["", "z", "é"])
)
FILES = st.dictionaries(st.sampled_from(["a.py", "d/b c.py", "d/é.txt", 'q"uote']), CONTENT, min_size=1)


@settings(max_examples=150, deadline=None)
@given(before=FILES, after=FILES)
def test_a_written_patch_gives_the_files_back(before, after):
    before = {path: before.get(path) for path in {*before, *after}}
    after = {path: after.get(path, content) for path, content in before.items()}
    changed = {path: content for path, content in after.items() if content != before[path]}
    assert apply_patch(patch_of(before, after), before.get) == changed


def test_git_applies_a_written_patch_and_a_patch_of_git_is_read(tmp_path):
    before = {"kept.py": b"a\nb\nc\n", "sub/gone.py": b"x\ny", "blank.py": b"", "na me.py": b"1\n2\n"}
    after = {
        "kept.py": b"a\nB\nc",
        "sub/gone.py": None,
        "new/made.py": b"n\n",
        "empty.py": b"",
        "na me.py": b"1\n3\n",
        "blank.py": None,
    }
    for path, content in before.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)

    def git(*arguments, text=None):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, input=text, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "before")
    git("apply", "--index", text=patch_of(before, after))
    assert {path for path in git("ls-files").split("\n") if path} == {
        path for path, content in after.items() if content is not None
    }
    for path, content in after.items():
        assert content is None or (tmp_path / path).read_bytes() == content
    assert apply_patch(git("diff", "--cached", "--no-renames", "HEAD"), before.get) == after


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/f\n+++ b/f\n@@ -7,9 +1,2 @@ def f\n b\n-c\n+C\n",  # wrong numbers and counts
        "--- f\n+++ f\n@@ -2,2 +2,2 @@\n b\n-c\n+C",  # no prefixes, no line end
        "text before\ndiff --git a/f b/f\nindex 1..2 100644\n--- a/f\t2020\n+++ b/f\t2020\n@@ -3 +3 @@\n-c\n+C\n-- \n2.40\n",
    ],
)
def test_patches_that_models_and_tools_write_are_applied(patch):
    assert apply_patch(patch, {"f": b"a\nb\nc\n"}.get) == {"f": b"a\nb\nC\n"}


def test_of_several_places_the_nearest_one_is_changed():
    content = b"x\ny\n" * 5
    assert apply_patch("--- a/f\n+++ b/f\n@@ -6,1 +6,1 @@\n-y\n+Y\n", {"f": content}.get) == {
        "f": b"x\ny\n" * 2 + b"x\nY\n" + b"x\ny\n" * 2
    }


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("hello", "not a patch"),
        ("--- a/f\n+++ b/f\n@@ nonsense\n", "head of a hunk"),
        ("@@ -1 +1 @@\n-a\n+b\n", "comes before"),
        ("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-q\n+b\n", "does not fit"),
        ("--- a/g\n+++ b/g\n@@ -1 +1 @@\n-q\n+b\n", "no such file"),
        ("--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+b\n", "exists already"),
        ("--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "does not remove all"),
        ("--- a/f\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n", "renames"),
        ("--- /dev/null\n+++ /dev/null\n", "both sides"),
        ("diff --git a/f b/g\nrename from f\nrename to g\n", "not supported"),
        ("diff --git a/f b/f\nold mode 100644\nnew mode 100755\n", "not supported"),
        ("diff --git a/f b/f\nBinary files a/f and b/f differ\n", "not supported"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_with_the_reason(patch, message):
    with pytest.raises(PatchError, match=message):
        apply_patch(patch, {"f": b"a\nb\n"}.get)


def test_withheld_tests_are_cut_out_and_the_file_stays_valid():
    source = "import pytest\n\n@pytest.mark.x\n@y(\n    1,\n)\ndef test_a():\n    pass\n\ndef test_b(): pass\n\nclass TestC:\n    def test_d(self):\n        pass\n\n    class TestE:\n        async def test_f(self): pass\n"
    names = ["t.py::test_a[1]", "t.py::TestC::test_d", "t.py::TestC::TestE::test_f", "t.py::test_b[1]"]
    wanted = withheld_by_file(names, ["t.py::test_b[2]"])
    assert wanted == {"t.py": {"test_a", "TestC::test_d", "TestC::TestE::test_f"}}
    left = without_tests(source, wanted["t.py"])
    compile(left, "t.py", "exec")
    assert "test_b" in left and not any(name in left for name in ("test_a", "test_d", "test_f", "mark", "@y"))
    assert without_tests("def test_a(:", {"test_a"}) == ""
