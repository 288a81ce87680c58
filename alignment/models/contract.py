"""The model contract, checked in a fresh process: what was saved loads, agrees with itself, and stops.

    python -m alignment.models.contract < request.json

A stage whose model breaks the contract is not done: the chain stops, and this says which clause.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from alignment import logs
from alignment.models import formats

PROBE_TOKENS = 256


def check(folder: Path, chat: bool, must_stop: bool = True) -> dict[str, Any]:
    """Check every clause; `must_stop` asks for the last, which generates.

    Returns the figures; raises ValueError with all clauses that are broken.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    broken: list[str] = []
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    # With sizes that may differ, wrong ones come back as a list instead of ending the check at the first.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, loading = loaded
    config, generation = model.config, model.generation_config
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading.get(kind):
            broken.append(f"weights: {kind.replace('_', ' ')}: {sorted(map(str, loading[kind]))[:3]}")
    empty, unsound, tensors = [], [], 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                tensor = weights.get_tensor(name)
                tensors += 1
                if tensor.numel() == 0:
                    empty.append(name)
                elif not torch.isfinite(tensor).all():
                    unsound.append(name)
    if empty:
        broken.append(f"weights: {len(empty)} empty tensors, for example {empty[0]} (a save that was not gathered)")
    if unsound:
        broken.append(f"weights: NaN or infinity in {len(unsound)} tensors, for example {unsound[0]}")
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < len(tokenizer) or rows != config.vocab_size:
        broken.append(f"embedding: {rows} rows, config says {config.vocab_size}, tokenizer has {len(tokenizer)} tokens")
    # As written: where the file holds two that differ, transformers loads them untied and says so in its own config.
    tied = bool(json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", False))
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    if shared != tied:
        broken.append(f"tied embeddings: config.json says {tied}, the loaded model says {shared}")
    if tokenizer.chat_template != formats.CHAT_TEMPLATE:
        broken.append("chat template: not the one the model was trained with")
    expected = formats.IM_END if chat else formats.ENDOFTEXT
    end = formats.token_id(tokenizer, expected)
    stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    if tokenizer.eos_token != expected:
        broken.append(f"EOS: the tokenizer says {tokenizer.eos_token!r}, not {expected!r}")
    if config.eos_token_id != end:
        broken.append(f"EOS: config.json says {config.eos_token_id}, not {end} ({expected})")
    if end not in stops:
        broken.append(f"EOS: generation_config.json says {stops}, without {end} ({expected})")
    figures: dict[str, Any] = {"tensors": tensors, "parameters": sum(p.numel() for p in model.parameters())}
    if chat and must_stop and not broken:
        stopped, asked = _stops(model, tokenizer, end, _probes(folder.parent / "probes.json"))
        figures |= {"probes": asked, "probes_stopped": stopped}
        if stopped * 2 < asked:
            broken.append(
                f"stop: {asked - stopped} of {asked} answers had no end after {PROBE_TOKENS} tokens. Train longer, or "
                "check that the data's answers end and that the loss covers <|im_end|>"
            )
    if broken:
        raise ValueError("the model breaks its contract:\n" + "\n".join(f"  - {clause}" for clause in broken))
    return figures


def _probes(file: Path) -> list[str]:
    """Prompts to stop after: some that the stage left of its own data, or a general one."""
    if file.is_file():
        return [str(prompt) for prompt in json.loads(file.read_text())]
    return [formats.chat([{"role": "user", "content": "Write a Python function that reverses a string."}], True)]


def _stops(model: Any, tokenizer: Any, end: int, probes: list[str]) -> tuple[int, int]:
    """How many greedy answers end by themselves, and how many were asked for."""
    import torch

    if torch.accelerator.is_available():  # a 7B model takes minutes for this on a CPU
        try:
            model.to(torch.accelerator.current_accelerator())
        except torch.OutOfMemoryError:
            model.to("cpu")
    stopped = 0
    for text in probes:
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)], device=model.device)
        with torch.no_grad():
            answer = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=PROBE_TOKENS, do_sample=False
            )[0, ids.shape[1] :].tolist()
        stopped += end in answer
    return stopped, len(probes)


def main() -> int:
    from alignment.processes import die_with_parent

    die_with_parent()
    logs.configure()
    # Imported before the request is there: the stage trains meanwhile.
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM  # noqa: F401

    from alignment.files import write_json

    request = json.load(sys.stdin)

    try:
        figures = check(Path(request["model"]), chat=request["kind"] != "pretrain", must_stop=request["must_stop"])
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    write_json(Path(request["out"]) / "contract.json", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
