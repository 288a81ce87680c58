"""Command-line options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    """The return type of `ArgumentParser.add_subparsers`."""


def add_command(commands: Commands, name: str, description: str) -> argparse.ArgumentParser:
    """Add a command, and use the same sentence for the command's help and its description."""
    return commands.add_parser(name, help=description, description=description)


class _Recipe(argparse.Action):
    """Argparse action that stores the path of a recipe.

    A path that does not exist may be the name of a shipped recipe (`recipes/NAME.yaml`).

    If the package is installed, a shipped recipe is in the folder of the installation, where no results should be
    written. The results then go to the folder `runs` in the current folder.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        from alignment.installation import is_checkout, shipped

        if values is None:  # an optional recipe that is not given
            setattr(namespace, self.dest, None)
            return
        path = Path(values)
        if not path.exists() and (shipped() / path).is_file():
            path = shipped() / path
            if not is_checkout():
                namespace.overrides = [f"output={Path.cwd() / 'runs'}", *namespace.overrides]
        setattr(namespace, self.dest, path)


def add_recipe(command: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the argument RECIPE and the option `--set` to a command that reads a recipe.

    Args:
        command: the command.
        optional: whether the command also works without a recipe. `recipe` is then None.
    """
    command.add_argument(
        "recipe", action=_Recipe, nargs="?" if optional else None, help="a recipe file, for example recipes/quickstart.yaml. Shipped recipes are found from any "
        "folder"
    )  # fmt: skip
    add_set(
        command,
        "override one setting, for example stages.dpo.train.beta=0.2. Name an item of a list by its name or number. Put a "
        "key that has dots in quotes: 'stages.export.max_perplexity_change.\"llama.cpp:q8_0\"=3'",
    )


def add_set(command: argparse.ArgumentParser, text: str) -> None:
    """Add `--set KEY=VALUE`. `text` is the beginning of the option's help."""
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=f"{text}. May be repeated"
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """Add the option `--json` to a command."""
    command.add_argument("--json", action="store_true", help="print one JSON document")


def add_consent(command: argparse.ArgumentParser) -> None:
    """Add `--allow-weaker-sandbox` to a command that runs programs on this machine."""
    command.add_argument(
        "--allow-weaker-sandbox",
        action="store_true",
        help="allow a weaker sandbox: no namespaces if the kernel refuses them, and no process limit if programs run as "
        "the machine's root",
    )
