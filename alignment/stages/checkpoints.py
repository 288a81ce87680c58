"""Write manifests that mark checkpoints as complete, and choose the checkpoint from which training resumes.

After a checkpoint is saved, every rank writes `whole-RANK.json` with sizes and SHA-256 of its share of the files. A
checkpoint is complete if the files of all ranks exist, and intact if the sizes and hashes agree. In checkpoints of
older versions, `whole-RANK.json` lists no files. The contents of their files are checked instead.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alignment.files import write_json
from alignment.logs import get_logger
from alignment.models.stored_tensors import read_safetensors_header

logger = get_logger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_NOT_NEEDED = ("training_args.bin", "README.md")
"""Files that transformers and PEFT write to a checkpoint, but that are not read when training resumes."""

Gather = Callable[[str], Sequence[str]]
"""Type of a function that takes this rank's text and returns the texts of all ranks."""


def write_manifest(checkpoint: Path, rank: int, world_size: int) -> None:
    """Write this rank's part of a checkpoint's manifest atomically.

    Must be called after all ranks have saved their files.
    """
    shares: list[list[Path]] = [[] for _ in range(world_size)]
    sizes = [0] * world_size
    for file in sorted(_files(checkpoint), key=lambda file: (-file.stat().st_size, file)):
        least = sizes.index(min(sizes))
        shares[least].append(file)
        sizes[least] += file.stat().st_size
    files = {
        str(file.relative_to(checkpoint)): {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in shares[rank]
    }
    write_json(checkpoint / f"whole-{rank}.json", {"world_size": world_size, "files": files})


def _files(checkpoint: Path) -> list[Path]:
    """Return the files of a checkpoint that are read when training resumes."""
    return [
        file
        for file in checkpoint.rglob("*")
        if file.is_file() and file.name not in _NOT_NEEDED and not re.match(r"\.?whole-\d+\.json", file.name)
    ]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def last_whole_checkpoint(
    folder: Path, world_size: int, rank: int = 0, gather: Gather = lambda damage: [damage]
) -> Path | None:
    """Return the newest checkpoint that every rank finished and whose files are intact.

    Every rank checks a share of the files. Rank 0 removes checkpoints that a rank did not finish. Damaged checkpoints
    are kept, and rank 0 logs their names.

    Args:
        folder: the folder of the checkpoints.
        world_size: the number of processes of this run.
        rank: this process's rank.
        gather: takes this rank's description of the damage, and returns the descriptions of all ranks. All ranks call
            this function equally often.

    Raises:
        ValueError: the checkpoints were written by another number of processes. Optimizer shards and random states
            can't be redistributed to a different number of processes.
    """
    finished: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        if not (match := _CHECKPOINT.match(path.name)):
            continue
        sizes = _marked_world_sizes(path)
        if other := set(sizes) - {world_size}:
            raise ValueError(
                f"{path} was written by {max(other)} processes and this run has {world_size}. Launch with "
                f"{max(other)} again to resume, or delete {folder} to start the stage anew."
            )
        if len(sizes) == world_size:
            finished[int(match.group(1))] = path
        elif rank == 0:
            logger.warning("      %s is not used: it was not written to its end", path.name)
            shutil.rmtree(path)
    for step in sorted(finished, reverse=True):
        damage = next(filter(None, gather(_damage(finished[step], rank))), "")
        if not damage:
            return finished[step]
        if rank == 0:
            logger.warning("      %s is not used: %s", finished[step].name, damage)
    if finished and rank == 0:
        logger.warning("      no intact checkpoint is left: the stage starts anew")
    return None


def _marked_world_sizes(checkpoint: Path) -> list[int]:
    """Return the world sizes that a checkpoint's manifest files (`whole-RANK.json`) state, one for each readable file.

    The list is empty if rank 0 removes the checkpoint meanwhile.
    """
    sizes = []
    for mark in checkpoint.glob("whole-*.json"):
        try:
            sizes.append(int(json.loads(mark.read_text())["world_size"]))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sizes


def _damage(checkpoint: Path, rank: int) -> str:
    """Describe the first damaged file in a rank's share of the files.

    Return "" if all files of the share are intact.
    """
    manifest = json.loads((checkpoint / f"whole-{rank}.json").read_text())
    if "files" not in manifest:
        return next(_damage_by_content(checkpoint), "") if rank == 0 else ""
    for name, expected in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) != expected["size"]:
            return f"{name} has {size} bytes instead of {expected['size']}"
        if _sha256(file) != expected["sha256"]:
            return f"{name} was changed or damaged after it was written"
    return ""


def _damage_by_content(checkpoint: Path) -> Iterator[str]:
    """Yield a message for each missing, truncated or damaged file of a checkpoint whose manifest lists no files."""
    for description, patterns in (
        ("weights", ("*.safetensors", "pytorch_model*", "global_step*", "adapter_model*")),
        ("state of the optimizer", ("optimizer*", "global_step*")),
        ("state of the schedule", ("scheduler.pt", "global_step*")),
        ("state of the random generators", ("rng_state*.pth",)),
        ("trainer_state.json", ("trainer_state.json",)),
    ):
        if not any(next(checkpoint.glob(pattern), None) for pattern in patterns):
            yield f"{description} is missing" if description.endswith(".json") else f"the {description} is missing"
    for file in sorted(_files(checkpoint)):
        name = file.relative_to(checkpoint)
        if file.suffix == ".safetensors" and not _is_whole_safetensors(file):
            yield f"{name} is truncated"
        elif file.suffix in (".pt", ".pth") and not _is_intact_zip(file):
            yield f"{name} is truncated or damaged"
        elif file.name == "trainer_state.json" and not _is_json(file):
            yield f"{name} is no JSON: it is truncated or damaged"


def _is_whole_safetensors(file: Path) -> bool:
    """Whether the file has a valid safetensors header, and has the length that the header implies."""
    try:
        read_safetensors_header(file)
    except (ValueError, AttributeError, TypeError, KeyError):
        return False
    return True


def _is_intact_zip(file: Path) -> bool:
    """Whether all checksums in a zip archive are right. torch saves its files as zip archives."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
