"""Make documents for continued pretraining from the grammar: modules, small repositories and notes."""

import random
from collections.abc import Iterator

from data_builders.synthetic.grammar import Composition, draw_composition, draw_name, draw_names, draw_summary
from data_builders.synthetic.grammar_problems import Row, caller_source, draw_path, join_functions


def document(
    text: str, repository: str, path: str, *, kind: str = "synthetic", license: str = "Apache-2.0", commit: str = ""
) -> Row:
    """Make a row for a document in Python."""
    return {
        "text": text,
        "repository": repository,
        "path": path,
        "commit": commit,
        "language": "python",
        "license": license,
        "kind": kind,
    }


def module_documents(seed: int, count: int, *, callers: float = 0.15) -> Iterator[Row]:
    """Yield documents that hold one module each, from the split `train`. Most modules have one function.

    Args:
        seed: the same seed gives the same modules.
        count: number of modules.
        callers: share of modules with two functions, of which the second calls the first.
    """
    generator = random.Random(f"{seed}-modules")
    for number in range(count):
        composition = draw_composition(generator, generator.choice((1, 2, 2, 3, 3)), "train")
        if generator.random() < callers and len(composition.operations) > 1:
            text = join_functions(split_in_two(composition, generator))
        else:
            text = composition.source(draw_name(generator), draw_summary(composition, generator))
        yield document(text, f"synthetic-{number:05d}", draw_path(generator))


def split_in_two(composition: Composition, generator: random.Random) -> list[str]:
    """Return the sources of two functions that together compute a composition. The second function calls the first."""
    helper, rest = composition.cut(generator)
    used, name = draw_name(generator), draw_name(generator)
    return [helper.source(used), caller_source(name, used, helper, rest)]


def repository_documents(seed: int, count: int) -> Iterator[Row]:
    """Yield the files of `count` small repositories: a file of helpers, then a module that imports a helper."""
    generator = random.Random(f"{seed}-repositories")
    for number in range(count):
        composition = draw_composition(generator, generator.choice((2, 3)), "train")
        helper, rest = composition.cut(generator)
        used, name, other = draw_name(generator), draw_name(generator), draw_name(generator)
        package = generator.choice(("app", "core", "lib", "shop", "tools"))
        helpers = [helper.source(used), draw_composition(generator, generator.choice((1, 2)), "train").source(other)]
        generator.shuffle(helpers)
        importer = f"from {package}.helpers import {used}\n\n\n{caller_source(name, used, helper, rest)}"
        repository = f"synthetic-repository-{number:05d}"
        yield document(join_functions(helpers), repository, f"{package}/helpers.py")
        yield document(importer, repository, f"{package}/main.py")


def notes_documents(seed: int, count: int) -> Iterator[Row]:
    """Yield `count` pages of notes. A page describes one or two functions in words, and then shows their code.

    The pages teach a model to connect text and code, because the code can be predicted from the words above it.
    """
    generator = random.Random(f"{seed}-notes")
    for number in range(count):
        entries, sources = [], []
        for name in draw_names(generator, generator.choice((1, 1, 1, 2))):
            composition = draw_composition(generator, generator.choice((1, 2, 2, 3)), "train")
            phrasing = tuple(generator.randrange(3) for _ in composition.operations)
            entries.append(f"- `{name}({composition.argument})`: {composition.summary(phrasing)}.\n")
            sources.append(composition.source(name))
        generator.shuffle(sources)
        text = f"{''.join(entries)}\n```python\n{join_functions(sources)}```\n"
        yield document(text, f"synthetic-notes-{number:05d}", "NOTES.md", kind="grounding")
