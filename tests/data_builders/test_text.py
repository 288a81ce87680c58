"""The builders of grounding, mathematics, general text and pull requests, and the text classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder

from alignment.rows import reading as row_files
from benchmarks import builder_speed
from data_builders.storage.show import sample_rows, show
from data_builders.text.build_text import GROUNDING_STAGES, SEEDS, without_code
from data_builders.text.classifier import Classifier, accuracy, read_seeds

EXPLAINED = (
    "The function below adds two numbers, step by step, so that you can see how it works.\n\n"
    "```python\ndef plus(left, right):\n    return left + right\n```\n\nFirst it takes both values,"
    " then it returns the sum, because the caller needs the result."
)
RECIPE = "Cut the onions and cook them slowly in butter until they are golden, then add tomatoes and let it simmer."
MENU = "Home | About | Contact | Login | Register | Privacy | Terms"


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_shipped_seed_set_can_be_learned() -> None:
    for stage in GROUNDING_STAGES:
        positive, negative = read_seeds(SEEDS / f"{stage}.jsonl")
        model = Classifier.train(positive, negative)
        rows = [*((text, 1) for text in positive), *((text, 0) for text in negative)]
        assert accuracy(model, rows) == 1.0, stage


def test_a_classifier_generalises_and_trains_the_same_way_twice() -> None:
    positive = [f"the parser reads token {number} of the source code" for number in range(20)]
    negative = [f"the cook adds onion {number} to the warm soup" for number in range(20)]
    first, second = Classifier.train(positive, negative), Classifier.train(positive, negative)
    assert (first.weights == second.weights).all()
    assert first.score("the source code has a parser") > 0.5 > first.score("a warm soup of onion")


def test_grounding_reports_the_survivors_of_each_stage(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"text": EXPLAINED}, {"text": RECIPE}, {"text": MENU}])
    report = run_builder("grounding", tmp_path / "out", inputs=[path])
    survivors = [report["survivors"][stage] for stage in ("input", *GROUNDING_STAGES)]
    assert survivors == sorted(survivors, reverse=True) and survivors[0] == 3
    assert [row["text"] for row in row_files.read(tmp_path / "out")] == [EXPLAINED]


def test_seeds_can_be_replaced(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"text": EXPLAINED}])
    nothing = jsonl(tmp_path / "seeds.jsonl", [{"text": RECIPE, "label": 1}, {"text": EXPLAINED, "label": 0}])
    assert run_builder("grounding", tmp_path / "out", inputs=[path], seeds={"prose": nothing})["rows"] == 0
    with pytest.raises(ValueError, match=r"seeds\.poetry\."):
        run_builder("grounding", tmp_path / "other", inputs=[path], seeds={"poetry": nothing})


def test_general_text_loses_its_code(tmp_path: Path) -> None:
    text = "Text before.\n\n```python\nx = 1\n```\n\nText between.\n\n    indented = code()\n\nreturn x;\nText after.\n"
    assert without_code(text) == "Text before.\n\nText between.\n\nText after.\n"
    path = jsonl(tmp_path / "in.jsonl", [{"text": f"{EXPLAINED}\n{RECIPE}"}, {"text": "too short"}])
    report = run_builder("general", tmp_path / "out", inputs=[path])
    (row,) = row_files.read(tmp_path / "out")
    assert "```" not in row["text"] and row["kind"] == "general" and report["left_out"] == {"too_short": 1}


def test_math_joins_questions_and_answers_and_drops_other_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"question": "How many are 3 + 4?", "answer": "7"}, {"text": RECIPE}])
    report = run_builder("math", tmp_path / "out", inputs=[path])
    assert [row["text"] for row in row_files.read(tmp_path / "out")] == ["How many are 3 + 4?\n\n7\n"]
    assert report["left_out"] == {"not_mathematical": 1}


def test_pull_requests_are_anonymous_and_without_bots_and_secrets(tmp_path: Path) -> None:
    github = {
        "number": 7,
        "title": "Close the connection",
        "author": {"login": "ada"},
        "body": "It leaks. password: tr0ub4dor3",
        "comments": [
            {"author": {"login": "bob"}, "body": "Thanks @ada, mail me at bob@firm-mail.com", "createdAt": "2"},
            {"author": {"login": "codecov"}, "body": "Coverage fell", "createdAt": "1"},
        ],
    }
    gitlab = {
        "iid": 8,
        "title": "Write the report once more",
        "author": {"username": "eve"},
        "description": "Because it is wrong. " * 5,
        "notes": [{"author": {"username": "x"}, "body": "assigned", "system": True}],
    }
    path = tmp_path / "export.json"
    path.write_text(
        json.dumps([github, gitlab, {"title": "bump", "user": {"login": "renovate[bot]"}, "body": "x" * 100}])
    )
    report = run_builder("pull_requests", tmp_path / "out", exports=[path], repository="app")
    first, second = (row["text"] for row in row_files.read(tmp_path / "out"))
    assert first.startswith("Title: Close the connection\n\nuser_0: It leaks.") and "user_1: Thanks @user_0" in first
    assert not any(word in first for word in ("ada", "bob@", "Coverage", "tr0ub4dor3"))
    assert "assigned" not in second and report["left_out"] == {"bot": 1}


def test_malformed_entries_of_an_export_are_ignored(tmp_path: Path) -> None:
    body = "The report counts one order twice when two people place it. " * 3
    odd = {"title": "Count once", "author": None, "body": None, "description": body, "comments": 3,
           "reviews": [None, "x", {"author": None, "body": None}], "discussions": [{"notes": [{"body": "Agreed."}]}]}  # fmt: skip
    path = tmp_path / "export.json"
    path.write_text(json.dumps(odd))
    run_builder("pull_requests", tmp_path / "out", exports=[path])
    (row,) = row_files.read(tmp_path / "out")
    assert row["text"].endswith("Agreed.\n") and "once" in row["text"]


def test_samples_depend_on_the_seed_and_long_columns_are_cut(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "in.jsonl", [{"text": f"line {number}\n" * 900, "path": str(number)} for number in range(20)]
    )
    rows = sample_rows(path, 3, seed=1)
    assert len(rows) == 3 and rows == sample_rows(path, 3, seed=1) != sample_rows(path, 3, seed=2)
    assert "characters ...]" in show(sample_rows(path, 1))


def test_the_benchmark_prints_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("def add(left, right):\n    return left + right\n" * 20)
    assert builder_speed.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("MB/s a core") == 16
    assert builder_speed.main([str(tmp_path / "nowhere")]) == 2


def test_general_text_is_taken_from_prose_and_not_from_code(tmp_path: Path) -> None:
    prose = "The service reads every order once, and looks up the price that was agreed with the customer. " * 3
    source = tmp_path / "rows.jsonl"
    rows = [{"text": f"{prose}{language}", "language": language} for language in ("markdown", "python", "text", "c")]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run_builder("general", tmp_path / "out", inputs=[source])
    assert report["left_out"] == {"code": 2} and {row["language"] for row in row_files.read(tmp_path / "out")} <= {
        "markdown",
        "text",
    }


EXPLAINS_CODE = [
    "# Retrying a request\n\nA request can fail because the network is slow. We try again, and wait longer each time, so that a server that "
    "is busy gets a rest:\n\n```python\nfor attempt in range(4):\n    try:\n        return fetch(url)\n    except TimeoutError:\n"
    "        time.sleep(2 ** attempt)\n```\n\nAfter four attempts the loop ends and the function returns nothing. Note that only a timeout is "
    "retried: any other error is a mistake of ours, and trying again would not help.\n",
    "Currying\n========\n\nA curried function takes its arguments one at a time. This is useful when you have the first argument now and "
    "get the second one later:\n\n    >>> add = lambda x: lambda y: x + y\n    >>> increment = add(1)\n    >>> increment(10)\n    11\n\n"
    "Here ``add(1)`` gives a new function, which remembers the one and waits for the other number.\n",
    "To read a configuration in Go, decode it into a struct whose fields carry tags:\n\n```go\ntype Config struct {\n    Port int "
    '`json:"port"`\n}\n\nvar c Config\nerr := json.NewDecoder(file).Decode(&c)\n```\n\nThe decoder matches names to tags, and leaves a field '
    "that the file does not mention at zero, which is why defaults are set before the call.\n",
]
EXPLAINS_NOTHING = [
    "<div class=\"card\">\n  <h2>{{ user.name }}</h2>\n  {% if user.admin %}<span>admin</span>{% endif %}\n  <a href=\"/logout\">Log out</a>\n</div>\n",
    "2.0.1\n=====\n\n* Fixed the build on Windows (#88)\n* Bumped dependencies (#90)\n\n2.0.0\n=====\n\n* Removed deprecated options (#71)\n* Renamed the package (#72)\n",
    "```java\nclass A { int x; int y; }\nclass B extends A { int z; }\nclass C extends B { }\nclass D extends C { int w; }\n```\n",
    "Contact us | Imprint | Privacy | Terms of use | Careers | Press | Follow us | Subscribe | Login | Register\n",
    "The museum is open from nine to five, and the garden behind it is a quiet place to rest after the visit.\n",
    "- [ ] I have read the contributing guide\n- [ ] I have added tests\n- [ ] I have updated the changelog\n\n**What does this change?**\n",
]  # fmt: skip


@pytest.mark.parametrize("text", [*EXPLAINS_CODE, *EXPLAINS_NOTHING], ids=range(9))
def test_grounding_keeps_texts_that_explain_code_and_drops_others(text: str, tmp_path: Path) -> None:
    run_builder("grounding", tmp_path / "out", inputs=[jsonl(tmp_path / "in.jsonl", [{"text": text}])])
    assert bool(list(row_files.read(tmp_path / "out"))) == (text in EXPLAINS_CODE)
