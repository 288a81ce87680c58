"""Provide texts for calibration, for the comparison of exports, and for the check of tokenizers."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from alignment.models import formats
from alignment.rows import reading as row_files
from alignment.rows.kinds import Row
from alignment.rows.row_texts import ModelText, model_text

# Modules of Python's standard library whose source is used as held-out code if the caller gives no held-out rows.
STANDARD_MODULES = ("argparse", "ast", "configparser", "csv", "heapq", "inspect", "pathlib", "tempfile", "textwrap")

# Texts that tokenizers are known to split differently. All texts are in Unicode normal form C. Qwen's tokenizer
# normalizes text and llama.cpp does not, so decomposed text (e + combining accent) would differ for every GGUF file.
HARD_CORPUS = (
    "",
    " ",
    "   ",
    "\n",
    "\n\n\n",
    "\t\tindented\n\t\t\tmore\n",
    "  \n \t \r\n\r\n    x = 1   \n",
    "a  b   c    d     e      f" + " " * 33 + "g",
    "0 12 345 6789 1234567890 3.14159e-10 0xDEADBEEF 1_000_000 ¼ ² ٣ १२",
    "it's we're I'LL you'Ve 'tis don'T 'RE",
    "def f(x: int) -> str:\n    return f'{x!r:>10}'  # комментарий\n",
    "for(int i=0;i<n;++i){a[i]=b[i]<<2|c[i]>>3;}//end\r\n",
    "SELECT * FROM t WHERE a='b' AND c<>\"d\";--",
    "你好，世界。コードを書く 한국어 코드 漢字かな混じり文１２３",
    "مرحبا بالعالم שלום עולם हिन्दी ไทย ქართული Ελληνικά Việt Nam",
    "🚀👩‍👩‍👧‍👦🏳️‍🌈👍🏽 😶‍🌫️ e\u200bf \u00a0 \u3000 \u2028 \ufeff",
    "\x00\x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f\x85",
    "naïve café Ångström ﬁ ß İ ǆ",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β → 𝔸𝕓",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + "=" * 77 + "-" * 130,
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case __dunder__ $x @decorator #include <stdio.h>",
    "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|fim_prefix|>def f():\n    <|fim_suffix|>\n    return x<|fim_middle|>x = 1<|endoftext|>",
    "<|repo_name|>a/b\n<|file_sep|>a.py\nx = 1\n<|file_sep|>b.py\n<|fim_pad|>",
    '<tool_call>\n{"name": "f"}\n</tool_call>',
    "<|im_start <|im_end|> |> <|unknown|> <| endoftext |> <|endoftext|><|endoftext|>x<|fim_prefix|",
    "[PAD151700] [PAD700] <s> </s> <unk> [INST] <0x0A> ▁",
)


def read_rows(source: str | Path | Sequence[Row] | None, limit: int | None = None) -> list[Row]:
    """Return the first `limit` rows of a list, of a JSONL or Parquet file, or of a folder. Return [] for None."""
    if source is None:
        return []
    if not isinstance(source, (str, Path)):
        return list(source)[:limit]
    return row_files.read_rows(source, limit)


def calibration_texts(rows: Iterable[Row], seed: int = 0, fim: float = 0.5) -> list[ModelText]:
    """Turn rows into texts in the formats that the model was trained on.

    Args:
        rows: Documents, conversations and preferences.
        seed: Seed of the random gaps.
        fim: Share of the documents that become fill-in-the-middle with a random gap. The other documents stay plain.
    """
    generator = random.Random(seed)
    texts: list[ModelText] = []
    documents = gaps = 0
    for row in rows:
        text = model_text(row)
        if text.form == "plain":
            documents += 1
            if gaps < int(fim * documents) and len(text.text) > 2:
                gaps += 1
                start, end = sorted(generator.sample(range(len(text.text)), 2))
                document = formats.fim_document(text.text[:start], text.text[start:end], text.text[end:])
                text = ModelText(document, "fim")
        texts.append(text)
    return texts


def excerpts(texts: Sequence[str], characters: int, seed: int = 0) -> list[str]:
    """Return an excerpt of each text in random order, and behind them the rest of the texts. A single text stays whole.

    The first rows of a corpus are often of one folder, and the first lines of a file are its license and imports. A
    comparison on excerpts of many files measures the code that the model was trained on.

    Args:
        texts: The texts.
        characters: Maximum length of an excerpt. Each excerpt begins at a random line.
        seed: Seed of the order and of the lines.
    """
    if len(texts) == 1:
        return list(texts)
    generator = random.Random(seed)
    parts, rest = [], []
    for text in generator.sample(texts, len(texts)):
        last_start = max(0, len(text) - characters)
        start = text.rfind("\n", 0, generator.randint(0, last_start)) + 1
        parts.append(text[start : start + characters])
        rest += [text[:start], text[start + characters :]]
    return [*parts, *(text for text in rest if text)]


def standard_library_texts() -> list[str]:
    """Return source code of Python's standard library.

    Exports are compared on it if the user gives no held-out rows.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    candidates = [folder / f"{name}.py" for name in STANDARD_MODULES]
    return [file.read_text(encoding="utf-8") for file in candidates if file.is_file()]
