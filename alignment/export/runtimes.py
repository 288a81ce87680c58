"""Folders and commands that runtimes take as they are: Ollama, vLLM, llama.cpp's server."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from alignment.export.checkpoint import Checkpoint, read_json
from alignment.export.gguf_metadata import context_length
from alignment.export.vocabulary import read_chat_template
from alignment.models import formats

# Ollama's own default is 4096 tokens; repo-level prompts need more, and memory grows with it.
OLLAMA_CONTEXT = 32768
STOPS = (formats.IM_START, *formats.FIM_STOP_TOKENS)

_FIM = f"{formats.FIM_PREFIX}{{{{ .Prompt }}}}{formats.FIM_SUFFIX}{{{{ .Suffix }}}}{formats.FIM_MIDDLE}"
COMPLETION_TEMPLATE = f"{{{{ if .Suffix }}}}{_FIM}{{{{ else }}}}{{{{ .Prompt }}}}{{{{ end }}}}"
_SYSTEM = (
    "<|im_start|>system\n{{ if .System }}{{ .System }}{{ else }}"
    f"{formats.DEFAULT_SYSTEM_PROMPT}{{{{ end }}}}<|im_end|>\n"
)
_MESSAGES = (
    "{{ range $i, $message := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    '{{ if ne .Role "system" }}<|im_start|>{{ .Role }}\n{{ .Content }}'
    '{{ if not (and $last (eq .Role "assistant")) }}<|im_end|>\n{{ end }}'
    '{{ if and $last (ne .Role "assistant") }}<|im_start|>assistant\n{{ end }}{{ end }}{{ end }}'
)
_PROMPT = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}"
# Go template: fill-in-the-middle where there is a suffix, else ChatML. A trailing assistant message is continued.
CHAT_TEMPLATE = (
    f"{{{{ if .Suffix }}}}{_FIM}{{{{ else if .Messages }}}}{_SYSTEM}{_MESSAGES}"
    f"{{{{ else }}}}{_SYSTEM}{_PROMPT}{{{{ end }}}}"
)


def has_chat_template(folder: Path) -> bool:
    """Whether the model folder says how to chat; a base model needs not."""
    settings = folder / "tokenizer_config.json"
    return read_chat_template(folder, read_json(settings) if settings.is_file() else {}) is not None


def modelfile(checkpoint: Checkpoint, gguf: str, license_text: str | None) -> str:
    """Ollama's Modelfile for the GGUF file named `gguf` beside it.

    A model with a chat template gets ChatML, whatever its template says beyond that (tools are left out); a base
    model gets plain completion. Both get fill-in-the-middle for requests with a suffix.
    """
    template = CHAT_TEMPLATE if has_chat_template(checkpoint.folder) else COMPLETION_TEMPLATE
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in STOPS]
    lines.append(f"PARAMETER num_ctx {min(context_length(checkpoint), OLLAMA_CONTEXT)}")
    lines += [f"PARAMETER {key} {value:g}" for key, value in sampling(checkpoint.folder).items()]
    if license_text:
        quoted = license_text.replace('"""', "'''")
        lines.append(f'LICENSE """{quoted}"""')
    return "\n".join(lines) + "\n"


def sampling(folder: Path) -> dict[str, float]:
    """Sampling parameters that the model's generation_config.json recommends, by Ollama's names."""
    file = folder / "generation_config.json"
    settings = read_json(file) if file.is_file() else {}
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}
    return {ours: float(settings[theirs]) for theirs, ours in names.items() if settings.get(theirs) is not None}


def license_text(folder: Path, license: str | None) -> str | None:
    """The text of the folder's licence file, or else the licence's name."""
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    return license


def write_ollama(checkpoint: Checkpoint, gguf: Path, out: Path, license: str | None) -> Path:
    """A folder for `ollama create NAME -f Modelfile`: the GGUF (linked where the disk allows it) and its Modelfile."""
    with _fresh_folder(out) as scratch:
        _link(gguf, scratch / gguf.name)
        text = modelfile(checkpoint, gguf.name, license_text(checkpoint.folder, license))
        (scratch / "Modelfile").write_text(text, encoding="utf-8")
    return out


def write_llama_cpp(checkpoint: Checkpoint, files: list[Path], out: Path, name: str) -> str:
    """A folder for llama.cpp's server: the GGUF (all its parts) and `serve.sh`; returns the command."""
    command = llama_server_command(checkpoint, files[0].name, name)
    with _fresh_folder(out) as scratch:
        for file in files:
            _link(file, scratch / file.name)
        write_serve_script(scratch, command)
    return command


def copy_adapter(adapter: Path, out: Path) -> Path:
    """A folder with the two files that PEFT, vLLM and transformers load an adapter from."""
    with _fresh_folder(out) as scratch:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(adapter / name, scratch / name)
    return out


def write_folder(checkpoint: Checkpoint, out: Path, name: str, card: str) -> Path:
    """A Hugging Face folder that transformers and vLLM load: the model's files, a model card and `serve.sh`.

    config.json names RoPE and dtype in the old form (`rope_theta`, `rope_scaling`, `torch_dtype`) beside the new, so
    that older vLLM versions read the same values.
    """
    with _fresh_folder(out) as scratch:
        for file in sorted(checkpoint.folder.iterdir()):
            if (
                file.is_file()
                and file.suffix in (".safetensors", ".json", ".jinja", ".txt", ".md", "")
                and (file.name not in ("config.json", "README.md", "artifact.json"))
            ):
                _link(file, scratch / file.name)
        (scratch / "config.json").write_text(json.dumps(portable_config(checkpoint.config), indent=2), encoding="utf-8")
        (scratch / "README.md").write_text(card, encoding="utf-8")
        write_serve_script(scratch, vllm_command(checkpoint, name))
    return out


def write_serve_script(folder: Path, command: str) -> None:
    """Write `serve.sh`, which serves the folder it lies in."""
    script = folder / "serve.sh"
    script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit 1\nexec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


def portable_config(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with RoPE and dtype in the forms of both transformers 4 and 5."""
    made = dict(config)
    rope = made.get("rope_parameters")
    if rope:
        made["rope_theta"] = rope.get("rope_theta", made.get("rope_theta"))
        if rope.get("rope_type", "default") != "default":
            made["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if "dtype" in made:
        made["torch_dtype"] = made["dtype"]
    return made


def vllm_command(checkpoint: Checkpoint, name: str, long: bool = False) -> str:
    """The command that serves a folder with vLLM, from inside the folder.

    `long` asks for YaRN over four times the trained context, which Qwen documents for its 7B, 14B and 32B models;
    a model whose config.json has YaRN already needs nothing for it.
    """
    words = ["vllm", "serve", ".", "--served-model-name", name]
    if not long:
        return shlex.join([*words, "--max-model-len", str(context_length(checkpoint))])
    original = int(checkpoint.config["max_position_embeddings"])
    rope = checkpoint.rope | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": original}
    overrides = json.dumps({"rope_parameters": rope, "max_position_embeddings": 4 * original})
    return shlex.join([*words, "--max-model-len", str(4 * original), "--hf-overrides", overrides])


def llama_server_command(checkpoint: Checkpoint, gguf: str, name: str, long: bool = False) -> str:
    """The command that serves a GGUF with llama.cpp: chat at /v1/chat/completions, FIM at /infill.

    `long` as in `vllm_command`.
    """
    length = context_length(checkpoint)
    words = ["llama-server", "--model", gguf, "--alias", name, "--ctx-size", str(4 * length if long else length)]
    if long:
        words += ["--rope-scaling", "yarn", "--rope-scale", "4", "--yarn-orig-ctx", str(length)]
        words += ["--override-kv", f"qwen2.context_length=int:{4 * length}"]
    return shlex.join([*words, "--jinja"])


def supports_long_context(checkpoint: Checkpoint) -> bool:
    """Whether YaRN is documented for the model's size and not in its config yet (7B has a hidden size of 3584)."""
    return checkpoint.config["hidden_size"] >= 3584 and checkpoint.rope["rope_type"] == "default"


class _fresh_folder:
    """A folder that takes its final name, from an older export where there is one, when all in it is written."""

    def __init__(self, out: Path) -> None:
        self.out, self.scratch = out, out.with_name(f".partial-{out.name}")

    def __enter__(self) -> Path:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        return self.scratch

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            shutil.rmtree(self.out, ignore_errors=True)
            self.scratch.rename(self.out)
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise ValueError(f"{self.out} could not be written ({error.strerror}); nothing is left of it") from error


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none: gigabytes need not be there twice."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
