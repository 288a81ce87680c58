"""Tiny Qwen2 models for the export tests, with a tokenizer built like Qwen2.5's own."""

import inspect
import json
import shutil
import textwrap
from pathlib import Path

from alignment import formats
from alignment.export.vocabulary import QWEN2_SPLIT

# Settings of the gate for models of this size.
GATE = {"context": 128, "positions": 380, "greedy_prompts": 2, "greedy_tokens": 16}


def training_text() -> str:
    """Real code that every machine has."""
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
