"""Count tokens with a model's own tokenizer, or estimate them where none is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

BYTES_PER_TOKEN = 3.0
"""The estimate where there is no tokenizer. Qwen2.5 needs about 3.3 bytes a token on Python."""


class TokenCounter:
    """`count(texts)` gives their lengths in tokens. `tokenizer` is a folder with `tokenizer.json`, or that file."""

    def __init__(self, tokenizer: str | Path | None = None) -> None:
        self.exact = tokenizer is not None
        if tokenizer is None:
            return
        path = Path(tokenizer)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(f"no tokenizer.json at {path}; name the folder of a model or tokenizer")
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))

    def count(self, texts: Sequence[str]) -> list[int]:
        if not self.exact:
            return [max(1, round(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)) for text in texts]
        return [len(ids) for ids in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
