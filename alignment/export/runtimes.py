"""The runtimes in which the gate runs models, behind one interface: llama.cpp for GGUF, transformers for folders.

T = tokens of the input, V = vocabulary rows of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alignment.export.llamacpp import GgufModel, LlamaCppLibrary


class Runtime(Protocol):
    """A loaded model."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens are recognized, none is added."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits at every position of one sequence, float32, [T, V]."""

    def greedy(self, ids: Sequence[int], tokens: int) -> list[int]:
        """The next `tokens` token ids after the prompt `ids`, each the most probable one; does not stop at EOS."""


class LlamaCppRuntime:
    """A GGUF file in llama.cpp.

    Args:
        path: The file.
        n_ctx: Length of the context in tokens.
        threads: CPU threads.
        adapter: A LoRA adapter in GGUF form to run the model with.
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
    """A model folder in transformers, also one quantized by GPTQ or AWQ.

    Args:
        path: The folder.
        dtype: Name of the torch type to load it in.
        device: As in `device_map`.
        threads: CPU threads.
        adapter: Folder of a PEFT adapter to run the model with.
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
