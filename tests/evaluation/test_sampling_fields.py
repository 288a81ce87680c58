"""top_k, min_p and repetition_penalty: the same tokens as transformers keeps, in every engine or refused."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_request import parse_request
from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens
from alignment.evaluation.engines.protocol import ALL_SAMPLING_FIELDS, GenerationJob, refuse_unsupported

LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0])


def frequencies(draws=3000, **settings):
    """Shares of the tokens that are drawn with the given settings."""
    sequences = [
        DecodedSequence(GenerationJob("", [1, 6], 1, temperature=0.8, seed=seed, **settings), 9)
        for seed in range(draws)
    ]
    tokens = choose_tokens(LOGITS.repeat(draws, 1), sequences)
    return torch.bincount(torch.tensor(tokens), minlength=len(LOGITS)) / draws


@pytest.mark.parametrize(
    ("settings", "processors"),
    [
        ({"top_k": 3}, [TopKLogitsWarper(3)]),
        ({"min_p": 0.3}, [MinPLogitsWarper(0.3)]),
        ({"top_k": 5, "top_p": 0.7}, [TopKLogitsWarper(5), TopPLogitsWarper(0.7)]),
        ({"top_p": 0.9, "min_p": 0.35}, [TopPLogitsWarper(0.9), MinPLogitsWarper(0.35)]),
        (
            {"top_k": 6, "top_p": 0.95, "min_p": 0.1},
            [TopKLogitsWarper(6), TopPLogitsWarper(0.95), MinPLogitsWarper(0.1)],
        ),
        ({"repetition_penalty": 1.6}, []),
    ],
)
def test_tokens_are_drawn_from_the_probabilities_of_transformers(settings, processors):
    penalty = settings.get("repetition_penalty", 1.0)
    chain = LogitsProcessorList(
        [
            *([RepetitionPenaltyLogitsProcessor(penalty)] if penalty != 1 else []),
            TemperatureLogitsWarper(0.8),
            *processors,
        ]
    )
    expected = chain(torch.tensor([[1, 6]]), LOGITS[None].clone()).softmax(-1)[0]
    drawn = frequencies(**settings)
    assert drawn == pytest.approx(expected, abs=0.035)
    assert not drawn[expected == 0].any()


def test_the_repetition_penalty_counts_prompt_and_completion_in_greedy_decoding_too():
    sequence = DecodedSequence(GenerationJob("", [0], 9, repetition_penalty=2.0), 9)
    logits = LOGITS[None].clone()
    assert choose_tokens(logits, [sequence]) == [1]  # token 0 is in the prompt
    sequence.add(1, (), None)
    assert choose_tokens(logits, [sequence]) == [0]  # both are penalized now, and 2.0 / 2 is the largest
    assert torch.equal(logits[0], LOGITS)


def test_filters_of_one_sequence_do_not_change_the_draw_of_another():
    def job(**settings):
        return DecodedSequence(GenerationJob("", [0], 1, temperature=1.0, seed=5, **settings), 9)

    alone = choose_tokens(LOGITS[None], [job(top_p=0.9)])
    together = choose_tokens(LOGITS.repeat(3, 1), [job(top_k=1), job(top_p=0.9), job(min_p=0.9)])
    assert together == [0, *alone, 0]


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"temperature": 1.0, "top_k": 5}, {"top_k"}),
        ({"temperature": 1.0, "min_p": 0.1}, {"min_p"}),
        ({"temperature": 1.0, "min_p": 0.1, "top_p": 0.5}, {"min_p", "top_p", "top_p with min_p"}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty"}),
        ({"top_k": 5, "min_p": 0.1}, set()),  # without effect in greedy decoding
    ],
)
def test_a_setting_with_an_effect_is_refused_where_the_engine_lacks_it(settings, fields):
    job = GenerationJob("a", [1], 8, **settings)
    assert job.sampling_fields() - {"temperature", "seed"} == fields
    refuse_unsupported([job], "all", ALL_SAMPLING_FIELDS)
    if fields:
        with pytest.raises(ValueError, match="few does not support"):
            refuse_unsupported([job], "few", frozenset(("temperature", "seed", "top_p")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": -1}, "top_k is -1: it must be at least 0"),
        ({"min_p": 1.5}, "min_p is 1.5: it must be from 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0: it must be above 0"),
        ({"top_k": 5}, "top_k has no effect at temperature 0"),
        ({"min_p": 0.1}, "min_p has no effect at temperature 0"),
    ],
)
def test_wrong_values_and_settings_without_effect_are_refused(settings, message, write_rows):
    rows = write_rows([{"id": "a", "prefix": "x = ", "suffix": "\n", "middle": "1"}])
    with pytest.raises(ValueError, match=message):
        catalogue.load(parse_request({"benchmark": "fim", "data": str(rows), **settings}))


def test_settings_of_a_recipe_reach_the_benchmark(write_rows):
    rows = write_rows([{"id": "a", "prefix": "x = ", "suffix": "\n", "middle": "1"}])
    entry = {
        "benchmark": "fim",
        "data": str(rows),
        "temperature": 0.5,
        "top_k": 20,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
    }
    benchmark = catalogue.load(parse_request(entry))
    assert (benchmark.top_k, benchmark.min_p, benchmark.repetition_penalty) == (20, 0.05, 1.1)
