"""Files for runtimes: llama.cpp's server is started, Ollama's template is rendered by Go, vLLM's folder is loaded."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from export_models import training_text

from alignment.export import serving_files
from alignment.export.checkpoint import open_checkpoint
from alignment.models import formats

RENDER = """
package main
import ("encoding/json"; "os"; "text/template")
type Object map[string]any
func (object Object) String() string { text, _ := json.Marshal(map[string]any(object)); return string(text) }
type Function struct { Name string; Arguments Object }
type Call struct { Function Function }
type Tool struct { Type string; Function Object }
type Message struct { Role, Content string; ToolCalls []Call }
type Request struct { System, Prompt, Suffix, Response string; Messages []Message; Tools []Tool }
func main() {
	text, _ := os.ReadFile(os.Args[1])
	var request Request
	if err := json.NewDecoder(os.Stdin).Decode(&request); err != nil { panic(err) }
	if err := template.Must(template.New("").Parse(string(text))).Execute(os.Stdout, request); err != nil { panic(err) }
}
"""


@pytest.fixture(scope="module")
def server(exported):
    file = next(row["file"] for row in exported if row["level"] == "q8_0")
    command = [
        sys.executable,
        "-m",
        "alignment.evaluation.engines.llamacpp_server",
        file,
        "--port",
        "0",
        "--context",
        "512",
    ]
    process = subprocess.Popen(
        [*command, "--threads", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    address = next((line.strip() for line in process.stdout if line.startswith("http://")), None)
    assert address, "the server printed no address"
    yield address
    process.stdin.close()
    process.wait(timeout=60)


def post(address: str, path: str, body: dict) -> dict:
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_the_server_chats_with_the_models_own_template(server):
    body = {"messages": [{"role": "user", "content": "def f"}], "max_tokens": 4, "temperature": 0}
    answer = post(server, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 4
    prompt = post(server, "/apply-template", {"messages": body["messages"]})["prompt"]
    assert prompt == formats.chat(body["messages"], add_generation_prompt=True)


def test_the_server_completes_learned_code(server):
    text = training_text()
    end = text.index("\n", 60) + 1
    answer = post(server, "/v1/completions", {"prompt": text[:end], "max_tokens": 12, "temperature": 0})
    assert len(answer["choices"][0]["text"]) > 10
    assert text[end:].startswith(answer["choices"][0]["text"])


def test_the_server_fills_in_the_middle(server, trained):
    from transformers import AutoTokenizer

    body = {"input_prefix": "def f(", "input_suffix": "):\n    return 1", "n_predict": 3, "temperature": 0}
    answer = post(server, "/infill", body)
    expected = AutoTokenizer.from_pretrained(trained).encode(formats.fim_prompt("def f(", "):\n    return 1"))
    assert answer["tokens_evaluated"] == len(expected)


def render(tmp_path: Path, template: str, request: dict) -> str:
    if shutil.which("go") is None:
        pytest.skip("needs Go, whose template language Ollama uses")
    (tmp_path / "main.go").write_text(RENDER)
    (tmp_path / "template").write_text(template)
    command = ["go", "run", str(tmp_path / "main.go"), str(tmp_path / "template")]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_ollamas_template_writes_chatml_and_fim_to_the_byte(tmp_path, system):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    first = [{"role": "system", "content": system}] if system else []
    request = {"Messages": first + messages, "System": system or ""}
    expected = formats.chat(first + messages, add_generation_prompt=True)
    assert render(tmp_path, serving_files.CHAT_TEMPLATE, request) == expected
    request = {"Prompt": "c", "System": system or ""}
    expected = formats.chat([*first, {"role": "user", "content": "c"}], add_generation_prompt=True)
    assert render(tmp_path, serving_files.CHAT_TEMPLATE, request) == expected
    for template in (serving_files.CHAT_TEMPLATE, serving_files.COMPLETION_TEMPLATE):
        assert render(tmp_path, template, {"Prompt": "x", "Suffix": "y"}) == formats.fim_prompt("x", "y")


@pytest.mark.slow
@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("end", [1, 3, 6, 8])  # a question, one result, two results in a row, a question after them
def test_ollamas_template_writes_tools_calls_and_results_as_the_official_template(tmp_path, system, end, monkeypatch):
    function = {"description": "Look.", "name": "lookup", "parameters": {"properties": {"key": {"type": "string"}}}}
    tools = [{"type": "function", "function": function}]

    def calls(content, *keys):
        called = [{"function": {"name": "lookup", "arguments": {"key": key}}} for key in keys]
        return {"role": "assistant", "content": content, "tool_calls": called}

    messages = [
        {"role": "user", "content": "q"},
        calls("", "a"),
        {"role": "tool", "content": "1"},
        calls("Two more.", "b", "c"),
        {"role": "tool", "content": "2"},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "Thanks."},
    ][:end]
    first = [{"role": "system", "content": system}] if system else []
    go = [
        {"Role": message["role"], "Content": message["content"], "ToolCalls": message.get("tool_calls", [])}
        for message in messages
    ]
    request = {"Messages": go, "System": system or "", "Tools": tools}
    written = render(tmp_path, serving_files.CHAT_TEMPLATE, request)
    dumps = json.dumps
    monkeypatch.setattr(
        json,
        "dumps",
        lambda value, **_: dumps(value, separators=(",", ":")) if "function" not in value else official(value),
    )

    def official(tool):  # Ollama's own template has blanks around the function, too
        return f'{{"type": "function", "function": {dumps(tool["function"], separators=(",", ":"))}}}'

    assert written == formats.chat(first + messages, add_generation_prompt=True, tools=tools)


def test_ollama_finds_the_mark_of_calls_in_the_template():
    """Ollama reads the first text node inside `if .ToolCalls`, up to a brace."""
    inside = serving_files.CHAT_TEMPLATE.split("{{ if .ToolCalls }}", 1)[1]
    text = next(part for part in re.split(r"\{\{.*?\}\}", inside) if part)
    assert text.partition("{")[0].strip() == "<tool_call>" and serving_files.CHAT_TEMPLATE.count("ToolCalls") == 2


def test_the_ollama_folder_has_stops_context_sampling_and_licence(exported, trained, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    (model / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "repetition_penalty": 1.05}))
    (model / "LICENSE").write_text("Use it well.")
    gguf = Path(next(row["file"] for row in exported if row["level"] == "q4_K_M"))
    folder = serving_files.write_ollama(open_checkpoint(model), gguf, tmp_path / "ollama", "tiny", "apache-2.0")
    text = (folder / "Modelfile").read_text()
    assert text.startswith(f"FROM ./{gguf.name}\n")
    assert (folder / gguf.name).read_bytes() == gguf.read_bytes()
    for stop in formats.FIM_STOP_TOKENS:
        assert f'PARAMETER stop "{stop}"\n' in text
    assert "PARAMETER num_ctx 2048\n" in text
    assert "PARAMETER temperature 0.7\nPARAMETER repeat_penalty 1.05\n" in text
    assert 'LICENSE """Use it well."""' in text
    assert serving_files.CHAT_TEMPLATE in text


def test_a_base_model_without_a_chat_template_gets_no_chatml(trained, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    text = serving_files.modelfile(open_checkpoint(model), "x.gguf", None)
    assert serving_files.COMPLETION_TEMPLATE in text
    assert "<|im_start|>system" not in text


def test_the_config_for_vllm_has_the_same_values_in_old_and_new_form(trained, tmp_path):
    from transformers import AutoConfig

    model = shutil.copytree(trained, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 2048}
    (model / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    folder = serving_files.write_folder(open_checkpoint(model), tmp_path / "out", "tiny", "# card")
    written = json.loads((folder / "config.json").read_text())
    assert written["rope_theta"] == 1e6
    assert written["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    assert written["torch_dtype"] == written["dtype"] == "bfloat16"
    loaded = AutoConfig.from_pretrained(folder)
    assert dict(loaded.rope_parameters) == rope
    assert "--max-model-len 8192" in (folder / "serve.sh").read_text()
    assert (folder / "README.md").read_text() == "# card"


def test_commands_for_long_context_ask_for_yarn(trained):
    checkpoint = open_checkpoint(trained)
    vllm = serving_files.vllm_command(checkpoint, "tiny", long=True)
    assert "--max-model-len 8192" in vllm
    assert '"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048' in vllm.replace("'", "")
    server = serving_files.llama_server_command(checkpoint, "m.gguf", "tiny", long=True)
    assert "--rope-scaling yarn --rope-scale 4 --yarn-orig-ctx 2048" in server
    assert not serving_files.supports_long_context(checkpoint)
