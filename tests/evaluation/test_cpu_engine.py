"""Generation on a CPU: the decoder computes what transformers computes, whatever is batched and shared."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from alignment.evaluation.engines import cpu_engine
from alignment.evaluation.engines.cpu_decoder import CpuDecoder, PackedLinear, unsupported_reason
from alignment.evaluation.engines.cpu_engine import CpuEngine
from alignment.evaluation.engines.protocol import GenerationJob
from alignment.evaluation.engines.transformers_engine import TransformersEngine

PROMPTS = [list(range(10, 10 + length)) for length in (3, 17, 9, 30, 5)]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    """A checkpoint with several layers, and several query heads for each of several key heads."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    config = Qwen2Config(
        vocab_size=288, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # transformers starts them at zero
                parameter.normal_()
    folder = tmp_path_factory.mktemp("decoder")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def engine(model, folder, **settings):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return CpuEngine(model, tokenizer, stop_ids=settings.pop("stop_ids", ()), max_length=512, **settings)


def jobs(samples=1, **settings):
    return [
        GenerationJob(key=f"{number}:{sample}", ids=prompt, seed=100 * number + sample, **settings)
        for number, prompt in enumerate(PROMPTS)
        for sample in range(samples)
    ]


def texts(engine, jobs):
    return {job.key: completion for job, completion in engine.generate(jobs)}


def test_logits_equal_those_of_transformers_at_every_step(model):
    decoder = CpuDecoder(model)
    cache, logits = decoder.prefill(PROMPTS, samples=2, room=6)
    continuations = [[torch.randint(5, 280, (6,)).tolist() for _ in range(2)] for _ in PROMPTS]
    for number, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(logits[number], model(torch.tensor([prompt])).logits[0, -1])
    for step in range(6):
        logits = decoder.step(cache, torch.tensor([[rows[step] for rows in group] for group in continuations]))
        for number, prompt in enumerate(PROMPTS):
            for sample in range(2):
                ids = [*prompt, *continuations[number][sample][: step + 1]]
                expected = model(torch.tensor([ids])).logits[0, -1]
                torch.testing.assert_close(logits[number, sample], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.8}, {"temperature": 1.0, "top_p": 0.8}])
def test_completions_equal_those_of_the_transformers_engine(model, folder, settings):
    wanted = jobs(3, max_new_tokens=12, **settings)
    reference = TransformersEngine(str(folder), dtype="float32")
    ours = engine(model, folder, stop_ids=reference.stop_ids)
    assert texts(ours, wanted) == texts(reference, wanted)


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 64])
def test_a_completion_does_not_depend_on_how_many_rows_are_decoded_together(model, folder, rows):
    wanted = jobs(4, max_new_tokens=10, temperature=1.0)
    # Sequences end at different steps, so that groups shrink and new prompts join running ones.
    stops = tuple(range(0, 1000, 9))
    expected = texts(engine(model, folder, stop_ids=stops, batch_size=1), wanted)
    assert texts(engine(model, folder, stop_ids=stops, batch_size=rows), wanted) == expected


def test_a_prompt_is_computed_once_for_all_its_samples(model, folder, monkeypatch):
    ours = engine(model, folder)
    computed = []
    prefill = ours.decoder.prefill
    monkeypatch.setattr(
        ours.decoder, "prefill", lambda prompts, *rest: computed.extend(prompts) or prefill(prompts, *rest)
    )
    texts(ours, jobs(5, max_new_tokens=3))
    assert sorted(computed) == sorted(PROMPTS)


def test_prompts_wait_where_memory_for_keys_and_values_is_short(model, folder, monkeypatch):
    monkeypatch.setattr(cpu_engine, "CACHE_SHARE", 0.0)
    assert len(texts(engine(model, folder), jobs(2, max_new_tokens=3))) == 10


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_a_packed_layer_equals_the_unpacked_one_in_bfloat16(rows):
    weight, bias = torch.randn(96, 64, dtype=torch.bfloat16), torch.randn(96, dtype=torch.bfloat16)
    x = torch.randn(rows, 64, dtype=torch.bfloat16)
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(PackedLinear(weight, bias)(x), expected, atol=0.1, rtol=0.02)


def test_models_that_compute_something_else_are_left_to_transformers(model):
    assert unsupported_reason(model) is None
    config = Qwen2Config(**(model.config.to_dict() | {"use_sliding_window": True, "sliding_window": 8}))
    assert unsupported_reason(AutoModelForCausalLM.from_config(config)) == "sliding-window attention"
