"""The runtimes that the gate asks, behind the same four methods: llama.cpp for GGUF, transformers for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alignment.export.llamacpp import Library, Model


class Engine(Protocol):
    """A loaded model. Ids are token ids; logits are float32, positions x vocabulary rows."""

    def tokenize(self, text: str) -> list[int]: ...

    def logits(self, ids: Sequence[int]) -> np.ndarray: ...

    def greedy(self, ids: Sequence[int], tokens: int) -> list[int]: ...


class LlamaCpp:
    """A GGUF file in llama.cpp."""

    def __init__(self, path: str | Path, n_ctx: int, threads: int, adapter: str | None = None) -> None:
        self.model = Model(Library(), path, n_ctx, threads)
        if adapter:
            self.model.apply_adapter(adapter)

    def tokenize(self, text: str) -> list[int]:
        return self.model.tokenize(text)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        self.model.clear()
        return self.model.decode(ids)

    def greedy(self, ids: Sequence[int], tokens: int) -> list[int]:
        self.model.clear()
        last = self.model.decode(ids, every=False)
        out: list[int] = []
        while True:
            out.append(int(last[-1].argmax()))
            if len(out) == tokens:
                return out
            last = self.model.decode(out[-1:], position=len(ids) + len(out) - 1)


class Transformers:
    """A model folder in transformers: a plain one, or one quantized by GPTQ or AWQ."""

    def __init__(self, path: str | Path, dtype: str, device: str, threads: int, adapter: str | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), device_map=device)
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
        self.model = model.eval()

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _forward(self, ids: Sequence[int], cache: Any = None, use_cache: bool = False) -> Any:
        with self.torch.inference_mode():
            batch = self.torch.tensor([list(ids)], device=self.model.device)
            return self.model(input_ids=batch, past_key_values=cache, use_cache=use_cache)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self._forward(ids).logits[0].float().cpu().numpy()

    def greedy(self, ids: Sequence[int], tokens: int) -> list[int]:
        step = self._forward(ids, use_cache=True)
        out: list[int] = []
        while True:
            out.append(int(step.logits[0, -1].argmax()))
            if len(out) == tokens:
                return out
            step = self._forward(out[-1:], cache=step.past_key_values, use_cache=True)
