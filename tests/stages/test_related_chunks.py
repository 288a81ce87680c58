"""Chunks of related files in front of fill-in-the-middle samples, in the two layouts that editors send."""

import random
from collections import Counter

import pytest

from alignment.models import formats
from alignment.recipe.stage_parts import Fim
from alignment.tokenization.fim_windows import FimWindows
from alignment.tokenization.related_chunks import RepositoryFile, RepositoryFiles, with_repositories

SHAPES = "".join(f"def area_{n}(radius):\n    return {n} * radius * PI_{n}\n\n\n" for n in range(40))
FILES = {
    "app/main.py": "from app.shapes import area_7\n\n\n"
    + "".join(
        f"def run_{n}(width):\n    total_{n} = area_7(width) + {n}\n    return total_{n}\n\n\n" for n in range(30)
    ),
    "app/shapes.py": SHAPES,
    "app/words.py": "".join(f"WORD_{n} = 'text {n}'\n" for n in range(200)),
    "other/far.py": "".join(f"FAR_{n} = area_7\n" for n in range(50)),
}


@pytest.fixture
def repository():
    return RepositoryFiles("org/app", [RepositoryFile(path, text, "python") for path, text in FILES.items()])


def samples(tokenizer, repository, path="app/main.py", length=1024, seed=0, **fim):
    settings = {"rate": 1.0, "context_files_rate": 1.0, **fim}
    windows = FimWindows(tokenizer, Fim(**settings), length, random.Random(seed), Counter())
    return list(windows.document_samples(FILES[path], "python", path, repository)), windows


def headers(tokenizer, drawn):
    """What stands in front of each FIM block, as text."""
    mark = formats.token_id(tokenizer, formats.FIM_PREFIX)
    return [tokenizer.decode(sample.ids[: sample.ids.index(mark)]) for sample in drawn if sample.middle]


def test_candidates_are_imported_files_and_neighbours(repository):
    assert repository.related("app/main.py", random.Random(0)) == ["app/shapes.py", "app/words.py"]
    assert repository.related("other/far.py", random.Random(0)) == []


def test_the_chunk_that_shares_names_with_the_cursors_text_comes_first(repository):
    for seed in range(5):
        path, text = next(repository.chunks("app/main.py", "total = area_7(width)", 300, random.Random(seed)))
        assert path == "app/shapes.py" and "def area_7(" in text and text in SHAPES


def test_headers_have_the_two_layouts_and_texts_of_other_files(real_tokenizer, repository):
    starts = Counter()
    for seed in range(12):
        drawn, _ = samples(real_tokenizer, repository, seed=seed)
        for header in headers(real_tokenizer, drawn):
            name, *chunks, last = header.split("<|file_sep|>")
            starts[name] += 1
            expected = "filename\n" if name == "<|repo_name|>myproject\n" else "app/main.py\n"
            assert last == expected and chunks
            for chunk in chunks:
                path, text = chunk.split("\n", 1)
                assert path in ("app/shapes.py", "app/words.py") and text.strip() in FILES[path]
                assert text.endswith("\n\n") or text.endswith("\n") or expected == "filename\n"
    assert set(starts) == {"<|repo_name|>myproject\n", "<|repo_name|>org/app\n"}
    assert min(starts.values()) > starts.total() / 4


def test_the_repository_layout_has_the_ids_of_the_documented_one(real_tokenizer, repository):
    drawn, _ = samples(real_tokenizer, repository)
    mark, end = (formats.token_id(real_tokenizer, token) for token in (formats.FILE_SEP, formats.ENDOFTEXT))
    compared = 0
    for sample in drawn:
        text = real_tokenizer.decode(sample.ids)
        if sample.middle and text.startswith("<|repo_name|>org/app\n"):
            assert sample.ids.count(mark) > 1 and sample.ids[-1] == end
            assert sample.ids == real_tokenizer.encode(text)
            compared += 1
    assert compared


def test_the_infill_layout_is_that_of_llama_cpps_server():
    segments = formats.infill_segments([("a.py", "A = 1"), ("b.py", "B = 2\n")])
    assert "".join(text for text, _ in segments) == (
        "<|repo_name|>myproject\n<|file_sep|>a.py\nA = 1<|file_sep|>b.py\nB = 2\n<|file_sep|>filename\n"
    )
    # The server tokenizes names and texts one by one.
    assert [text for text, special in segments if not special] == ["myproject\n", "a.py\n", "A = 1", "b.py\n", "B = 2\n", "filename\n"]  # fmt: skip


@pytest.mark.parametrize("length", [128, 300, 1024])
def test_samples_with_files_fit_the_row_and_chunks_their_budget(length, tiny_tokenizer, repository):
    drawn, windows = samples(tiny_tokenizer, repository, length=length, context_tokens=length // 2)
    mark = formats.token_id(tiny_tokenizer, formats.FIM_PREFIX)
    for sample in drawn:
        assert len(sample.ids) <= length
        if sample.middle:
            assert sample.ids.index(mark) <= length // 2
    assert windows.counts["fim"] > 5


def test_the_share_of_samples_with_files_is_the_rate(tiny_tokenizer, repository):
    counts = Counter()
    for seed in range(20):
        counts += samples(tiny_tokenizer, repository, seed=seed, context_files_rate=0.5)[1].counts
    assert counts["fim_with_files"] / counts["fim"] == pytest.approx(0.5, abs=0.12)


def test_without_the_setting_nothing_stands_in_front(tiny_tokenizer, repository):
    drawn, windows = samples(tiny_tokenizer, repository, context_files_rate=0.0)
    assert set(headers(tiny_tokenizer, drawn)) == {""} and not windows.counts["fim_with_files"]


def test_rows_are_grouped_by_their_repository():
    rows = [
        {"repository": "a", "path": "x.py", "text": "x"},
        {"repository": "a", "path": "y.py", "text": "y", "language": "python"},
        {"repository": "b", "path": "x.py", "text": "z"},
        {"text": "alone"},
        {"messages": []},
        {"repository": "c", "files": []},
    ]
    grouped = list(with_repositories(enumerate(rows, 1)))
    assert [(number, row) for number, row, _ in grouped] == list(enumerate(rows, 1))
    known = [related and (related.repository, sorted(related.by_path)) for _, _, related in grouped]
    assert known == [("a", ["x.py", "y.py"])] * 2 + [("b", ["x.py"]), None, None, None]


@pytest.mark.parametrize(
    ("fim", "message"),
    [
        ({"level": "document", "context_files_rate": 0.5}, "`context_files_rate` is for `level: context`"),
        ({"context_tokens": 100}, "needs a `context_files_rate` above 0"),
    ],
)
def test_settings_without_effect_are_refused(fim, message):
    with pytest.raises(ValueError, match=message):
        Fim.model_validate(fim)
