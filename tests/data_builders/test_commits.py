"""History as training data."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path

import pytest
from corpus_helpers import MakeRepository, code, commit, git, run_builder

from alignment.rows import reading as row_files
from data_builders.commit_messages import subject_and_body
from data_builders.commits import window


@pytest.fixture
def history(repository: MakeRepository) -> Path:
    folder = repository({"a.py": code("alpha", 60), "b.py": code("beta")})
    changed = code("alpha", 60).replace("alpha_30 = ", "alpha_30 = 2 * ")
    commit(
        folder,
        "fix: Double the thirtieth step of alpha (#12)\n\nIt was too small.\n\nSigned-off-by: A <a@b.example>",
        {"a.py": changed},
    )
    commit(folder, "Bump version of everything to two", {"a.py": changed + "# two\n"})
    commit(folder, "Revert the change of the last commit", {"a.py": changed + "# three\n"})
    commit(
        folder,
        "Update the module through our own robot",
        {"a.py": changed + "# four\n"},
        author="renovate[bot] <bot@x.example>",
    )
    commit(folder, "tiny", {"a.py": changed + "# five\n"})
    commit(folder, "Changed the wording of a comment again", {"a.py": changed + "# six\n"})
    commit(
        folder,
        "Change two files in one single commit",
        {"a.py": changed + "# seven\n", "b.py": code("beta") + "# seven\n"},
    )
    commit(folder, "Add one more module to the project", {"c.py": code("gamma")})
    git(folder, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(folder, "Work on the side branch of this project", {"d.py": code("delta")})
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "Merge the side branch into the main one", "side")
    return folder


def test_only_good_commits_become_rows_and_the_rest_is_counted(history: Path, tmp_path: Path) -> None:
    report = run_builder("commits", tmp_path / "out", sources=[history])
    assert dict(sorted(report["commits_left_out"].items())) == {
        "added_or_deleted": 2,
        "bot": 1,
        "many_files": 1,
        "merge_bump_or_revert": 2,
        "not_imperative": 1,
        "short_subject": 1,
    }
    (row,) = row_files.read(tmp_path / "out")
    user, assistant = row["messages"]
    assert user["content"].startswith(
        "Double the thirtieth step of alpha\n\nIt was too small.\n\n`a.py`:\n\n```python\n"
    )
    assert "2 * alpha" not in user["content"] and "alpha_30 = 2 * alpha_step_30" in assistant["content"]


def test_documents_hold_the_message_and_the_difference(history: Path, tmp_path: Path) -> None:
    run_builder("commits", tmp_path / "out", sources=[history], form="document")
    (row,) = row_files.read(tmp_path / "out")
    assert (
        row["kind"] == "commit"
        and "\n-    alpha_30 = alpha_step_30" in row["text"]
        and "\n+    alpha_30 = 2 * " in row["text"]
    )


def test_a_secret_in_history_reaches_no_row(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": code("alpha") + 'password = "tr0ub4dor&3"\n'})
    commit(
        folder, "Use a longer step in alpha, tr0ub4dor&3", {"a.py": code("alpha", 13) + 'password = "tr0ub4dor&3"\n'}
    )
    commit(folder, "Remove the password from the source again", {"a.py": code("alpha", 13)})
    for form in ("conversation", "document"):
        run_builder("commits", tmp_path / form, sources=[folder], form=form)  # type: ignore[arg-type]
        rows = list(row_files.read(tmp_path / form))
        assert rows and "tr0ub4dor" not in str(rows) and "REDACTED_PASSWORD_1" in str(rows)


def test_the_oldest_commits_of_a_shallow_clone_are_left_out(history: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--depth", "3", f"file://{history}", str(tmp_path / "shallow")], check=True)
    report = run_builder("commits", tmp_path / "out", sources=[tmp_path / "shallow"])
    assert report["rows"] == 0
    assert report["commits"]["read"] < run_builder("commits", tmp_path / "all", sources=[history])["commits"]["read"]


def test_prefixes_issue_numbers_and_trailers_are_removed() -> None:
    assert subject_and_body("feat(api)!: add the new route (#7)\n\nWhy.\n\nCo-authored-by: X <x@y.example>") == (
        "Add the new route",
        "Why.",
    )
    assert subject_and_body("net/http: close the idle connections") == ("Close the idle connections", "")


def test_the_window_has_31_lines_around_a_change_of_one_line() -> None:
    before = "\n".join(str(number) for number in range(100))
    part = window(before, before.replace("50", "fifty"), 31)
    assert part is not None
    assert part[0].split("\n") == [str(number) for number in range(35, 66)] and part[2] == 1


def test_a_plain_folder_has_no_commits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a git repository"):
        run_builder("commits", tmp_path / "out", sources=[tmp_path])


@pytest.mark.parametrize(
    ("licenses", "rows"), [({"deny": ["GPL-3.0"]}, 0), ({"allow": ["MIT"]}, 0), ({"allow": ["GPL-3.0"]}, 1), ({}, 1)]
)
def test_commits_obey_the_license_policy(
    licenses: dict[str, list[str]], rows: int, history: Path, tmp_path: Path
) -> None:
    commit(history, "License", {"LICENSE": "GNU General Public License\nVersion 3, 29 June 2007\n"})
    report = run_builder("commits", tmp_path / "out", sources=[history], licenses=licenses)  # type: ignore[arg-type]
    assert report["rows"] == rows and report["commits_left_out"].get("license", 0) == 1 - rows
    assert {row["license"] for row in row_files.read(tmp_path / "out")} == ({"GPL-3.0"} if rows else set())


def test_a_huge_file_in_history_is_left_out_and_never_held_in_memory(
    repository: MakeRepository, tmp_path: Path
) -> None:
    folder = repository({"big.py": "x = 1\n" * 10_000_000})
    commit(folder, "Shorten the module to what is used", {"big.py": code("alpha")})
    commit(folder, "Take one more step in the alpha module", {"big.py": code("alpha", 13)})
    tracemalloc.start()
    report = run_builder("commits", tmp_path / "out", sources=[folder])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report["commits_left_out"] == {"long_file": 1} and report["rows"] == 1
    assert peak < 30_000_000
