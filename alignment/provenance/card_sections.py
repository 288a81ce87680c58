"""Writes the sections of a model card about the origin of the model: training data, training, ladder, recipe, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import yaml

from alignment.provenance.model_facts import DatasetFacts, ModelFacts

_SHOWN_REASONS = 12
"""Largest number of reasons in one cell of a table; rarer reasons are summed."""


def card_sections(facts: ModelFacts) -> str:
    """Return the sections as Markdown."""
    parts = [
        _repositories(facts),
        _datasets(facts.datasets),
        _training(facts),
        _ladder(facts.ladder),
        _limits(facts),
        _recipe(facts),
        _versions(facts),
    ]
    return "\n".join(line for part in parts for line in part)


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a Markdown table, with an empty line after it. Columns without any value are left out."""
    shown = [number for number in range(len(titles)) if any(row[number] not in (None, "") for row in rows)]
    lines = ["| " + " | ".join(titles[number] for number in shown) + " |", "|" + " --- |" * len(shown)]
    lines += ["| " + " | ".join(_cell(row[number]) for number in shown) + " |" for row in rows]
    return [*lines, ""]


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts as text, largest first, for example `near_duplicate 68, binary 9`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{name} {count:,}" for name, count in ordered[:_SHOWN_REASONS] if count]
    if rest := sum(count for _, count in ordered[_SHOWN_REASONS:]):
        texts.append(f"others {rest:,}")
    return ", ".join(texts)


def _repositories(facts: ModelFacts) -> Iterator[str]:
    origins = facts.lineage.repositories()
    titles = ("Repository", "Commit", "Declared licence", "Read by")
    for role, title, text in (
        ("learned", "What the model learned from", "The weights were trained on text of these repositories."),
        ("measured", "What the model was measured on", "The newest of these commits were held out of training."),
    ):
        rows = [
            (f"{origin.name}", _commits(origin.commit, origin.head), origin.license, origin.read_by.rpartition("/")[2])
            for origin in origins
            if origin.role == role
        ]
        if rows:
            yield from (f"## {title}", "", text, "", *table(titles, rows))
        elif role == "learned":
            yield from (f"## {title}", "")
            if not facts.datasets:
                yield from ("No training data is recorded.", "")
    for name in facts.lineage.missing():
        yield from (f"The artifact {name} was removed; what it was made of is unknown.", "")


def _commits(commit: str, head: str) -> str:
    text = f"`{commit}`" if commit else "folder without history"
    return f"{text} to `{head}`" if head else text


def _datasets(datasets: Sequence[DatasetFacts]) -> Iterator[str]:
    if not datasets:
        return
    titles = ("Dataset", "Made by", "Rows", "Licences (rows)", "Removed, by reason", "Replaced, by kind", "SHA-256")
    rows = [
        (
            item.name,
            item.builder or item.title,
            item.rows,
            counts_text(item.licenses),
            counts_text(item.removed),
            counts_text(item.redacted),
            f"`{item.sha256[:16]}`" if item.sha256 else "",
        )
        for item in datasets
    ]
    yield from ("### Datasets", "", *table(titles, rows))


def _training(facts: ModelFacts) -> Iterator[str]:
    if not facts.training:
        return
    titles = ("Stage", "Kind", "Data", "Samples", "Tokens", "Steps", "Loss", "Rows removed: text of a benchmark")
    rows = [
        (
            item.stage, item.kind, ", ".join(item.data), item.samples, item.tokens, item.steps,
            "" if item.loss is None else f"{item.loss:.4g}", item.contaminated,
        )
        for item in facts.training
    ]  # fmt: skip
    base = f"The first stage started from {facts.base}." if facts.base else ""
    yield from ("## Training", "", *([base, ""] if base else []), *table(titles, rows))


def _ladder(ladder: Sequence[Mapping[str, object]]) -> Iterator[str]:
    if not ladder:
        return
    metrics = list(dict.fromkeys(str(entry["metric"]) for entry in ladder))
    cells = {
        (entry["stage"], entry["metric"]): f"{entry['value']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]"
        for entry in ladder
    }
    stages = list(dict.fromkeys(str(entry["stage"]) for entry in ladder))
    rows = [(metric, *(cells.get((stage, metric), "") for stage in stages)) for metric in metrics]
    yield from ("## Results after each stage", "", "In percent, with 95% intervals.", "")
    yield from table(("Metric", *stages), rows)


def _limits(facts: ModelFacts) -> Iterator[str]:
    yield from ("## Limits of the training", "")
    yield "- The model may repeat code that it was trained on. Look at licences before you publish what it writes."
    yield "- What it writes can be wrong or insecure: run its code in a sandbox, and review it."
    if languages := _main_languages(facts.datasets):
        yield f"- Most training rows are in {languages}. Other languages were not trained on, or hardly."
    if not facts.ladder:
        yield "- No benchmark was run in this recipe: the effect of training is not known."
    yield "- Secrets and personal data were searched for by known forms; other forms can remain."
    yield ""


def _main_languages(datasets: Sequence[DatasetFacts]) -> str:
    """Return the languages that have at least a tenth of the rows."""
    totals: dict[str, int] = {}
    for item in datasets:
        for name, count in item.languages.items():
            totals[name] = totals.get(name, 0) + count
    total = sum(totals.values())
    return ", ".join(name for name, count in sorted(totals.items(), key=lambda item: -item[1]) if count * 10 >= total)


def _recipe(facts: ModelFacts) -> Iterator[str]:
    yield from ("## Recipe", "", "The settings of every stage that the model descends from, without local folders:", "")
    yield from (
        "```yaml",
        yaml.safe_dump(list(facts.settings), sort_keys=False, allow_unicode=True).rstrip(),
        "```",
        "",
    )


def _versions(facts: ModelFacts) -> Iterator[str]:
    rows = [(name, version) for name, version in facts.versions.items()]
    yield from ("## Versions and hashes", "", *table(("Package", "Version"), rows))
    if facts.commit:
        yield f"- commit of code-alignment: `{facts.commit}`"
    for item in facts.lineage.learned():
        if fingerprint := item.content.get("fingerprint"):
            yield f"- {item.name}: fingerprint `{fingerprint}`"
    yield from (
        "",
        "`mlbom.cdx.json` has the hashes of the files, `training-content.md` the summary of the training content.",
        "",
    )
