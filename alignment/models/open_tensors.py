"""Open the safetensors files of a model folder, to read its tensors one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors import safe_open

from alignment.models.stored_tensors import read_safetensors_header


@contextmanager
def open_tensors(folder: Path) -> Iterator[dict[str, safe_open]]:
    """Open a model's safetensors files; yield the open file of each tensor, keyed by the tensor's name.

    Raises:
        ValueError: the folder has no safetensors files, or one is damaged.
    """
    stored = {name: file for file in sorted(folder.glob("*.safetensors")) for name in read_safetensors_header(file)}
    if not stored:
        raise ValueError(f"{folder} has no weights (*.safetensors): name the folder of a model")
    with ExitStack() as stack:
        files = {file: stack.enter_context(safe_open(str(file), "pt")) for file in set(stored.values())}
        yield {name: files[file] for name, file in stored.items()}
