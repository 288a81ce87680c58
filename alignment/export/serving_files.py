"""Write folders and commands for Ollama, vLLM, llama.cpp's server and PEFT."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.export.checkpoint import Qwen2Checkpoint, read_json
from alignment.export.editor_files import write_editor_files
from alignment.export.gguf_metadata import context_length
from alignment.export.vocabulary import read_chat_template
from alignment.models import formats

# Ollama's default of 4096 tokens is too short for repo-level prompts. Memory grows with this number.
OLLAMA_CONTEXT = 32768
STOPS = (formats.IM_START, *formats.FIM_STOP_TOKENS)
LONG_CONTEXT_HIDDEN_SIZE = 3584
"""Hidden size of Qwen2.5-Coder-7B, the smallest model for which Qwen documents long contexts by YaRN."""
LONG_CONTEXT_FACTOR = 4

_FIM = f"{formats.FIM_PREFIX}{{{{ .Prompt }}}}{formats.FIM_SUFFIX}{{{{ .Suffix }}}}{formats.FIM_MIDDLE}"
COMPLETION_TEMPLATE = f"{{{{ if .Suffix }}}}{_FIM}{{{{ else }}}}{{{{ .Prompt }}}}{{{{ end }}}}"
_TOOLS = (
    f"{{{{ if .Tools }}}}{formats.TOOLS_BEFORE}{{{{ range .Tools }}}}\n"
    '{"type": "function", "function": {{ .Function }}}{{ end }}'
    f"{formats.TOOLS_AFTER}{formats.TOOL_CALL}{formats.TOOL_CALL_END}{formats.TOOLS_FORM}{formats.TOOL_CALL}"
    f"{formats.TOOLS_EXAMPLE}{formats.TOOL_CALL_END}{{{{ end }}}}"
)
_SYSTEM = (
    "<|im_start|>system\n{{ if .System }}{{ .System }}{{ else }}"
    f"{formats.DEFAULT_SYSTEM_PROMPT}{{{{ end }}}}{_TOOLS}<|im_end|>\n"
)
# Ollama takes the first text inside `if .ToolCalls`, up to a brace, as the mark of calls in the model's output. The
# line break before a call is therefore written by an action.
_CALLS = (
    '{{ if .ToolCalls }}{{ range $j, $call := .ToolCalls }}{{ if or $j $message.Content }}{{ "\\n" }}{{ end }}'
    f'{formats.TOOL_CALL}\n{{"name": "{{{{ .Function.Name }}}}", "arguments": {{{{ .Function.Arguments }}}}}}\n'
    f"{formats.TOOL_CALL_END}{{{{ end }}}}{{{{ end }}}}"
)
# Results of tools that follow each other share a turn of the user, which the next message of another role ends.
_RESULT = (
    '{{ if ne $before "tool" }}<|im_start|>user{{ end }}\n<tool_response>\n{{ .Content }}\n</tool_response>'
    "{{ if $last }}<|im_end|>\n<|im_start|>assistant\n{{ end }}"
)
_MESSAGES = (
    '{{ $before := "" }}{{ range $i, $message := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}'
    f'{{{{ if eq .Role "tool" }}}}{_RESULT}{{{{ else }}}}{{{{ if eq $before "tool" }}}}<|im_end|>\n{{{{ end }}}}'
    f'{{{{ if ne .Role "system" }}}}<|im_start|>{{{{ .Role }}}}\n{{{{ .Content }}}}{_CALLS}'
    '{{ if not (and $last (eq .Role "assistant")) }}<|im_end|>\n{{ end }}'
    '{{ if and $last (ne .Role "assistant") }}<|im_start|>assistant\n{{ end }}{{ end }}{{ end }}'
    "{{ $before = .Role }}{{ end }}"
)
_PROMPT = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}"
# Go template for Ollama: fill-in-the-middle if the request has a suffix, otherwise ChatML. If the last message is the
# assistant's, the model continues that message.
CHAT_TEMPLATE = (
    f"{{{{ if .Suffix }}}}{_FIM}{{{{ else if .Messages }}}}{_SYSTEM}{_MESSAGES}"
    f"{{{{ else }}}}{_SYSTEM}{_PROMPT}{{{{ end }}}}"
)


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder has a chat template. Base models may lack a template."""
    settings = folder / "tokenizer_config.json"
    return read_chat_template(folder, read_json(settings) if settings.is_file() else {}) is not None


def modelfile(checkpoint: Qwen2Checkpoint, gguf: str, license_text: str | None) -> str:
    """Return Ollama's Modelfile for a GGUF file.

    The Modelfile's template is ChatML if the model has a chat template, and plain completion if it is a base model.
    Requests with a suffix use fill-in-the-middle in both cases. The ChatML template writes tools, tool calls and tool
    results as Qwen2.5's chat template does. The only difference is that Ollama writes JSON without blanks.

    Args:
        checkpoint: The model.
        gguf: Name of the GGUF file in the Modelfile's folder.
        license_text: The text or the name of the licence.
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
    """Return the sampling parameters in the model's generation_config.json, renamed as Ollama calls them."""
    file = folder / "generation_config.json"
    settings = read_json(file) if file.is_file() else {}
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}
    return {ours: float(settings[theirs]) for theirs, ours in names.items() if settings.get(theirs) is not None}


def license_text(folder: Path, license: str | None) -> str | None:
    """Return the text of the folder's licence file, or `license` if the folder has no licence file."""
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    return license


def write_ollama(checkpoint: Qwen2Checkpoint, gguf: Path, out: Path, name: str, license: str | None) -> Path:
    """Write a folder with a GGUF file, its Modelfile for `ollama create NAME -f Modelfile`, and settings for
    editors.
    """
    with fresh_folder(out) as scratch:
        link_or_copy(gguf, scratch / gguf.name)
        text = modelfile(checkpoint, gguf.name, license_text(checkpoint.folder, license))
        (scratch / "Modelfile").write_text(text, encoding="utf-8")
        write_editor_files(scratch, name, "ollama", chat=has_chat_template(checkpoint.folder))
    return out


def write_llama_cpp(checkpoint: Qwen2Checkpoint, files: list[Path], out: Path, name: str) -> str:
    """Write a folder for llama.cpp's server, with all parts of the GGUF, `serve.sh` and settings for editors.

    Return the command in `serve.sh`.
    """
    command = llama_server_command(checkpoint, files[0].name, name)
    with fresh_folder(out) as scratch:
        for file in files:
            link_or_copy(file, scratch / file.name)
        write_serve_script(scratch, command)
        write_editor_files(scratch, name, "llama.cpp", chat=has_chat_template(checkpoint.folder))
    return command


def copy_adapter(adapter: Path, out: Path) -> Path:
    """Copy the two files from which PEFT, vLLM and transformers load an adapter."""
    with fresh_folder(out) as scratch:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(adapter / name, scratch / name)
    return out


def write_folder(checkpoint: Qwen2Checkpoint, out: Path, name: str, card: str) -> Path:
    """Write a Hugging Face folder for transformers and vLLM: the model's files, a model card, `serve.sh`
    and settings for editors.

    config.json has RoPE and dtype under the keys of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and of
    transformers 5, so that older vLLM versions read the same values.
    """
    with fresh_folder(out) as scratch:
        for file in sorted(checkpoint.folder.iterdir()):
            if (
                file.is_file()
                and file.suffix in (".safetensors", ".json", ".jinja", ".txt", ".md", "")
                and (file.name not in ("config.json", "README.md", "artifact.json"))
            ):
                link_or_copy(file, scratch / file.name)
        (scratch / "config.json").write_text(json.dumps(portable_config(checkpoint.config), indent=2), encoding="utf-8")
        (scratch / "README.md").write_text(card, encoding="utf-8")
        write_serve_script(scratch, vllm_command(checkpoint, name))
        write_editor_files(scratch, name, "vllm", chat=has_chat_template(checkpoint.folder))
    return out


def write_serve_script(folder: Path, command: str) -> None:
    """Write the script `serve.sh`, which runs `command` in the folder of the script."""
    script = folder / "serve.sh"
    script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit 1\nexec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


def portable_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with RoPE and dtype under the keys of both transformers 4 and 5."""
    portable = dict(config)
    rope = portable.get("rope_parameters")
    if rope:
        portable["rope_theta"] = rope.get("rope_theta", portable.get("rope_theta"))
        if rope.get("rope_type", "default") != "default":
            portable["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if "dtype" in portable:
        portable["torch_dtype"] = portable["dtype"]
    return portable


def vllm_command(checkpoint: Qwen2Checkpoint, name: str, long: bool = False) -> str:
    """Return the command that serves a folder with vLLM. The command must be run inside the folder.

    Args:
        checkpoint: The model.
        name: Name of the served model.
        long: Whether to enable YaRN for four times the trained context, as Qwen documents for the 7B, 14B and 32B
            models. Must be False if the model's config.json already has YaRN.
    """
    words = ["vllm", "serve", ".", "--served-model-name", name]
    if not long:
        return shlex.join([*words, "--max-model-len", str(context_length(checkpoint))])
    original = int(checkpoint.config["max_position_embeddings"])
    rope = checkpoint.rope | {
        "rope_type": "yarn",
        "factor": float(LONG_CONTEXT_FACTOR),
        "original_max_position_embeddings": original,
    }
    length = LONG_CONTEXT_FACTOR * original
    overrides = json.dumps({"rope_parameters": rope, "max_position_embeddings": length})
    return shlex.join([*words, "--max-model-len", str(length), "--hf-overrides", overrides])


def llama_server_command(checkpoint: Qwen2Checkpoint, gguf: str, name: str, long: bool = False) -> str:
    """Return the command that serves a GGUF file with llama.cpp: chat at /v1/chat/completions, FIM at /infill.

    Args:
        checkpoint: The model.
        gguf: Path of the GGUF file.
        name: Name of the served model.
        long: Whether to enable YaRN for four times the trained context, as in `vllm_command`.
    """
    trained = context_length(checkpoint)
    length = LONG_CONTEXT_FACTOR * trained if long else trained
    words = ["llama-server", "--model", gguf, "--alias", name, "--ctx-size", str(length)]
    if long:
        words += ["--rope-scaling", "yarn", "--rope-scale", str(LONG_CONTEXT_FACTOR), "--yarn-orig-ctx", str(trained)]
        words += ["--override-kv", f"qwen2.context_length=int:{length}"]
    return shlex.join([*words, "--jinja"])


def supports_long_context(checkpoint: Qwen2Checkpoint) -> bool:
    """Whether YaRN can be added: Qwen documents YaRN for the model's size, and the model's config does not have YaRN
    yet.
    """
    return checkpoint.config["hidden_size"] >= LONG_CONTEXT_HIDDEN_SIZE and checkpoint.rope["rope_type"] == "default"


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Yield a scratch folder. If the `with` block ends without an exception, the folder replaces `out`.

    Raises:
        ValueError: A file could not be written. No files are left behind.
    """
    scratch = out.with_name(f".partial-{out.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        shutil.rmtree(out, ignore_errors=True)
        scratch.rename(out)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise ValueError(f"{out} could not be written ({error.strerror}); nothing is left of it") from error
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link to `source`, which takes no disk space, or a copy if the file system can't link."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
