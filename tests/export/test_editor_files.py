"""Settings files for editors in exported folders."""

import json

import pytest
import yaml

from alignment.export.editor_files import write_editor_files
from alignment.models import formats


@pytest.mark.parametrize("runtime", ["llama.cpp", "ollama", "vllm"])
@pytest.mark.parametrize("chat", [True, False])
def test_continue_asks_the_runtime_for_completions_in_the_models_format(tmp_path, runtime, chat):
    write_editor_files(tmp_path, "shop", runtime, chat=chat)
    settings = yaml.safe_load((tmp_path / "editors/continue.yaml").read_text())
    (model,) = settings["models"]
    assert settings["schema"] == "v1" and model["provider"] == runtime and model["model"] == "shop"
    assert model["roles"] == (["autocomplete", "chat", "edit"] if chat else ["autocomplete"])
    template = model["promptTemplates"]["autocomplete"]
    filled = template.replace("{{{prefix}}}", "a = ").replace("{{{suffix}}}", "\n")
    assert filled == formats.fim_prompt("a = ", "\n")


def test_llama_vscode_gets_the_servers_address(tmp_path):
    write_editor_files(tmp_path, "shop", "llama.cpp", chat=False)
    settings = json.loads((tmp_path / "editors/llama.vscode.json").read_text())
    assert settings == {"llama-vscode.endpoint": "http://127.0.0.1:8080"}
