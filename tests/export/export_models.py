"""Tiny Qwen2 models for the export tests, with a tokenizer built like Qwen2.5's."""

import inspect
import json
import math
import shutil
import struct
import textwrap
from pathlib import Path

import numpy as np

from alignment.export.vocabulary import QWEN2_SPLIT
from alignment.models import formats

# `Comparison` settings for models of this size.
GATE = {"context": 128, "positions": 380, "greedy_prompts": 2, "greedy_tokens": 16}


def training_text() -> str:
    """Source code of the standard library."""
    return inspect.getsource(textwrap) + inspect.getsource(shutil)[:20000]


def make_tokenizer(folder: Path, size: int = 640) -> None:
    """A byte-level BPE of `size` tokens with Qwen2.5's split rule, normalizer and added tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([training_text()], trainer)
    tokenizer.add_tokens(
        [AddedToken(text, special=special, normalized=False) for text, special in formats.ADDED_TOKENS]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": formats.ENDOFTEXT,
        "pad_token": formats.ENDOFTEXT,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": formats.CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make_model(folder: Path, *, tied: bool = True, steps: int = 0, dtype: str = "bfloat16", **config) -> Path:
    """Save a tiny Qwen2 model to `folder`, trained for `steps` on `training_text`."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids(formats.ENDOFTEXT)
    shape = {
        "vocab_size": 704,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = Qwen2ForCausalLM(
        Qwen2Config(**(shape | config), tie_word_embeddings=tied, bos_token_id=end, eos_token_id=end)
    )
    batch = torch.tensor(tokenizer.encode(training_text()[:6000])[:512]).view(4, 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        rows = batch[step % 2 * 2 : step % 2 * 2 + 2]
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and not steps:
                parameter.normal_(std=0.02)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


HALF_BILLION = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
}
"""The shape of Qwen2.5-Coder-0.5B."""


def make_random_model(folder: Path, shape: dict, tokenizer: Path, *, tied: bool = True) -> Path:
    """Write random bfloat16 weights in a Qwen2 `shape`, tensor by tensor, without torch; copy the tokenizer."""
    from alignment.export.checkpoint import expected_shapes
    from alignment.export.gguf_file import to_bfloat16

    folder.mkdir(parents=True)
    config = shape | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": tied,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    header, end = {}, 0
    shapes = expected_shapes(config, tied)
    for name, dimensions in shapes.items():
        start, end = end, end + 2 * math.prod(dimensions)
        header[name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [start, end]}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    # All tensors share one pool of numbers: drawing half a billion takes longer than writing them. Its length is odd,
    # so that no two rows are equal.
    pool = np.random.default_rng(0).standard_normal((1 << 22) - 1, dtype=np.float32) * np.float32(0.02)
    plain, norm = to_bfloat16(pool), to_bfloat16(pool + np.float32(1))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dimensions in shapes.items():
            file.write(np.resize(norm if "norm" in name else plain, dimensions).data)
    return folder
