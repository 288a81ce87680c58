"""Needle benchmarks and perplexity by position."""

import math

import pytest
import torch

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.needle import ANSWER_TOKENS, DEPTHS, LENGTHS, VARIANTS
from alignment.evaluation.positions import by_position, edges_of, long_windows


@pytest.fixture(scope="module")
def needles():
    return catalogue.load(BenchmarkRequest("needle-8k"))


def test_every_depth_has_the_same_number_of_problems(needles):
    assert len(needles.problems) == len(DEPTHS) * VARIANTS
    assert len({problem.id for problem in needles.problems}) == len(needles.problems)


@pytest.mark.parametrize("mode", ["base", "chat"])
def test_a_prompt_and_its_answer_fill_the_length(mode, tiny_tokenizer):
    for problem in catalogue.load(BenchmarkRequest("needle-8k", mode=mode)).problems[:3]:
        size = len(problem.prompt.encode(tiny_tokenizer))
        assert LENGTHS["needle-8k"] - 200 < size <= LENGTHS["needle-8k"] - ANSWER_TOKENS


def test_the_needle_occurs_once_at_its_depth(needles, tiny_tokenizer):
    for problem in needles.problems:
        text = problem.prompt.text(tiny_tokenizer)
        assert text.count(problem.reference) == 1
        assert text.index(problem.reference) / len(text) == pytest.approx(problem.row["depth"], abs=0.12)
        assert text.endswith("() == ")


def test_only_the_right_number_scores(needles):
    problem = needles.problems[0]
    assert needles.score(problem, f"{problem.reference}\n")["retrieved"] == 1
    for wrong in ("", "no idea", f"1{problem.reference}", f"123456 {problem.reference}"):
        assert needles.score(problem, wrong)["retrieved"] == 0


class Counter(torch.nn.Module):
    """A model that predicts the next token (the last one plus one) up to a position, and is uniform beyond it."""

    device = torch.device("cpu")

    class config:
        max_position_embeddings = 4096

    def __init__(self, vocabulary, sees):
        super().__init__()
        self.vocabulary, self.sees = vocabulary, sees
        self.lm_head = torch.nn.Identity()

    def model(self, input_ids, use_cache):
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        near = torch.arange(input_ids.shape[1]) < self.sees
        logits[:, near] = 50.0 * torch.nn.functional.one_hot(
            (input_ids[:, near] + 1) % self.vocabulary, self.vocabulary
        )
        return type("Output", (), {"last_hidden_state": logits})


def test_a_token_counts_in_the_bin_of_its_position():
    window = [number % 10 for number in range(2048)]
    rows = by_position(Counter(10, sees=1024), [window], 2048, [512, 1025, 2048])
    assert [row["perplexity"] for row in rows] == pytest.approx([1.0, 1.0, 10.0], rel=1e-3)
    assert sum(row["tokens"] for row in rows) == 2047  # the first token has no prediction


def test_perplexity_of_all_positions_is_that_of_the_models_loss(tiny_tokenizer):
    from alignment.models import loading
    from alignment.models.source import RandomInit

    init = RandomInit(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    model = loading.random_model(init, tiny_tokenizer, 0)
    ids = torch.randint(0, 256, (1, 300))
    rows = by_position(model, [ids[0].tolist()], 300, [300])
    with torch.no_grad():
        assert rows[0]["perplexity"] == pytest.approx(math.exp(model(input_ids=ids, labels=ids).loss.item()), rel=1e-4)


def test_a_length_beyond_model_or_documents_is_an_error(tiny_tokenizer):
    with pytest.raises(ValueError, match="has 4096 positions, fewer than 8192"):
        by_position(Counter(10, 1), [], 8192)
    with pytest.raises(ValueError, match="no document has 100 tokens"):
        long_windows([{"text": "short"}], tiny_tokenizer, 100, 3)


def test_bins_double_up_to_the_length():
    assert edges_of(2000) == [256, 512, 1024, 2000]
