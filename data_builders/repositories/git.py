"""Read git repositories without checking anything out: trees, blobs and history at any commit, bare or not.

A repository is untrusted input. Only plumbing commands run, with hooks, file-system monitors, replace refs,
signature checks, external diffs and every network transport switched off, so that nothing in its configuration
is ever executed and a partial clone is never completed over the network.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SAFE_OPTIONS = (
    "-c", "core.fsmonitor=false",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.quotePath=false",
    "-c", "log.showSignature=false",
    "-c", "diff.external=",
    "-c", "gc.auto=0",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file of a tree: `path` as git stores it, `size` in bytes (0 for a submodule)."""

    path: str
    object_id: str
    mode: str
    size: int

    @property
    def is_symlink(self) -> bool:
        return self.mode == "120000"

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"


# What git itself calls local to one repository (`git rev-parse --local-env-vars`), but for the settings in GIT_CONFIG_*.
_LOCAL = frozenset(
    ["GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE",
     "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE",
     "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_CEILING_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DEFAULT_HASH"]
)  # fmt: skip


def environment(transports: str = "none") -> dict[str, str]:
    """The user's environment without the variables that would point git elsewhere.

    For a remote (`transports`), what gives the user access stays: askpass, settings, certificates, proxies.
    """
    local = _LOCAL if transports != "none" else [key for key in os.environ if key.startswith("GIT_")]
    kept = {key: value for key, value in os.environ.items() if key not in local}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": transports,
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


def command(git_dir: Path, *arguments: str) -> list[str]:
    # The user named this folder, so a foreign owner (a shared mount, a container) is no reason to refuse it. The work
    # tree is never looked at; naming one that exists keeps git from entering the one that the configuration names.
    places = ["-c", f"safe.directory={git_dir}", f"--git-dir={git_dir}", f"--work-tree={git_dir}"]
    return ["git", "--no-pager", *SAFE_OPTIONS, *places, *arguments]


def error_message(stderr: bytes) -> str:
    """What git says is wrong: its lines without the general advice that follows them, the remote's last."""
    lines = stderr.decode("utf-8", "replace").strip().partition("\nPlease make sure you have the correct access")[0]
    return "; ".join([line.strip() for line in lines.splitlines() if line.strip()][:6]) or "no message"


def run(git_dir: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run one git command and return its output; a failure is a ValueError with what git said."""
    try:
        done = subprocess.run(command(git_dir, *arguments), input=stdin, capture_output=True, env=environment())
    except FileNotFoundError:
        raise ValueError("git is not installed or not on PATH; install it to read repositories") from None
    if done.returncode:
        raise ValueError(f"git {arguments[0]} failed in {git_dir}: {error_message(done.stderr)}")
    return done.stdout


def find_git_dir(folder: Path) -> Path | None:
    """The git directory of `folder` if it is itself a repository (bare or not), else None; parents don't count."""
    dot_git = folder / ".git"
    if dot_git.is_dir():
        return dot_git.resolve()
    if dot_git.is_file():  # a linked worktree or a submodule: one line names the real directory
        with dot_git.open("rb") as stream:
            line = os.fsdecode(stream.read(8192)).strip()
        named = line.removeprefix("gitdir:").strip()
        if named == line or not named or "\0" in named:
            raise ValueError(f"{dot_git} is a file that names no git directory; repair it or name another folder")
        target = Path(os.path.realpath(folder / named))
        if not os.access(target, os.F_OK):
            raise ValueError(
                f"{dot_git} points to {target}, which does not exist; repair the worktree or name another folder"
            )
        return target
    if (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir():
        return folder.resolve()
    return None


def resolve_commit(git_dir: Path, revision: str = "HEAD") -> str:
    """The full id of the commit that `revision` names; a clear error for an empty repository or a missing commit."""
    if revision.startswith("-"):
        raise ValueError(f"{revision!r} is not a commit: it starts with a dash")
    try:
        return (
            run(git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
            .decode()
            .strip()
        )
    except ValueError:
        pass
    try:
        some = run(git_dir, "rev-list", "--all", "--max-count=1").strip()
        names = run(git_dir, "for-each-ref", "--count=4", "--format=%(refname:short)", "refs/heads", "refs/tags")
    except ValueError as error:
        raise ValueError(f"{error}; repair the repository (`git fsck` says more) or leave it out") from None
    if not some:
        raise ValueError(f"{git_dir} has no commits; commit something or leave it out of the sources")
    known = ", ".join(names.decode("utf-8", "replace").split("\n")[:-1])
    hint = _shallow_hint(git_dir)
    raise ValueError(
        f"{git_dir} has no commit {revision!r}; name a branch, a tag or a commit that it has"
        f"{f' (among them {known})' if known else ''}.{hint}"
    )


def parse_date(text: str) -> datetime.datetime:
    """A date or a date with a time, of UTC where no zone is said. git itself takes any text for some date."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date: write it as 2026-01-31, or as 2026-01-31T12:00:00+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def commit_before(git_dir: Path, head: str, date: str) -> str:
    """The last commit on the first-parent line of `head` that was committed before the date. ValueError for none."""
    lines = run(git_dir, "rev-list", "--first-parent", "--timestamp", head).decode("ascii").split("\n")
    limit = parse_date(date).timestamp()
    for line in filter(None, lines):
        seconds, _, commit = line.partition(" ")
        if int(seconds) < limit:
            return commit
    raise ValueError(f"{git_dir} has no commit before {date}: choose a later date.{_shallow_hint(git_dir)}")


def commit_before_newest(git_dir: Path, head: str, share: float) -> str:
    """The last commit on the first-parent line of `head` before the newest share of that line, at least one commit."""
    line = run(git_dir, "rev-list", "--first-parent", head).decode("ascii").split()
    newest = max(1, round(share * len(line)))
    if newest >= len(line):
        raise ValueError(
            f"{git_dir} has {len(line)} commits: too few to hold out {share:g} of them.{_shallow_hint(git_dir)}"
        )
    return line[newest]


def _shallow_hint(git_dir: Path) -> str:
    return " The clone is shallow: `git fetch --unshallow` brings its history." if shallow_boundary(git_dir) else ""


def shallow_boundary(git_dir: Path) -> set[str]:
    """Commits whose parents a shallow clone lacks; their differences are not real changes."""
    common = git_dir / run(git_dir, "rev-parse", "--git-common-dir").decode().strip()
    path = common / "shallow"
    return set(path.read_text(encoding="ascii", errors="replace").split()) if path.is_file() else set()


def list_tree(git_dir: Path, commit: str, *, top: bool = False) -> Iterator[TreeEntry]:
    """The files of `commit` as git lists them, sorted by path in byte order; with `top`, of its top level alone.

    Names that are not UTF-8 keep their bytes as surrogates. Memory does not grow with the number of files.
    """
    recursion = [] if top else ["-r"]
    arguments = command(git_dir, "ls-tree", *recursion, "-z", "-l", "--full-tree", commit)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=said, env=environment()) as process,
    ):
        assert process.stdout is not None
        rest = b""
        while block := process.stdout.read(1 << 16):
            *records, rest = (rest + block).split(b"\0")
            for record in records:
                head, _, path = record.partition(b"\t")
                mode, kind, object_id, size = head.split()
                if kind != b"tree":
                    size_bytes = int(size) if size.isdigit() else 0
                    yield TreeEntry(os.fsdecode(path), object_id.decode(), mode.decode(), size_bytes)
        if process.wait():
            said.seek(0)
            raise ValueError(f"git ls-tree failed in {git_dir}: {error_message(said.read())}")


WINDOW = 48
"""Objects asked for at once: their ids fit into the smallest pipe (a page), so that neither side waits for the other to read."""


class BlobReader:
    """Blobs through one `git cat-file --batch` process. A context manager; not for use by several threads."""

    def __init__(self, git_dir: Path) -> None:
        self.git_dir = git_dir
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(self.git_dir, "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )

    def read(self, object_id: str, most: int | None = None) -> bytes | None:
        """The content of an object, or None where the repository lacks it (partial clone, corruption).

        Of one with more than `most` bytes, only the first `most + 1` are kept in memory.
        """
        return next(self.read_many([object_id], most))

    def read_many(self, object_ids: Iterable[str], most: int | None = None) -> Iterator[bytes | None]:
        """`read` of each, in order; git reads ahead. Take all of them before anything else is asked of this reader."""
        wanted = iter(object_ids)
        while window := list(itertools.islice(wanted, WINDOW)):
            while window:
                with contextlib.suppress(BrokenPipeError):
                    self._ask(window)
                answered = 0
                for _ in window:
                    content, alive = self._next(most)
                    answered += 1
                    yield content
                    if not alive:  # git dies of a damaged object; the others are still wanted
                        self.close()
                        self.process = self._started()
                        break
                window = window[answered:]

    def _ask(self, object_ids: list[str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{object_id}\n" for object_id in object_ids).encode())
        self.process.stdin.flush()

    def _next(self, most: int | None) -> tuple[bytes | None, bool]:
        """The next answer, and whether git lives on."""
        stdout = self.process.stdout
        assert stdout is not None
        header = stdout.readline().split()
        if len(header) != 3:
            return None, bool(header)
        size = int(header[2])
        content = stdout.read(size if most is None else min(size, most + 1))
        left = size + 1 - len(content)
        while left and (skipped := len(stdout.read(min(left, 1 << 20)))):
            left -= skipped
        return (None, False) if left else (content, True)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what a dead process was still to be asked
                    pipe.close()
        self.process.wait()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
