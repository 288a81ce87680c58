"""Count the arithmetic operations of a model's forward and backward passes, from its shape.

    tokens_per_second = devices * rate * utilisation / training_operations(shape, micro)

A multiplication and an addition are two operations, so a product with a matrix of n weights takes 2 n operations for each
token. Sizes in the formulas: D = hidden size, L = layers, T = tokens in a row, V = vocabulary.
"""

from __future__ import annotations

from alignment.models.shapes import Shape
from alignment.planning.memory import MicroBatch, adapter_parameters

WITH_REFERENCE = ("dpo", "kto")
"""Kinds of stages that compare the model with a reference, which is the model without adapter, or a second model."""


def layer_weights(shape: Shape) -> int:
    """Return the number of weights in the matrices of all decoder layers."""
    return shape.num_hidden_layers * sum(inputs * outputs for inputs, outputs in shape.linear_sizes().values())


def attention_operations(shape: Shape, length: int) -> float:
    """Return the operations of causal attention per token, forward.

    A token attends to T / 2 tokens on average; scores and weighted values take 2 D operations for each of them.
    """
    return shape.num_hidden_layers * 2.0 * length * shape.hidden_size


def forward_operations(shape: Shape, length: int) -> float:
    """Return the operations per token of a forward pass over rows of `length` tokens, with the output layer."""
    head = 2.0 * shape.vocab_size * shape.hidden_size
    return 2.0 * layer_weights(shape) + attention_operations(shape, length) + head


def training_operations(shape: Shape, micro: MicroBatch) -> float:
    """Return the operations per token of forward and backward pass, without the generation of rollouts.

    The backward pass takes one product for the gradient of a layer's input, and one for the gradient of its weights.
    Frozen weights need no second product. Gradient checkpointing computes the layers a second time. A reference model
    adds a forward pass.
    """
    layers = 2.0 * layer_weights(shape)
    head = 2.0 * shape.vocab_size * shape.hidden_size
    attention = attention_operations(shape, micro.length)
    trained = 1 if micro.lora is None else 0
    total = (2 + trained) * (layers + head) + 3 * attention  # the backward pass of attention has two products for each
    if micro.checkpointing:
        total += layers + attention
    if micro.lora is not None:
        total += 6.0 * adapter_parameters(shape, micro.lora)
    if micro.kind in WITH_REFERENCE or micro.reference:
        total += layers + head + attention
    return total
