"""`align show`: row numbers, conditions, one row, and removed files."""

import json

import pytest

from alignment.cli import main


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "data").mkdir(parents=True)
    rows = [
        {"text": f"line {n}\nTODO {n}" if n % 2 else f"line {n}", "repository": "app" if n < 6 else "shop"}
        for n in range(1, 11)
    ]
    (folder / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    removed = [
        {"repository": "app", "path": f"{n}.py", "reason": "binary" if n else "near_duplicate"} for n in range(3)
    ]
    (folder / "removed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in removed))
    return folder


def shown(capsys, *arguments):
    assert main(["show", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_are_numbered_as_in_the_dataset_whatever_is_filtered(dataset, capsys):
    rows = shown(capsys, dataset, "-n", 20, "--where", "repository=shop")
    assert [row["row_number"] for row in rows] == [6, 7, 8, 9, 10]
    assert all(row["text"].startswith(f"line {row['row_number']}") for row in shown(capsys, dataset, "-n", 4))


def test_conditions_are_combined_and_can_search_in_text(dataset, capsys):
    rows = shown(capsys, dataset, "-n", 20, "--where", "repository=shop", "--where", "text~TODO")
    assert [row["row_number"] for row in rows] == [7, 9]


def test_one_row_is_shown_by_its_number(dataset, capsys):
    assert main(["show", str(dataset), "--row", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("=== row 3 =") and "TODO 3" in printed and printed.count("===") >= 1


def test_removed_files_are_shown_with_reasons(dataset, capsys):
    rows = shown(capsys, dataset, "--removed", "--where", "reason=binary")
    assert [row["path"] for row in rows] == ["1.py", "2.py"]
    assert shown(capsys, dataset / "removed.jsonl")[0]["row_number"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "repository"], "is no condition: write COLUMN=VALUE"),
        (["--where", "repository=web"], "no row of repository 'web'; it has app, shop"),
        (["--row", "11"], "no row of number 11; it has 10 rows"),
        (["--removed", "--where", "reason=secret"], "it has binary, near_duplicate"),
    ],
)
def test_a_filter_without_rows_says_what_there_is(dataset, capsys, arguments, message):
    assert main(["show", str(dataset), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_dataset_without_a_list_of_removed_files_says_where_they_are_counted(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
    assert main(["show", str(tmp_path / "rows.jsonl"), "--removed"]) == 1
    assert "only the builder corpus lists what it removed" in capsys.readouterr().err
