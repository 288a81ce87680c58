"""A GGUF file is measured in llama.cpp: greedy tokens, the nucleus, stop ids, and an evaluation from end to end."""

import json
from pathlib import Path

import pytest
import torch
from export_models import training_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.evaluation import evaluate
from alignment.evaluation.engines.llamacpp_engine import LlamaCppEngine
from alignment.evaluation.engines.protocol import GenerationJob
from alignment.evaluation.engines.selection import open_engine

TEMPERATURE, TOP_P = 3.0, 0.5


@pytest.fixture(scope="module")
def file(exported) -> str:
    return next(row["file"] for row in exported if row["level"] == "f16")


@pytest.fixture(scope="module")
def engine(file):
    engine = open_engine(file)
    assert isinstance(engine, LlamaCppEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def model(trained):
    return AutoModelForCausalLM.from_pretrained(trained, dtype="float32").eval()


def prompts(tokenizer, count: int) -> list[list[int]]:
    ids = tokenizer.encode(training_text()[:20000])
    return [ids[start : start + 48] for start in range(0, 48 * count, 48)]


def test_tokenizer_and_greedy_tokens_are_the_models(engine, model, trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    jobs = [GenerationJob(str(number), ids, 16) for number, ids in enumerate(prompts(tokenizer, 8))]
    completions = {job.key: completion for job, completion in engine.generate(jobs)}
    equal = 0
    for job in jobs:
        with torch.no_grad():
            output = model.generate(torch.tensor([job.ids]), max_new_tokens=16, do_sample=False)
        expected = tokenizer.decode(output[0, len(job.ids) :], skip_special_tokens=True)
        equal += completions[job.key].text == expected
        assert completions[job.key].tokens <= 16
    assert equal >= 7, "float16 weights may round one of eight completions to another token"


def test_samples_stay_in_the_nucleus_of_the_tempered_distribution(engine, model, trained):
    ids = prompts(AutoTokenizer.from_pretrained(trained), 1)[0]
    with torch.no_grad():
        share = torch.softmax(model(torch.tensor([ids])).logits[0, -1] / TEMPERATURE, -1)
    ordered = share.sort(descending=True)
    nucleus = {int(token) for token in ordered.indices[ordered.values.cumsum(0) - ordered.values < TOP_P]}
    jobs = [GenerationJob(str(n), ids, 1, temperature=TEMPERATURE, top_p=TOP_P, seed=n) for n in range(300)]
    texts = {completion.text for _, completion in engine.generate(jobs)}
    allowed = {engine.tokenizer.decode([token], skip_special_tokens=True) for token in nucleus}
    # With llama.cpp's own order (top_p first), its top_k of 40 and min_p, far fewer different tokens would come.
    assert texts <= allowed and len(texts) > min(45, len(allowed) // 2)


def test_a_completion_ends_before_a_stop_id_and_a_stop_string(engine, trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    ids = prompts(tokenizer, 1)[0]
    ((_, free),) = engine.generate([GenerationJob("free", ids, 12)])
    stop_id = tokenizer.encode(free.text)[5]
    ((_, cut),) = engine.generate([GenerationJob("ids", ids, 12, stop_ids=(stop_id,))])
    assert cut.finish == "stop" and free.text.startswith(cut.text) and cut.tokens <= 5
    word = free.text[6:9]
    ((_, by_word),) = engine.generate([GenerationJob("word", ids, 12, stop=(word,))])
    assert by_word.finish == "stop" and by_word.text == free.text.split(word)[0]


def test_an_evaluation_takes_a_gguf_file(file, tmp_path):
    text = training_text()
    rows = [{"id": f"t{n}", "prefix": text[n * 400 : n * 400 + 200], "suffix": "\n", "middle": "x"} for n in range(4)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "own", "benchmark": "completion", "data": str(data), "max_new_tokens": 8}
    figures = evaluate(file, [entry], tmp_path / "out")
    assert {figure["n"] for figure in figures} == {4}
    stored = (tmp_path / "out" / "raw").iterdir()
    assert any("completions" in path.name for path in stored)


def test_a_gguf_file_and_its_engine_belong_together(file, trained, tmp_path):
    with pytest.raises(ValueError, match=r"transformers does not read GGUF files\. Use engine: llamacpp, or convert"):
        open_engine(file, "transformers")
    with pytest.raises(ValueError, match="llamacpp reads GGUF files only"):
        open_engine(str(trained), "llamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(Path(file).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"broken\.gguf is not a GGUF file, or is cut off"):
        open_engine(str(broken))
