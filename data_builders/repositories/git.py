"""Read trees, blobs and history of git repositories (bare or not) at any commit, without a checkout.

A repository is untrusted input. This module runs only plumbing commands of git, and switches off hooks, file-system
monitors, replace refs, signature checks, external diffs and all network transports. Therefore git executes no program
that the repository's configuration names, and does not fetch missing objects of a partial clone.
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
    """One file of a git tree."""

    path: str
    """Path as git stores it. Bytes that are not UTF-8 are decoded as surrogates."""
    object_id: str
    mode: str
    """File mode in octal, for example `100644`."""
    size: int
    """Size in bytes, or 0 for a submodule."""

    @property
    def is_symlink(self) -> bool:
        return self.mode == "120000"

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"


# The variables that `git rev-parse --local-env-vars` lists, without the settings in GIT_CONFIG_*.
_LOCAL = frozenset(
    ["GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE",
     "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE",
     "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_CEILING_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DEFAULT_HASH"]
)  # fmt: skip


def environment(transports: str = "none") -> dict[str, str]:
    """Return environment variables for a git process. Variables that point git to another repository are removed.

    Args:
        transports: value of the variable GIT_ALLOW_PROTOCOL. With "none", all GIT_* variables of the user are removed.
            With other values, variables that give access to remotes (askpass, settings, certificates, proxies) are
            kept.
    """
    excluded = _LOCAL if transports != "none" else [key for key in os.environ if key.startswith("GIT_")]
    inherited = {key: value for key, value in os.environ.items() if key not in excluded}
    return inherited | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": transports,
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


def command(git_dir: Path, *arguments: str) -> list[str]:
    """Return the command line that runs git on one repository, including `SAFE_OPTIONS`."""
    # The user named this folder, so another owner (a shared mount, a container) is accepted. The work tree is not read.
    # `--work-tree` overrides `core.worktree` of the repository's configuration, which may name any folder.
    places = ["-c", f"safe.directory={git_dir}", f"--git-dir={git_dir}", f"--work-tree={git_dir}"]
    return ["git", "--no-pager", *SAFE_OPTIONS, *places, *arguments]


def error_message(stderr: bytes) -> str:
    """Format the error output of a failed git command as one line. General advice at the end is left out."""
    lines = stderr.decode("utf-8", "replace").strip().partition("\nPlease make sure you have the correct access")[0]
    return "; ".join([line.strip() for line in lines.splitlines() if line.strip()][:6]) or "no message"


def run(git_dir: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run one git command and return its output.

    Raises:
        ValueError: git is missing or failed. The message contains git's error message.
    """
    try:
        process = subprocess.run(command(git_dir, *arguments), input=stdin, capture_output=True, env=environment())
    except FileNotFoundError:
        raise ValueError("git is not installed or not on PATH; install it to read repositories") from None
    if process.returncode:
        raise ValueError(f"git {arguments[0]} failed in {git_dir}: {error_message(process.stderr)}")
    return process.stdout


def find_git_dir(folder: Path) -> Path | None:
    """Return the git directory of a folder, or None if it is not a repository. Parent folders are not searched."""
    dot_git = folder / ".git"
    if dot_git.is_dir():
        return dot_git.resolve()
    if dot_git.is_file():  # a linked worktree or a submodule: one line names the real directory
        with dot_git.open("rb") as stream:
            line = os.fsdecode(stream.read(8192)).strip()
        named = line.removeprefix("gitdir:").strip()
        if named == line or not named or "\0" in named:
            raise ValueError(f"{dot_git} does not name a git directory; repair this file or use another folder")
        target = Path(os.path.realpath(folder / named))
        if not os.access(target, os.F_OK):
            raise ValueError(
                f"{dot_git} points to {target}, which does not exist; repair the worktree or use another folder"
            )
        return target
    if (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir():
        return folder.resolve()
    return None


def resolve_commit(git_dir: Path, revision: str = "HEAD") -> str:
    """Return the full commit id of a branch, tag or other revision.

    Raises:
        ValueError: the repository is empty or damaged, or does not contain the commit.
    """
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
        any_commit = run(git_dir, "rev-list", "--all", "--max-count=1").strip()
        names = run(git_dir, "for-each-ref", "--count=4", "--format=%(refname:short)", "refs/heads", "refs/tags")
    except ValueError as error:
        raise ValueError(f"{error}; repair the repository (`git fsck` lists the damage) or remove it") from None
    if not any_commit:
        raise ValueError(f"{git_dir} has no commits; commit something or remove this source")
    known = ", ".join(names.decode("utf-8", "replace").split("\n")[:-1])
    hint = shallow_hint(git_dir)
    raise ValueError(
        f"{git_dir} has no commit {revision!r}; use a branch, tag or commit of this repository"
        f"{f' (for example {known})' if known else ''}.{hint}"
    )


def describe(git_dir: Path, commit: str) -> str:
    """Return the newest tag among the ancestors of a commit, or "" if there is none."""
    try:
        return run(git_dir, "describe", "--tags", "--abbrev=0", commit).decode("utf-8", "replace").strip()
    except ValueError:
        return ""


def parse_date(text: str) -> datetime.datetime:
    """Parse an ISO 8601 date with or without a time. Without a time zone, the date is in UTC.

    Dates are not parsed by git, because git accepts any text as a date.

    Raises:
        ValueError: the text is not a date in this format.
    """
    try:
        date = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date: write 2026-01-31 or 2026-01-31T12:00:00+01:00") from None
    return date if date.tzinfo else date.replace(tzinfo=datetime.UTC)


def commit_before(git_dir: Path, head: str, date: str) -> str:
    """Return the newest commit before a date, among `head` and its first-parent ancestors.

    Raises:
        ValueError: no commit is older than the date, or `date` is not a date.
    """
    lines = run(git_dir, "rev-list", "--first-parent", "--timestamp", head).decode("ascii").split("\n")
    limit = parse_date(date).timestamp()
    for line in filter(None, lines):
        seconds, _, commit = line.partition(" ")
        if int(seconds) < limit:
            return commit
    raise ValueError(f"{git_dir} has no commit before {date}: choose a later date.{shallow_hint(git_dir)}")


def commit_before_newest(git_dir: Path, head: str, share: float) -> str:
    """Hold out the newest commits of a repository, and return the last commit before them.

    Args:
        git_dir: the repository.
        head: the newest commit. Only first-parent ancestors of this commit are counted.
        share: share of the commits to hold out, between 0 and 1. At least one commit is held out.

    Raises:
        ValueError: all commits would be held out.
    """
    commits = run(git_dir, "rev-list", "--first-parent", head).decode("ascii").split()
    newest = max(1, round(share * len(commits)))
    if newest >= len(commits):
        raise ValueError(
            f"{git_dir} has {len(commits)} commits: too few to hold out {share:g} of them.{shallow_hint(git_dir)}"
        )
    return commits[newest]


def shallow_hint(git_dir: Path) -> str:
    """Return the advice to fetch all commits if a clone is shallow, otherwise ""."""
    return " The clone is shallow: run `git fetch --unshallow` to get all commits." if shallow_boundary(git_dir) else ""


def shallow_boundary(git_dir: Path) -> set[str]:
    """Return the commits at which the history of a shallow clone is cut. git shows all files of these commits as added.

    The result is empty for a complete clone.
    """
    common = git_dir / run(git_dir, "rev-parse", "--git-common-dir").decode().strip()
    path = common / "shallow"
    return set(path.read_text(encoding="ascii", errors="replace").split()) if path.is_file() else set()


def list_tree(git_dir: Path, commit: str, *, top: bool = False) -> Iterator[TreeEntry]:
    """Yield the files of a commit, sorted by path in byte order. Memory does not grow with the number of files.

    Args:
        git_dir: the repository.
        commit: a commit id.
        top: whether to list only the files of the top-level folder.

    Raises:
        ValueError: git failed, or the repository is a partial clone that lacks most files of the commit.
    """
    if is_partial(git_dir):
        yield from _list_partial_tree(git_dir, commit, top)
        return
    recursion = [] if top else ["-r"]
    arguments = command(git_dir, "ls-tree", *recursion, "-z", "-l", "--full-tree", commit)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, env=environment()) as process,
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
            errors.seek(0)
            raise ValueError(f"git ls-tree failed in {git_dir}: {error_message(errors.read())}")


def is_partial(git_dir: Path) -> bool:
    """Whether a repository is a partial clone: git fetches missing objects when it needs them, which is switched off here."""
    try:
        return bool(run(git_dir, "config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"))
    except ValueError:
        return False


def _list_partial_tree(git_dir: Path, commit: str, top: bool) -> Iterator[TreeEntry]:
    """Yield the files of a commit of a partial clone. Files whose content is missing get the size 0.

    Raises:
        ValueError: the clone lacks most files, or a folder of the commit.
    """
    recursion = [] if top else ["-r"]
    remedy = f"clone it again without --filter, or run `git -C {git_dir} fetch --refetch --no-filter`"
    try:
        output = run(git_dir, "ls-tree", *recursion, "-z", "--full-tree", commit)
    except ValueError:
        raise ValueError(
            f"{git_dir} is a partial clone that lacks folders of the commit {commit[:12]}: {remedy}"
        ) from None
    heads = [record.partition(b"\t") for record in output.split(b"\0") if record]
    entries = [(*head.decode("ascii").split(), os.fsdecode(path)) for head, _, path in heads]
    files = [(mode, object_id, path) for mode, kind, object_id, path in entries if kind != "tree"]
    # `cat-file` would end at the first missing object.
    objects = run(git_dir, "rev-list", "--objects", "--no-object-names", "--missing=print", "--max-count=1", commit)
    missing = {line[1:] for line in objects.decode("ascii").splitlines() if line.startswith("?")}
    present = [object_id for mode, object_id, _ in files if mode != "160000" and object_id not in missing]
    request = "".join(f"{object_id}\n" for object_id in present).encode()
    answers = (
        run(git_dir, "cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=request).decode("ascii").split()
    )
    sizes = dict(zip(answers[::2], map(int, answers[1::2]), strict=True))
    lacking = sum(object_id in missing for _, object_id, _ in files)
    if lacking > len(files) / 2:
        raise ValueError(
            f"{git_dir} is a partial clone that lacks {lacking} of {len(files)} files of the commit {commit[:12]}: {remedy}"
        )
    for mode, object_id, path in files:
        yield TreeEntry(path, object_id, mode, sizes.get(object_id, 0))


WINDOW = 48
"""Number of object ids to send to git at once. It is small enough for any pipe buffer, which prevents a deadlock."""


class BlobReader:
    """Reads objects of a repository through one `git cat-file --batch` process.

    Use the reader as a context manager. It is not thread-safe.
    """

    def __init__(self, git_dir: Path) -> None:
        self.git_dir = git_dir
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(self.git_dir, "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )

    def read(self, object_id: str, max_bytes: int | None = None) -> bytes | None:
        """Return the content of one object, or None if the object is missing (in a partial clone) or damaged.

        Args:
            object_id: id of a blob or commit.
            max_bytes: maximum number of bytes. Of a larger object, only the first `max_bytes + 1` bytes are returned.
        """
        return next(self.read_many([object_id], max_bytes))

    def read_many(self, object_ids: Iterable[str], max_bytes: int | None = None) -> Iterator[bytes | None]:
        """Yield the contents of several objects in order. This is faster than calling `read` for each object.

        The iterator must be exhausted before the next call of `read` or `read_many`.
        """
        remaining = iter(object_ids)
        while window := list(itertools.islice(remaining, WINDOW)):
            while window:
                with contextlib.suppress(BrokenPipeError):
                    self._request(window)
                answered = 0
                for _ in window:
                    content, alive = self._next_answer(max_bytes)
                    answered += 1
                    yield content
                    if not alive:  # git exits on a damaged object: restart git for the remaining objects
                        self.close()
                        self.process = self._start()
                        break
                window = window[answered:]

    def _request(self, object_ids: list[str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{object_id}\n" for object_id in object_ids).encode())
        self.process.stdin.flush()

    def _next_answer(self, max_bytes: int | None) -> tuple[bytes | None, bool]:
        """Return the content of the next object (or None), and whether the git process is still running."""
        stdout = self.process.stdout
        assert stdout is not None
        header = stdout.readline().split()
        if len(header) != 3:
            return None, bool(header)
        size = int(header[2])
        content = stdout.read(size if max_bytes is None else min(size, max_bytes + 1))
        remaining = size + 1 - len(content)  # each content ends with a line break
        while remaining and (skipped := len(stdout.read(min(remaining, 1 << 20)))):
            remaining -= skipped
        return (None, False) if remaining else (content, True)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent requests to a process that has exited
                    pipe.close()
        self.process.wait()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
