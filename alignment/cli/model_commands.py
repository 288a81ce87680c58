"""`align chat` and `align compare`: talk to a model, and put two models or two results side by side.

align chat recipe.yaml:sft                     the model of a stage
align chat models/0.5b-instruct --prompt "Write a function that adds two numbers."
align compare recipe.yaml:base recipe.yaml:sft --prompt "Explain what Order.total does."
align compare before after                     two result folders of `align evaluate`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.model_argument import MODEL_HELP, model_path
from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.evaluation.engines.protocol import Engine

RESULTS = "figures.json"
"""Name of the file that shows that a folder is a result folder of `align evaluate`."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    chat = add_command(commands, "chat", "Talk to a model: of any stage of a recipe, or of a folder.")
    chat.add_argument("model", help=MODEL_HELP)
    chat.add_argument(
        "--prompt", action="append", default=[], help="answer this and end. May be repeated: the turns of one dialogue"
    )
    _add_generation(chat)
    chat.set_defaults(handler=_chat)
    compare = add_command(
        commands, "compare", "Compare two models on the same prompts, or two evaluations by a paired test."
    )
    compare.add_argument("before", help=f"{MODEL_HELP}; or a result folder of `align evaluate`")
    compare.add_argument("after", help="the same, for the second one")
    compare.add_argument("--prompt", action="append", default=[], help="a question to both models. May be repeated")
    _add_generation(compare)
    compare.set_defaults(handler=_compare)


def _add_generation(command: argparse.ArgumentParser) -> None:
    command.add_argument("--system", help="a system prompt (default: Qwen's)")
    command.add_argument("--max-new-tokens", type=int, default=512, help="tokens of an answer, at most (default: 512)")
    command.add_argument("--temperature", type=float, default=0.0, help="sampling temperature (default: 0, greedy)")
    command.add_argument("--seed", type=int, default=0, help="sampling seed (default: 0)")


def _chat(arguments: argparse.Namespace) -> int:
    from alignment.evaluation.engines.selection import open_engine

    engine = open_engine(model_path(arguments.model))
    messages: list[dict[str, str]] = _opening(arguments)
    for question in arguments.prompt or _typed_questions():
        messages.append({"role": "user", "content": question})
        answer = _answers(engine, [messages], arguments)[0]
        print(answer, flush=True)
        messages.append({"role": "assistant", "content": answer})
    return 0


def _typed_questions() -> Iterable[str]:
    """Yield the lines that the user types. If stdin is a pipe, yield all of its text as one question."""
    if not sys.stdin.isatty():
        text = sys.stdin.read().strip()
        return [text] if text else []
    print("Ctrl-D ends the dialogue.", file=sys.stderr)
    return iter(_read_line, None)


def _read_line() -> str | None:
    try:
        return input("> ")
    except EOFError:
        return None


def _opening(arguments: argparse.Namespace) -> list[dict[str, str]]:
    return [{"role": "system", "content": arguments.system}] if arguments.system else []


def _answers(engine: Engine, dialogues: Sequence[list[dict[str, str]]], arguments: argparse.Namespace) -> list[str]:
    """Return the model's next turn in each dialogue. A note on stderr says which turns were cut off."""
    from alignment.evaluation.dialogue import ReplySettings, replies

    settings = ReplySettings(arguments.max_new_tokens, arguments.temperature, arguments.seed)
    completions = replies(engine, dialogues, settings)
    for number, completion in enumerate(completions, 1):
        if completion.finish != "stop":
            print(f"answer {number} did not end within {arguments.max_new_tokens} tokens", file=sys.stderr)
    return [completion.text for completion in completions]


def _compare(arguments: argparse.Namespace) -> int:
    results = [Path(item) for item in (arguments.before, arguments.after) if (Path(item) / RESULTS).is_file()]
    if len(results) == 1:
        raise ValueError(
            f"{results[0]} is a result folder and the other one is not: compare two results, or two models"
        )
    if results:
        if arguments.prompt:
            raise ValueError("--prompt is for models, and these are result folders: leave it out")
        from alignment.cli.evaluation_commands import print_comparison

        return print_comparison(results[0], results[1])
    if not arguments.prompt:
        raise ValueError("give at least one question with --prompt, or two result folders of `align evaluate`")
    from alignment.evaluation.engines.selection import open_engine

    dialogues = [[*_opening(arguments), {"role": "user", "content": question}] for question in arguments.prompt]
    answers = [
        _answers(open_engine(model_path(model)), dialogues, arguments) for model in (arguments.before, arguments.after)
    ]
    for question, before, after in zip(arguments.prompt, *answers, strict=True):
        print(f"# {question}\n\n## {arguments.before}\n\n{before}\n\n## {arguments.after}\n\n{after}\n")
    return 0
