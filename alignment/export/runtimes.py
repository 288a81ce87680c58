"""Runtimes in which exported and original models are compared, with one interface: llama.cpp for GGUF files,
transformers for folders.

T = tokens of the input, V = vocabulary rows of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alignment.export.llamacpp import GgufModel, LlamaCppLibrary


class Runtime(Protocol):
    """Interface of a runtime with a loaded model."""

    def tokenize(self, text: str) -> list[int]:
        """Tokenize `text`. Written-out special tokens are recognized; no special tokens are added."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits at every position of one sequence, float32, [T, V]."""

    def greedy(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Generate `tokens` token ids greedily after the prompt `ids`, without stopping at EOS."""


class LlamaCppRuntime:
    """Run a GGUF file in llama.cpp.

    Args:
        path: The GGUF file.
        n_ctx: Length of the context in tokens.
        threads: Number of CPU threads.
        adapter: A LoRA adapter in GGUF form with which the model is run.
    """

    def __init__(self, path: str | Path, n_ctx: int, threads: int, adapter: str | None = None) -> None:
        self.model = GgufModel(LlamaCppLibrary(), path, n_ctx, threads)
        if adapter:
            self.model.apply_adapter(adapter)

    def tokenize(self, text: str) -> list[int]:
        return self.model.tokenize(text)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        self.model.clear()
        return self.model.decode(ids)

    def greedy(self, ids: Sequence[int], tokens: int) -> list[int]:
        self.model.clear()
        logits = self.model.decode(ids, every=False)
        generated: list[int] = []
        while True:
            generated.append(int(logits[-1].argmax()))
            if len(generated) == tokens:
                return generated
            logits = self.model.decode(generated[-1:], position=len(ids) + len(generated) - 1)


class TransformersRuntime:
    """Run a model folder in transformers. The model may be quantized by GPTQ or AWQ.

    Args:
        path: The model's folder.
        dtype: Name of the torch type of the loaded weights.
        device: Device, as in transformers' `device_map`.
        threads: Number of CPU threads.
        adapter: Folder of a PEFT adapter with which the model is run.
    """

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
        generated: list[int] = []
        while True:
            generated.append(int(step.logits[0, -1].argmax()))
            if len(generated) == tokens:
                return generated
            step = self._forward(generated[-1:], cache=step.past_key_values, use_cache=True)
