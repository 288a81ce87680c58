"""Clone remote repositories with the git credentials of the user. No credentials are stored in clones."""

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
    """Whether a location is a URL (or `user@host:path`) that git can clone. Any other location is a path."""
    return bool(_URL.match(location))


def strip_credentials(url: str) -> str:
    """Remove user names and passwords from a URL, or from all URLs in a text."""
    return re.sub(r"(://)[^/@]*@", r"\1", url)


def repository_name(url: str) -> str:
    """Return the name of a repository: the last part of its URL, without `.git`."""
    return re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git")


def remote_state(url: str) -> str:
    """Return a hash of the branches, tags and other refs of a remote repository, and of their commits."""
    return hashlib.sha256(_run(url, "read", "ls-remote", "--", url)).hexdigest()


def clone(url: str, clone_dir: Path) -> Path:
    """Fetch branches and tags of a remote into a new bare repository. The URL is not stored in the clone.

    Other refs are not fetched: code hosts keep a ref for every pull request, and all pull requests together are larger
    than all branches.

    Args:
        url: a URL for which `is_url` is true.
        clone_dir: folder in which the clone is created.

    Returns:
        The path of the clone, `clone_dir/NAME.git`.

    Raises:
        ValueError: git failed. The message contains git's error message without credentials.
    """
    target = (clone_dir / f"{repository_name(url)}.git").absolute()
    refs = _run(url, "clone", "ls-remote", "--symref", "--", url).decode("utf-8", "surrogateescape")
    head = re.search(r"^ref: (refs/\S+)\tHEAD$", refs, re.MULTILINE)
    ids = re.findall(r"^([0-9a-f]{40,64})\t(\S+)$", refs, re.MULTILINE)
    clone_dir.mkdir(parents=True, exist_ok=True)
    object_format = "sha256" if ids and len(ids[0][0]) == 64 else "sha1"
    # Use no template, because a template could contain hooks and settings.
    _run(
        url,
        "clone",
        "init",
        "--quiet",
        "--bare",
        "--template=",
        f"--object-format={object_format}",
        str(target),
        git_dir=target,
    )
    refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    options = ["--quiet", "--no-write-fetch-head", "--no-recurse-submodules", "--no-tags"]
    _run(url, "clone", "fetch", *options, "--", url, *refspecs, git_dir=target)
    if head:
        git.run(target, "symbolic-ref", "HEAD", head.group(1))
    elif detached := dict((name, commit) for commit, name in ids).get("HEAD"):
        _run(url, "clone", "fetch", *options, "--", url, "HEAD", git_dir=target)
        git.run(target, "update-ref", "--no-deref", "HEAD", detached)
    return target


def _run(url: str, action: str, *arguments: str, git_dir: Path | str = os.devnull) -> bytes:
    """Run git with network access and the user's credentials.

    The default of `git_dir` prevents git from reading the settings of a repository around the working directory.
    """
    command = ["git", "--no-pager", *git.SAFE_OPTIONS, f"--git-dir={git_dir}", *arguments]
    process = subprocess.run(command, capture_output=True, env=git.environment(_TRANSPORTS))
    if process.returncode:
        message = strip_credentials(git.error_message(process.stderr))
        raise ValueError(f"could not {action} {strip_credentials(url)}: {message}")
    return process.stdout
