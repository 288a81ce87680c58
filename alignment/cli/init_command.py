"""`align init`: write a recipe for your repositories, a model and hardware.

align init --repository ~/git/shop --model Qwen/Qwen2.5-Coder-1.5B --hardware 1x24GB --out shop.yaml
align init --rows chats.jsonl --model models/0.5b-instruct --hardware cpu --out chats.yaml
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.drafting.recipe_data import DraftRequest


def add(commands: Commands) -> None:
    """Add the parser."""
    init = add_command(
        commands, "init", "Write a commented recipe for your repositories or rows, a model and hardware."
    )
    init.add_argument(
        "--repository", action="append", default=[], metavar="PATH", dest="repositories",
        help="a git repository, a folder, or a URL that git can clone. May be repeated",
    )  # fmt: skip
    init.add_argument(
        "--rows", action="append", default=[], type=Path, metavar="FILE",
        help="a JSONL or Parquet file of rows, instead of repositories. May be repeated",
    )  # fmt: skip
    init.add_argument("--model", help="a model folder, a .gguf file, or a name on the Hugging Face hub")
    init.add_argument(
        "--hardware", help="cpu, 1x24GB, 1x80GB, 8x80GB, 8xH100 and so on (default: what this machine has)"
    )
    init.add_argument(
        "--out", type=Path, metavar="RECIPE", help="the recipe to write (default: named after the first source)"
    )
    init.add_argument(
        "--interpreter", metavar="PYTHON", help="Python with the packages that the repositories' tests need"
    )
    init.add_argument(
        "--license", default="owned", help="license of the repositories: an SPDX id (default: owned, your own code)"
    )
    init.set_defaults(handler=_init)


def _init(arguments: argparse.Namespace) -> int:
    if sys.stdin.isatty():
        _ask(arguments)
    request = _request(arguments)
    from alignment.drafting.recipe_draft import draft
    from alignment.recipe import load

    for file in (request.out, request.launch_file):
        if file.exists():
            raise ValueError(f"{file} exists and is not overwritten: name another file with --out, or remove it")
    text = draft(request)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    request.out.write_text(text.recipe, encoding="utf-8")
    request.launch_file.write_text(text.accelerate, encoding="utf-8")
    recipe = load(request.out)
    print(f"wrote {request.out}: {', '.join(stage.name for stage in recipe.stages)}")
    print(f"wrote {request.launch_file}: the Accelerate config for {request.hardware.text}")
    for sentence in text.left_out:
        print(f"left out: {sentence}")
    print(f"next: align check {request.out}, align plan {request.out}, align run {request.out}")
    return 0


def _ask(arguments: argparse.Namespace) -> None:
    """Ask the user for required values that the command line does not give."""
    from alignment.drafting.hardware import detected

    if not arguments.repositories and not arguments.rows:
        answer = input("Repository (path or URL), or a file of rows: ").strip()
        if answer.endswith((".jsonl", ".parquet", ".json")):
            arguments.rows = [Path(answer)]
        elif answer:
            arguments.repositories = [answer]
    arguments.model = arguments.model or input("Model (folder, .gguf file, or name on the Hugging Face hub): ").strip()
    if arguments.hardware is None:
        here = detected().text
        arguments.hardware = input(f"Hardware to train on (cpu, 1x24GB, 8x80GB ...) [{here}]: ").strip() or here


def _request(arguments: argparse.Namespace) -> DraftRequest:
    """Check the arguments and survey the repositories.

    Raises:
        ValueError: an argument is missing, names something that does not exist, or contradicts another argument.
    """
    from alignment.drafting import hardware
    from alignment.drafting.recipe_data import DraftRequest
    from alignment.drafting.repository_survey import survey
    from data_builders.repositories.locations import Interpreter
    from data_builders.repositories.remote_git import is_url, repository_name
    from data_builders.repositories.sources import Source, cloned

    if bool(arguments.repositories) == bool(arguments.rows):
        raise ValueError("name what to learn from: either --repository PATH or --rows FILE, which may be repeated")
    if not arguments.model:
        raise ValueError(
            "name the model to start from: --model FOLDER, FILE.gguf, or a name on the hub such as Qwen/Qwen2.5-Coder-1.5B"
        )
    devices = hardware.parse(arguments.hardware) if arguments.hardware else hardware.detected()
    locations = [item if is_url(item) else str(Path(item).expanduser().resolve()) for item in arguments.repositories]
    first = (
        repository_name(locations[0])
        if locations and is_url(locations[0])
        else Path(locations[0] if locations else arguments.rows[0]).stem
    )
    out = arguments.out or Path(re.sub(r"[^a-z0-9._-]+", "-", first.lower()).strip("-.") + ".yaml")
    if out.suffix not in (".yaml", ".yml"):
        raise ValueError(f"--out {out}: a recipe is a YAML file, so give it the suffix .yaml")
    if arguments.interpreter:
        arguments.interpreter = Interpreter.of(arguments.interpreter).absolute()
    sources = [
        Source.model_validate({"path": location, "license": arguments.license, "interpreter": arguments.interpreter})
        for location in locations
    ]
    surveys = []
    for source in sources:
        with cloned([source]) as repositories:
            surveys.append(survey(repositories[0]))
    return DraftRequest(
        model=_model(arguments.model), hardware=devices, out=out, sources=locations, surveys=surveys,
        rows=arguments.rows, license=arguments.license, interpreter=arguments.interpreter,
    )  # fmt: skip


def _model(text: str) -> str:
    """Return the model as the recipe names it: an absolute path, or a name on the hub.

    Raises:
        ValueError: there is no such file or folder, and the text is not a name on the hub.
    """
    path = Path(text).expanduser()
    if path.exists():
        return str(path.resolve())
    if path.suffix == ".gguf" or not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise ValueError(
            f"there is no model {text}: give a folder, a .gguf file, or a name on the hub such as Qwen/Qwen2.5-Coder-1.5B"
        )
    return text
