"""The chat of the live page with a model in a process of its own."""

import pytest
import sample_run

pytest.importorskip("starlette", reason="needs the extra [serve]")

from starlette.testclient import TestClient

from alignment.ui.chat_models import ChatModels, ChatRequest
from alignment.ui.page_server import application
from alignment.ui.run_library import RunLibrary

HERE = "http://127.0.0.1:8712"


def question(**changes):
    return {"model": "sft", "messages": [{"role": "user", "content": "def add"}], "max_new_tokens": 4, **changes}


def write_model(folder, tokenizer_dir):
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_a_model_of_the_run_answers_and_is_unloaded(tmp_path, tiny_tokenizer_dir):
    run = sample_run.write_run(tmp_path / "shop")
    write_model(sample_run.folder_of(run, "sft") / "model", tiny_tokenizer_dir)
    with TestClient(application(RunLibrary([tmp_path])), base_url=HERE, headers={"Origin": HERE}) as client:
        assert client.get("/api/runs/shop/models").json() == {"models": [["sft", "sft"]]}
        first = client.post("/api/runs/shop/chat", json=question()).json()
        again = client.post("/api/runs/shop/chat", json=question()).json()
        assert first["tokens"] == 4 and first["finish"] == "length" and first["text"] == again["text"]
        text = client.post("/api/runs/shop/chat", json=question(mode="continue")).json()
        assert 1 <= text["tokens"] <= 4


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_explained(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    models = ChatModels()
    with pytest.raises(ValueError, match="the process of the model has ended: "):
        models.reply(folder, ChatRequest.model_validate(question()))
    assert models.loaded() == []


@pytest.mark.slow
def test_a_third_model_replaces_the_one_that_was_used_least_recently(tmp_path, tiny_tokenizer_dir):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    models = ChatModels()
    try:
        for folder in folders:
            write_model(folder, tiny_tokenizer_dir)
            models.reply(folder, ChatRequest.model_validate(question()))
        assert models.loaded() == folders[1:]
        models.unload_idle(3600)
        assert models.loaded() == folders[1:]
        models.unload_idle(0)
        assert models.loaded() == []
    finally:
        models.close()
