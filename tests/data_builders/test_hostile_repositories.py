"""Hostile repositories run no program and lead to no other path; damaged ones are read or refused with an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import MakeRepository, code, commit, git, run_builder

from alignment.rows import reading as row_files
from data_builders.builder_registry import find_builder
from data_builders.repositories import sources
from data_builders.repositories.remote_git import clone

HOOKS = ("post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc", "post-rewrite", "fsmonitor-watchman",
         "pre-receive", "update", "post-update", "proc-receive", "post-receive", "pre-commit", "post-merge")  # fmt: skip
PROGRAMS = (
    "core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.pager", "core.editor", "core.askPass",
    "core.alternateRefsCommand", "diff.external", "diff.evil.command", "diff.evil.textconv", "filter.evil.clean",
    "filter.evil.smudge", "filter.evil.process", "merge.evil.driver", "gpg.program", "gpg.ssh.program", "gpg.x509.program",
    "credential.helper", "uploadpack.packObjectsHook", "remote.origin.uploadpack", "remote.origin.receivepack",
    "interactive.diffFilter", "sequence.editor", "trailer.evil.command", "tar.evil.command", "pager.ls-tree",
    "pager.cat-file", "pager.rev-list", "pager.diff-tree",
)  # fmt: skip
SHELL = (
    "alias.ls-tree",
    "alias.cat-file",
    "alias.diff-tree",
    "alias.rev-parse",
    "alias.rev-list",
    "submodule.evil.update",
)
FLAGS = {"log.showSignature": "true", "protocol.ext.allow": "always", "protocol.allow": "always", "diff.evil.cachetextconv": "true",
         "extensions.partialClone": "origin", "remote.origin.promisor": "true", "core.repositoryFormatVersion": "1",
         "filter.evil.required": "true", "core.untrackedCache": "true", "uploadpack.allowFilter": "true"}  # fmt: skip


def plant_programs(folder: Path, canaries: Path) -> None:
    """Configure a program for every known setting by which git runs one. Each leaves a file in `canaries`."""
    canaries.mkdir()

    def program(name: str) -> str:
        script = canaries.parent / "programs" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\ntouch '{canaries}/{name}'\nexit 1\n")
        script.chmod(0o755)
        return str(script)

    common = folder / ".git"
    for key in PROGRAMS:
        git(folder, "config", key, program(key))
    for key in SHELL:
        git(folder, "config", key, f"!{program(key)}")
    address = f"ext::{program('ext')} %S"
    git(folder, "config", "remote.origin.url", address)
    git(folder, "config", f"url.{address}.insteadOf", "https://")
    git(folder, "config", "submodule.evil.url", address)
    (folder / ".gitmodules").write_text(f'[submodule "evil"]\n\tpath = evil\n\turl = {address}\n')
    (folder / ".gitattributes").write_text("* diff=evil filter=evil merge=evil export-subst ident\n")
    (common / "info" / "attributes").write_text("* diff=evil filter=evil merge=evil\n")
    included = canaries.parent / "included"
    included.write_text(f"[core]\n\tfsmonitor = {program('included')}\n[diff]\n\texternal = {program('included')}\n")
    git(folder, "config", "include.path", str(included))
    for place in (common / "hooks", canaries.parent / "hooks"):
        place.mkdir(exist_ok=True)
        for name in HOOKS:
            (place / name).write_text(f"#!/bin/sh\ntouch '{canaries}/hook-{name}'\n")
            (place / name).chmod(0o755)
    for key, value in FLAGS.items():
        git(folder, "config", key, value)
    git(folder, "config", "core.hooksPath", str(canaries.parent / "hooks"))


@pytest.fixture
def hostile(repository: MakeRepository, tmp_path: Path) -> tuple[Path, Path]:
    """A repository with all planted programs and a missing object, and the folder where a program that runs leaves a
    file.
    """
    folder = repository({"a.py": code("alpha"), "gone.py": code("gone")}, name="hostile")
    for number in range(3):
        commit(folder, f"Make the first module take {number} more steps", {"a.py": code("alpha", 14 + number)})
    body = "\n".join(f"\tstock{number} := count(shelf{number}, {number})" for number in range(12))
    commit(folder, "Count what lies in the shelves", {"b.go": f"package shop\n\nfunc Stock() {{\n{body}\n}}\n"})
    missing = git(folder, "rev-parse", "HEAD:gone.py")
    (folder / ".git" / "objects" / missing[:2] / missing[2:]).unlink()
    plant_programs(folder, tmp_path / "canaries")
    return folder, tmp_path / "canaries"


def test_the_planted_programs_run_with_plain_git(hostile: tuple[Path, Path]) -> None:
    folder, canaries = hostile
    for arguments in (
        ["status"],
        ["log", "-p", "--ext-diff"],
        ["cat-file", "-p", "HEAD:gone.py"],
        ["checkout", "-q", "HEAD~1"],
    ):
        subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True)
    ran = {path.name for path in canaries.iterdir()}
    assert "included" in ran or "core.fsmonitor" in ran
    assert "ext" in ran or "remote.origin.uploadpack" in ran


def test_scanning_a_hostile_repository_runs_no_planted_program(
    hostile: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, canaries = hostile
    monkeypatch.chdir(folder)
    report = run_builder("corpus", tmp_path / "corpus", sources=[folder])
    assert {row["path"] for row in row_files.read(tmp_path / "corpus")} == {"a.py", "b.go"}
    assert report["removed"] == {"unreadable": 1}
    run_builder("commits", tmp_path / "commits", sources=[folder], seed=0)
    run_builder(
        "private_benchmark", tmp_path / "held", sources=[{"path": str(folder), "held_out": 0.2}], executable=False
    )
    corpus = find_builder("corpus")
    assert corpus.input_state is not None
    corpus.input_state(corpus.validate({"sources": [str(folder), f"file://{folder}"]}))
    with pytest.raises(ValueError, match="could not clone"):
        clone(f"file://{folder}", tmp_path / "clones")  # an object is missing, and no remote is asked for it
    with pytest.raises(ValueError, match="could not clone ssh://localhost:9"):
        clone(
            "ssh://localhost:9/tool.git", tmp_path / "clones"
        )  # the working directory holds another program called ssh
    assert list(canaries.iterdir()) == []


def test_environment_variables_do_not_redirect_git(
    repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = repository({"a.py": code("alpha")}), repository({"b.py": code("beta")}, name="other")
    trap = tmp_path / "ran"
    for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, str(other / ".git"))
    for name in ("GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_PAGER", "GIT_EDITOR"):
        monkeypatch.setenv(name, f"touch {trap}")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {trap}")
    run_builder("corpus", tmp_path / "out", sources=[folder])
    assert {row["path"] for row in row_files.read(tmp_path / "out")} == {"a.py"} and not trap.exists()


def rows(source: Any, out: Path) -> set[str]:
    run_builder("corpus", out, sources=[source])
    return {row["path"] for row in row_files.read(out)}


def test_a_worktree_a_submodule_and_alternates_are_read(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": code("alpha")})
    git(folder, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    commit(tmp_path / "tree", "Add another module on the side", {"b.py": code("beta")})
    assert rows(tmp_path / "tree", tmp_path / "one") == {"a.py", "b.py"}
    git(tmp_path, "clone", "-q", "--shared", str(folder), "borrower")
    assert rows(tmp_path / "borrower", tmp_path / "two") == {"a.py"}
    outer = repository({"c.py": code("gamma")}, name="outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(folder), "inner")
    assert rows(outer / "inner", tmp_path / "three") == {"a.py"}
    module = outer / ".git" / "modules" / "inner"
    (outer / "inner" / ".git").unlink()
    (outer / "inner").rename(outer / "elsewhere")  # its work tree is gone; its objects are not
    assert rows(module, tmp_path / "four") == {"a.py"}


def test_a_repository_of_another_owner_is_read(repository: MakeRepository, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can give a folder away")
    folder = repository({"a.py": code("alpha")})
    for path in [folder, *folder.rglob("*")]:
        os.lchown(path, 12345, 12345)
    assert rows(folder, tmp_path / "out") == {"a.py"}
    with pytest.raises(ValueError, match=r"dubious ownership.*safe\.directory"):
        clone(f"file://{folder}", tmp_path / "clones")


def test_a_repository_with_sha256_ids_is_read_and_cloned(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", "--object-format=sha256")
    commit(folder, "Lay the ground for the project", {"a.py": code("alpha")})
    commit(folder, "Make the first module take more steps", {"a.py": code("alpha", 15)})
    assert rows(folder, tmp_path / "one") == {"a.py"}
    assert rows(f"file://{folder}", tmp_path / "two") == {"a.py"}
    assert run_builder("commits", tmp_path / "commits", sources=[folder], seed=0)["rows"] == 1


def test_a_remote_with_a_detached_head_is_cloned_at_that_commit(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": code("alpha")})
    git(folder, "checkout", "-q", "--detach")
    commit(folder, "Add another module to no branch", {"b.py": code("beta")})
    assert rows(f"file://{folder}", tmp_path / "out") == {"a.py", "b.py"}


def test_a_head_without_a_commit_is_an_error_that_lists_branches(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": code("alpha")})
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(folder), str(bare)], check=True)
    (bare / "HEAD").write_text("ref: refs/heads/trunk\n")
    with pytest.raises(ValueError, match=r"no commit 'HEAD'.*for example main"):
        run_builder("corpus", tmp_path / "out", sources=[bare])
    (bare / "HEAD").write_bytes(b"\0\xff garbage")
    with pytest.raises(ValueError, match=r"not a git repository.*git fsck"):
        run_builder("corpus", tmp_path / "out", sources=[bare])


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"gitdir:\n", b"gitdir: a\0b\n", b"gitdir: " + b"x" * 5000, b"gitdir: no"]
)
def test_a_git_file_without_a_valid_git_directory_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / ".git").write_bytes(content)
    with pytest.raises(ValueError, match=r"\.git (?:does not name a git directory|points to)"):
        run_builder("corpus", tmp_path / "out", sources=[tmp_path / "odd"])


def test_a_damaged_object_makes_only_its_file_unreadable(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({f"m{number}.py": code(f"module{number}") for number in range(8)})
    damaged = git(folder, "rev-parse", "HEAD:m3.py")
    path = folder / ".git" / "objects" / damaged[:2] / damaged[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:60] + b"\0" * 40)
    report = run_builder("corpus", tmp_path / "out", sources=[folder])
    assert report["removed"] == {"unreadable": 1} and report["rows"] == 7


def hand_made_tree(folder: Path, names: list[bytes], content: str) -> str:
    """A commit of a tree that git itself would not create."""
    blob = git_bytes(folder, ["hash-object", "-w", "--stdin"], content.encode())
    entries = b"".join(b"100644 " + name + b"\0" + bytes.fromhex(blob) for name in names)
    tree = git_bytes(folder, ["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], entries)
    return git(folder, "commit-tree", tree, "-m", "A tree that leads out of itself")


def git_bytes(folder: Path, arguments: list[str], content: bytes) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_paths_that_lead_out_of_the_tree_are_skipped_and_counted(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": code("alpha")})
    odd = hand_made_tree(folder, [b"..", b"../x.py", b"/etc/x.py", b"a//b.py", b"ok.py"], code("alpha"))
    report = run_builder("corpus", tmp_path / "out", sources=[{"path": str(folder), "commit": odd}])
    assert {row["path"] for row in row_files.read(tmp_path / "out")} == {"ok.py"}
    assert report["removed"] == {"unsafe_path": 4}


def test_paths_of_thousands_of_characters_are_read_from_git_and_unreadable_in_a_folder(
    repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository({"a.py": code("alpha")})
    blob = git(folder, "rev-parse", "HEAD:a.py")
    deep = "d/" * 2500 + "deep.py"
    git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},{deep}")
    git(folder, "commit", "-q", "-m", "Add a file very deep down")
    run_builder("corpus", tmp_path / "git", sources=[folder], deduplicate=False)
    assert {row["path"] for row in row_files.read(tmp_path / "git")} == {"a.py", deep}
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.py").write_text(code("alpha"))
    monkeypatch.chdir(plain)
    for _ in range(22):
        Path("n" * 200).mkdir()
        os.chdir("n" * 200)
    report = run_builder("corpus", tmp_path / "folder", sources=[plain])
    os.chdir(tmp_path)
    assert report["removed"] == {"unreadable": 1} and report["rows"] == 1


def test_a_folder_is_listed_in_the_order_of_a_repository(repository: MakeRepository, tmp_path: Path) -> None:
    names = ["a/b.py", "a.py", "a-b/c.py", "ab.py", "a/b/c.py", "Z.py", "a0.py", "é/x.py"]
    folder = repository({name: code("alpha") for name in names})
    tree = sources.resolve([folder])
    (folder / ".git").rename(tmp_path / "aside")
    listed = [file.path for file in sources.iterate_files(sources.resolve([folder])[0], 1 << 20)]
    (tmp_path / "aside").rename(folder / ".git")
    assert listed == [file.path for file in sources.iterate_files(tree[0], 1 << 20)]
    assert listed == sorted(names, key=os.fsencode)


def test_git_lfs_pointers_are_skipped_and_counted(repository: MakeRepository, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    folder = repository({"a.py": code("alpha"), "model.py": pointer})
    assert run_builder("corpus", tmp_path / "out", sources=[folder])["removed"] == {"lfs_pointer": 1}


def test_declared_codecs_that_are_not_encodings_of_files_are_not_used(
    repository: MakeRepository, tmp_path: Path
) -> None:
    text = b"# coding: %s\n# \xff\xfe caf\n" + code("alpha").encode()
    names = (b"punycode", b"idna", b"unicode_escape", b"zip", b"undefined", b"nonsense")
    folder = repository({f"{name.decode()}.py": text % name for name in names})
    run_builder("corpus", tmp_path / "out", sources=[folder], deduplicate=False)
    texts = [row["text"] for row in row_files.read(tmp_path / "out")]
    assert len(texts) == len(names) and all("# ÿþ caf\n" in text for text in texts)


def test_a_partial_clone_without_its_files_is_an_error_that_says_how_to_get_them(
    repository: MakeRepository, tmp_path: Path
) -> None:
    folder = repository({f"m{number}/a.py": code(f"module{number}") for number in range(3)})
    commit(folder, "Make the first module take more steps", {"m0/a.py": code("module0", 15)})
    git(folder, "config", "uploadpack.allowFilter", "true")
    for name, kind, missing in (("blobs", "blob:none", "3 of 3 files"), ("trees", "tree:0", "folders")):
        git(tmp_path, "clone", "-q", "--bare", f"--filter={kind}", f"file://{folder}", name)
        with pytest.raises(ValueError, match=rf"partial clone that lacks {missing}.*without --filter"):
            sources.resolve([tmp_path / name])
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{folder}", "checkout")
    assert rows(tmp_path / "checkout", tmp_path / "out") == {f"m{number}/a.py" for number in range(3)}
    commits = run_builder("commits", tmp_path / "commits", sources=[tmp_path / "checkout"], seed=0)
    assert commits["commits_left_out"] == {"unreadable": 1}
    git(tmp_path / "checkout", "fetch", "-q", "--refetch", "--no-filter")
    assert run_builder("commits", tmp_path / "again", sources=[tmp_path / "checkout"], seed=0)["rows"] == 1


def test_a_history_without_changes_is_an_error_that_says_why(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": code("alpha")})
    with pytest.raises(
        ValueError, match=r"project: there is no commit with a parent, so there is no change to learn from\.$"
    ):
        run_builder("commits", tmp_path / "one", sources=[folder])
    commit(folder, "Make the first module take more steps", {"a.py": code("alpha", 15)})
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{folder}", "shallow")
    assert rows(tmp_path / "shallow", tmp_path / "corpus") == {"a.py"}
    with pytest.raises(ValueError, match=r"no commit with a parent.*git fetch --unshallow"):
        run_builder("commits", tmp_path / "two", sources=[tmp_path / "shallow"])
    assert run_builder("commits", tmp_path / "three", sources=[tmp_path / "shallow", folder], seed=0)["rows"] == 1


def test_a_split_without_commits_on_one_side_is_an_error_with_a_remedy(
    repository: MakeRepository, tmp_path: Path
) -> None:
    folder = repository({"a.py": code("alpha")})
    for split, message in (({"before": "2001-01-01"}, "no commit before 2001-01-01"), ({"held_out": 0.1}, "has 1 commits"),
                           ({"before": "2999-01-01"}, "is not split|new since the split")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            run_builder(
                "private_benchmark", tmp_path / "out", sources=[{"path": str(folder), **split}], executable=False
            )


ODD_PATHS = (
    "a\nb.py",
    "caf\udce9.py",
    "Shop.py",
    "shop.py",
    'it\'s "it".py',
    "-rf.py",
    "größe.py",
    "a`b.py",
    "$(x).py",
    " .py",
)


def test_odd_names_links_and_large_files_break_no_builder(repository: MakeRepository, tmp_path: Path) -> None:
    described = '"""Prices."""\n\n\ndef first_line(text):\n    """Return the first line of a text that is not blank."""\n' \
                "    for line in text.splitlines():\n        if line.strip():\n            return line\n    raise ValueError(text)\n"  # fmt: skip
    folder = repository({"a.py": code("alpha")})
    files: dict[str, str | bytes] = {
        path: described.replace("first_line", f"first_line_{number}") for number, path in enumerate(ODD_PATHS)
    }
    commit(folder, "Add all modules with names that are seldom seen", {**files, "giant.py": "x = 1\n" * 800_000})
    for link, target in (("loop", "loop"), ("up", ".."), ("inside/again", "../inside")):
        (folder / link).parent.mkdir(exist_ok=True)
        (folder / link).symlink_to(target)
    commit(folder, "Add links that lead to themselves and out", {"b.py": code("beta")})
    for place in (folder, plain_copy(folder, tmp_path / "plain")):
        report = run_builder("corpus", tmp_path / f"corpus-{place.name}", sources=[place], deduplicate=False)
        assert report["removed"] == {"symlink": 3, "too_large": 1} and report["rows"] == len(ODD_PATHS) + 2
        run_builder("instructions", tmp_path / f"instructions-{place.name}", sources=[place])
    run_builder("commits", tmp_path / "commits", sources=[folder], seed=0)
    source = {"path": str(folder), "held_out": 0.5}
    run_builder("private_benchmark", tmp_path / "held", sources=[source], executable=False)
    for path in tmp_path.glob("*/*.jsonl"):
        assert all("\n" not in row.get("path", "") for row in row_files.read(path))


def plain_copy(folder: Path, target: Path) -> Path:
    """A plain folder with the files of a repository."""
    shutil.copytree(folder, target, symlinks=True, ignore=lambda _, names: {".git"} & set(names))
    return target
