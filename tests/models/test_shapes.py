"""The shapes of the six Qwen2.5-Coder models, built on the meta device, which takes no memory."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignment.models import shapes

# Parameters with and without embeddings, in billions, as stated on the pages of the models.
STATED = {
    "0.5b": (0.49, 0.36),
    "1.5b": (1.54, 1.31),
    "3b": (3.09, 2.77),
    "7b": (7.61, 6.53),
    "14b": (14.7, 13.1),
    "32b": (32.5, 31.0),
}


@pytest.mark.parametrize("size", shapes.SHAPES)
def test_meta_model_has_the_stated_number_of_parameters(size):
    shape = shapes.SHAPES[size]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.config(size))
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == shape.parameters
    total, without_embeddings = STATED[size]
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    assert counted / 1e9 == pytest.approx(total, rel=0.01)
    assert (counted - embeddings) / 1e9 == pytest.approx(without_embeddings, rel=0.01)
    head = shape.hidden_size // shape.num_attention_heads
    layer = model.model.layers[0]
    assert tuple(layer.self_attn.k_proj.weight.shape) == (head * shape.num_key_value_heads, shape.hidden_size)
    assert tuple(layer.mlp.down_proj.weight.shape) == (shape.hidden_size, shape.intermediate_size)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == shape.tie_word_embeddings


def test_an_unknown_size_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"0\.5b, 1\.5b, 3b, 7b, 14b, 32b"):
        shapes.config("8b")
