"""Write settings files for editors: llama.vscode and Continue, in the folder `editors` of an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import yaml

from alignment.models import formats

LLAMA_CPP_ADDRESS = "http://127.0.0.1:8080"
"""Default address of llama.cpp's server."""
OLLAMA_ADDRESS = "http://127.0.0.1:11434"
VLLM_ADDRESS = "http://127.0.0.1:8000/v1"
Runtime = Literal["llama.cpp", "ollama", "vllm"]
_ADDRESSES: dict[Runtime, str] = {"llama.cpp": LLAMA_CPP_ADDRESS, "ollama": OLLAMA_ADDRESS, "vllm": VLLM_ADDRESS}
# Continue fills these names, in Mustache syntax without HTML escapes.
_COMPLETION = f"{formats.FIM_PREFIX}{{{{{{prefix}}}}}}{formats.FIM_SUFFIX}{{{{{{suffix}}}}}}{formats.FIM_MIDDLE}"


def write_editor_files(folder: Path, name: str, runtime: Runtime, *, chat: bool) -> None:
    """Write `editors/continue.yaml`, and for llama.cpp also `editors/llama.vscode.json`, which asks `/infill`.

    Args:
        folder: the export's folder.
        name: name under which the runtime serves the model.
        runtime: the runtime that the folder is for. The files contain the default address of this runtime.
        chat: whether the model answers conversations. A base model is used for completion only.
    """
    editors = folder / "editors"
    editors.mkdir()
    model = {
        "name": name,
        "provider": runtime,
        "model": name,
        "apiBase": _ADDRESSES[runtime],
        "roles": ["autocomplete", *(["chat", "edit"] if chat else [])],
        "promptTemplates": {"autocomplete": _COMPLETION},
        "autocompleteOptions": {"onlyMyCode": True, "maxPromptTokens": 2048},
        "defaultCompletionOptions": {"stop": list(formats.FIM_STOP_TOKENS)},
    }
    settings = {"name": name, "version": "1.0.0", "schema": "v1", "models": [model]}
    text = "# For ~/.continue/config.yaml\n" + yaml.safe_dump(settings, sort_keys=False)
    (editors / "continue.yaml").write_text(text, encoding="utf-8")
    if runtime == "llama.cpp":
        values = {"llama-vscode.endpoint": LLAMA_CPP_ADDRESS}
        if chat:
            values["llama-vscode.endpoint_chat"] = LLAMA_CPP_ADDRESS
        (editors / "llama.vscode.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
