"""Builder `feedback`: turn logs of completions in editors into rows for a stage of kind `kto`.

Two kinds of lines are read, also mixed: events of Continue (`autocomplete.jsonl` in `~/.continue/dev_data`), and a
plain form that any plug-in can write:

    {"prefix": "def add(a, b):\\n    return ", "suffix": "\\n", "completion": "a + b", "accepted": true, "time": "2026-05-04T10:00:00Z"}

`time` is an ISO 8601 time or seconds since 1970. Optional columns are `path`, `repository` and `language`.
"""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from alignment.files import write_json
from alignment.rows import reading
from alignment.settings import Positive, Reference, Share
from data_builders.builder import BuildContext
from data_builders.cleaning.clean_rows import redact_row
from data_builders.parsing.languages import detect
from data_builders.shared_settings import Decontaminated
from data_builders.tasks.build_tasks import write_rows


class FeedbackSettings(Decontaminated):
    """Settings of the builder `feedback`."""

    logs: list[Reference] = Field(min_length=1)
    """Files of JSON lines, or folders of such files: Continue's `autocomplete.jsonl`, or the plain form."""
    held_out: Share = 0.2
    """Share of the events that is held out. The newest events are held out."""
    max_prefix_characters: Positive = 4000
    """Number of characters before the cursor that are kept, counted from the cursor. Use at most the number that the
    editor sends."""
    max_suffix_characters: Positive = 2000
    """Number of characters after the cursor that are kept, counted from the cursor."""
    rejected_per_accepted: Annotated[float, Field(gt=0)] | None = 2.0
    """Largest number of rejected completions for each accepted completion in the training rows. Editors show far more
    completions than developers accept. The newest rejected completions are kept. Default: 2. With null, all rejected
    completions are kept."""
    redact: bool = True
    """Replace secrets and personal data."""


@dataclass(frozen=True)
class CompletionEvent:
    """One completion that an editor showed."""

    prefix: str
    suffix: str
    completion: str
    accepted: bool
    time: float
    """Seconds since 1970."""
    details: dict[str, str] = field(default_factory=dict)
    """The values of `path`, `repository` and `language`, without values that the log does not have."""

    @property
    def key(self) -> tuple[str, str]:
        """Key of the event. Two events with equal keys show the same completion at the same place."""
        return self.prefix[-400:], self.completion


def build_feedback(settings: FeedbackSettings, context: BuildContext) -> dict[str, Any]:
    """Write training rows (`feedback.jsonl`), held-out rows, and fill-in-the-middle rows of the accepted held-out
    completions.

    The split is by time: no training row is newer than a held-out row. `account.json` counts the events that were left
    out, by reason.

    Raises:
        ValueError: a log does not exist, a line has an unknown form, or no event is left.
    """
    counts: Counter[str] = Counter()
    events = _events(settings, counts)
    if not events:
        raise ValueError(f"no event with a completion and a decision is left: {dict(counts)}. The logs need `accepted`")
    first_held_out = len(events) - round(len(events) * settings.held_out)
    trained, held_out = events[:first_held_out], events[first_held_out:]
    trained = _balanced(trained, settings.rejected_per_accepted, counts)
    decontaminator = settings.decontaminator()
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
    for split, chosen in (("train", trained), ("heldout", held_out)):
        for number, event in enumerate(chosen):
            row = _row(event, split, number, settings)
            if split == "train" and decontaminator is not None and decontaminator.check_row(row):
                counts["contaminated"] += 1
                continue
            if settings.redact:
                clean, replaced = redact_row(row, row.get("language", ""))
                if clean is None:
                    counts["redaction_breaks_syntax"] += 1
                    continue
                row = clean
                counts.update(["redacted"] if replaced else [])
            splits[split].append(row)
    labels = Counter(
        f"{split}_{'accepted' if row['label'] else 'rejected'}" for split in splits for row in splits[split]
    )
    write_rows(context.out / "feedback.jsonl", splits["train"])
    write_rows(context.out / "heldout.jsonl", splits["heldout"])
    write_rows(context.out / "heldout-fim.jsonl", [_infilling(row) for row in splits["heldout"] if row["label"]])
    times = [datetime.datetime.fromtimestamp(event.time, datetime.UTC).isoformat() for event in (events[0], events[-1])]
    account = {
        "rows": dict(sorted(labels.items())),
        "left_out": dict(sorted(counts.items())),
        "from": times[0],
        "to": times[1],
    }
    write_json(context.out / "account.json", account)
    return account


def _events(settings: FeedbackSettings, counts: Counter[str]) -> list[CompletionEvent]:
    """Read all logs, and return the events in the order of time.

    If several events show the same completion at the same place, only the newest is kept.
    """
    by_key: dict[tuple[str, str], CompletionEvent] = {}
    for log in settings.logs:
        for where, row in reading.read_located(log.path()):
            if isinstance(row, ValueError):
                raise row
            counts["events"] += 1
            event = _event(row, where, counts)
            if event is None:
                continue
            known = by_key.get(event.key)
            if known is not None:
                counts["repeated"] += 1
            if known is None or event.time >= known.time:
                by_key[event.key] = event
    return sorted(by_key.values(), key=lambda event: (event.time, event.prefix, event.completion))


def _event(row: dict[str, Any], where: str, counts: Counter[str]) -> CompletionEvent | None:
    """Return the event of a line, or None if the line has no decision or no completion.

    Raises:
        ValueError: the line is neither an event of Continue nor in the plain form.
    """
    if row.get("eventName") not in (None, "autocomplete"):
        counts["other_event"] += 1
        return None
    missing = [name for name in ("prefix", "completion") if not isinstance(row.get(name), str)]
    if missing:
        raise ValueError(
            f"{where}: no text in `{missing[0]}`. A line needs `prefix`, `suffix`, `completion`, `accepted` and `time`; logs of "
            "Continue need the level that includes code"
        )
    suffix = "" if row.get("suffix") is None else row["suffix"]
    if not isinstance(suffix, str):
        raise ValueError(f"{where}: `suffix` must be text, not {type(suffix).__name__}")
    accepted = row.get("accepted")
    if accepted is None:
        counts["no_decision"] += 1
        return None
    if not isinstance(accepted, bool):
        raise ValueError(f"{where}: `accepted` must be true or false, not {accepted!r}")
    if not row["completion"].strip():
        counts["empty"] += 1
        return None
    # Continue's `time` is the duration of the request; its `timestamp` is the time of the event.
    moment = _seconds(row["timestamp"] if row.get("timestamp") is not None else row.get("time"), where)
    path = row.get("path") or row.get("filepath")
    details = {"path": path, "repository": row.get("repository") or row.get("gitRepo"), "language": row.get("language")}
    if details["language"] is None and isinstance(path, str):
        details["language"] = detect(path, row["prefix"])
    texts = {name: value for name, value in details.items() if isinstance(value, str) and value}
    return CompletionEvent(row["prefix"], suffix, row["completion"], accepted, moment, texts)


def _seconds(value: Any, where: str) -> float:
    """Return a time in seconds since 1970.

    Raises:
        ValueError: the value is neither an ISO 8601 time nor a number of seconds or milliseconds.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return value / 1000 if value > 1e11 else float(value)  # 1e11 seconds are the year 5138
    try:
        moment = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: `time` must be an ISO 8601 time such as 2026-05-04T10:00:00Z, or seconds since 1970, not {value!r}"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _balanced(events: list[CompletionEvent], ratio: float | None, counts: Counter[str]) -> list[CompletionEvent]:
    """Drop the oldest rejected events, so that at most `ratio` rejected events remain for each accepted event."""
    if ratio is None:
        return events
    surplus = sum(not event.accepted for event in events) - round(ratio * sum(event.accepted for event in events))
    kept: list[CompletionEvent] = []
    for event in events:
        if not event.accepted and surplus > 0:
            surplus -= 1
            counts["surplus_rejected"] += 1
        else:
            kept.append(event)
    return kept


def _row(event: CompletionEvent, split: str, number: int, settings: FeedbackSettings) -> dict[str, Any]:
    return {
        "id": f"{split}-{number}",
        "prefix": event.prefix[-settings.max_prefix_characters :],
        "suffix": event.suffix[: settings.max_suffix_characters],
        "completion": event.completion,
        "label": event.accepted,
        "time": datetime.datetime.fromtimestamp(event.time, datetime.UTC).isoformat(),
        "source": "editor",
        "split": split,
        **event.details,
    }


def _infilling(row: dict[str, Any]) -> dict[str, Any]:
    """Return an accepted completion as a row for the benchmarks `fim` and `editor`."""
    columns = ("id", "prefix", "suffix", "source", "split", "language")
    infilling: dict[str, Any] = {name: row[name] for name in columns if name in row}
    return {**infilling, "middle": row["completion"]}
