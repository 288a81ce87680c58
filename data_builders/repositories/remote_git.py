"""Remote repositories, cloned with the user's own git and its access, neither of which is stored anywhere."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from data_builders.repositories import git

_URL = re.compile(r"^(?:(?:https?|ssh|git|file)://|[\w.-]+@[\w.-]+:)")
_TRANSPORTS = "https:http:ssh:git:file"


def is_url(location: str) -> bool:
    return bool(_URL.match(location))


def strip_credentials(url: str) -> str:
    return re.sub(r"(://)[^/@]*@", r"\1", url)


def repository_name(url: str) -> str:
    return re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git")


def remote_state(url: str) -> str:
    """All branches and tags of a remote, as one hash."""
    return hashlib.sha256(_ask(url, "read", "ls-remote", "--", url)).hexdigest()


def clone(url: str, clone_dir: Path) -> Path:
    """Fetch the branches and tags of `url` into a bare repository with the user's own git; the URL is written nowhere.

    Not all refs: a forge keeps one for every pull request, more than all branches weigh.
    """
    target = (clone_dir / f"{repository_name(url)}.git").absolute()
    known = _ask(url, "clone", "ls-remote", "--symref", "--", url).decode("utf-8", "surrogateescape")
    head = re.search(r"^ref: (refs/\S+)\tHEAD$", known, re.MULTILINE)
    ids = re.findall(r"^([0-9a-f]{40,64})\t(\S+)$", known, re.MULTILINE)
    clone_dir.mkdir(parents=True, exist_ok=True)
    form = "sha256" if ids and len(ids[0][0]) == 64 else "sha1"
    # No template: it could bring hooks and settings along.
    _ask(
        url, "clone", "init", "--quiet", "--bare", "--template=", f"--object-format={form}", str(target), git_dir=target
    )
    wanted = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    options = ["--quiet", "--no-write-fetch-head", "--no-recurse-submodules", "--no-tags"]
    _ask(url, "clone", "fetch", *options, "--", url, *wanted, git_dir=target)
    if head:
        git.run(target, "symbolic-ref", "HEAD", head.group(1))
    elif detached := dict((name, commit) for commit, name in ids).get("HEAD"):
        _ask(url, "clone", "fetch", *options, "--", url, "HEAD", git_dir=target)
        git.run(target, "update-ref", "--no-deref", "HEAD", detached)
    return target


def _ask(url: str, what: str, *arguments: str, git_dir: Path | str = os.devnull) -> bytes:
    """Git with the user's own access to remotes. Without a repository: not even the one we stand in has a say."""
    command = ["git", "--no-pager", *git.SAFE_OPTIONS, f"--git-dir={git_dir}", *arguments]
    done = subprocess.run(command, capture_output=True, env=git.environment(_TRANSPORTS))
    if done.returncode:
        said = strip_credentials(git.error_message(done.stderr))
        raise ValueError(f"could not {what} {strip_credentials(url)}: {said}")
    return done.stdout
