"""Context-level fill-in-the-middle: whole samples, joined to the file's text, in the documented layout, at the given
share.
"""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.models import formats
from alignment.recipe.stage_parts import Fim, FimMiddles
from alignment.tokenization.fim_middles import FileText, choose_middle
from alignment.tokenization.fim_windows import FimWindows

SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
MARKS = (formats.FIM_PREFIX, formats.FIM_SUFFIX, formats.FIM_MIDDLE, formats.ENDOFTEXT)
PYTHON = '''import math


class Circle:
    """A circle."""

    def __init__(self, radius):
        self.radius = radius

    def area(self):
        """Return the area."""
        square = self.radius**2
        return math.pi * square


def total(circles):
    result = 0
    for circle in circles:
        if circle.radius > 0:
            result += circle.area()
    return result
'''
JAVASCRIPT = """function total(items) {
  let sum = 0;
  for (const item of items) {
    sum += item.price;
  }
  return sum;
}
"""


def cutter(tokenizer, max_length=200, seed=0, **fim):
    return FimWindows(tokenizer, Fim(**fim), max_length, random.Random(seed), Counter())


def lines_text(count, seed=0):
    """Indented lines, all different."""
    draw = random.Random(seed)
    return "".join(f"{'    ' * draw.randint(0, 3)}value_{number} = {draw.random():.4f}\n" for number in range(count))


def parts_of(tokenizer, ids):
    """Prefix, middle and suffix of a FIM sample, after its layout was checked."""
    prefix, suffix, middle, end = (formats.token_id(tokenizer, mark) for mark in MARKS)
    at = [ids.index(mark) for mark in (prefix, suffix, middle)]
    assert [ids.count(mark) for mark in (prefix, suffix, middle, end)] == [1, 1, 1, 1] and ids[-1] == end
    assert at == sorted(at)
    pieces = [ids[at[0] + 1 : at[1]], ids[at[1] + 1 : at[2]], ids[at[2] + 1 : -1]]
    return [tokenizer.decode(piece) for piece in pieces]


texts = st.lists(
    st.text(alphabet="ab_ ():=\n\té🎉", max_size=30).map(lambda line: line + "\n")
    | st.sampled_from(PYTHON.splitlines(True)),
    max_size=80,
).map("".join)


@given(text=texts, seed=st.integers(0, 2**20), rate=st.sampled_from([0.3, 1.0]), length=st.integers(64, 300))
@SHARED_FIXTURE
def test_samples_fit_the_row_and_join_to_the_text(text, seed, rate, length, tiny_tokenizer):
    windows = cutter(tiny_tokenizer, length, seed, rate=rate)
    plain_ids = []
    for sample in windows.document_samples(text, "python"):
        assert len(sample.ids) <= length
        if not sample.middle:
            plain_ids.append(sample.ids)
            continue
        prefix, suffix, middle = parts_of(tiny_tokenizer, sample.ids)
        assert prefix + middle + suffix in text and middle.strip()
        assert sample.middle == len(tiny_tokenizer.encode(middle, add_special_tokens=False))
    for ids in plain_ids:
        piece = tiny_tokenizer.decode([token for token in ids if token != formats.token_id(tiny_tokenizer, MARKS[3])])
        assert piece.strip("\N{REPLACEMENT CHARACTER}") in text  # a row may end inside of a character


@given(seed=st.integers(0, 2**20), rate=st.sampled_from([0.0, 0.5, 1.0]), length=st.integers(80, 400))
@SHARED_FIXTURE
def test_no_text_is_skipped(seed, rate, length, tiny_tokenizer):
    text = lines_text(60, seed)
    windows = cutter(tiny_tokenizer, length, seed, rate=rate)
    covered = 0
    for sample in windows.document_samples(text, ""):
        if sample.middle:
            prefix, suffix, middle = parts_of(tiny_tokenizer, sample.ids)
            piece = prefix + middle + suffix
        else:
            piece = tiny_tokenizer.decode(sample.ids, skip_special_tokens=True)
        begin = text.find(piece, max(covered - len(piece), 0))
        assert 0 <= begin <= covered
        covered = max(covered, begin + len(piece))
    assert covered == len(text)


@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_ids_are_those_of_the_documented_layout(spm_rate, real_tokenizer):
    windows = cutter(real_tokenizer, 300, rate=1.0, spm_rate=spm_rate)
    samples = list(windows.document_samples(PYTHON * 8, "python"))
    assert len(samples) > 3
    for sample in samples:
        first, second, third = parts_of(real_tokenizer, sample.ids)
        if spm_rate:  # the prefix stands behind the token for the middle
            assert first == ""
            start = third.find(real_tokenizer.decode(sample.ids[-1 - sample.middle : -1]))
            expected = f"<|fim_prefix|><|fim_suffix|>{second}<|fim_middle|>{third}<|endoftext|>"
            assert start >= 0 and real_tokenizer.decode(sample.ids) == expected
        else:
            document = f"<|fim_prefix|>{first}<|fim_suffix|>{second}<|fim_middle|>{third}<|endoftext|>"
            assert document == formats.fim_document(first, third, second)
            assert sample.ids == real_tokenizer.encode(document)


def test_a_text_that_spells_special_tokens_gets_none_of_them(tiny_tokenizer):
    text = 'STOP = "<|fim_middle|>"  # and <|endoftext|>\n' * 30
    for sample in cutter(tiny_tokenizer, 150, rate=0.5).document_samples(text, ""):
        if sample.middle:
            prefix, suffix, middle = parts_of(tiny_tokenizer, sample.ids)
            assert prefix + middle + suffix in text
        assert sample.ids.count(formats.token_id(tiny_tokenizer, formats.FIM_MIDDLE)) == bool(sample.middle)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("lines", [(2, 8), (40, 200)])
def test_the_share_of_fim_tokens_is_the_rate(rate, lines, tiny_tokenizer):
    windows = cutter(tiny_tokenizer, 256, rate=rate)
    draw = random.Random(1)
    samples = []
    while windows.tokens < 60_000:
        samples += windows.document_samples(lines_text(draw.randint(*lines), draw.random()), "")
    fim = sum(len(sample.ids) for sample in samples if sample.middle)
    assert fim == windows.fim_tokens
    assert fim / sum(len(sample.ids) for sample in samples) == pytest.approx(rate, abs=0.03)


def test_at_a_rate_of_one_only_text_without_a_middle_is_plain(tiny_tokenizer):
    samples = list(cutter(tiny_tokenizer, rate=1.0).document_samples(lines_text(200), ""))
    plain = [sample for sample in samples if not sample.middle]
    assert len(samples) > 10 and sum(len(sample.ids) for sample in plain) < 20 * max(len(plain), 1)


def test_a_rate_of_zero_gives_the_tokens_of_the_document(tiny_tokenizer):
    text = lines_text(100)
    samples = list(cutter(tiny_tokenizer, rate=0.0).document_samples(text, ""))
    expected = [*tiny_tokenizer.encode(text), formats.token_id(tiny_tokenizer, formats.ENDOFTEXT)]
    assert [token for sample in samples for token in sample.ids] == expected


def test_a_long_file_gives_several_middles_of_all_kinds(real_tokenizer):
    windows = cutter(real_tokenizer, 512, rate=1.0)
    for seed in range(20):
        list(windows.document_samples(PYTHON * 12 + lines_text(9, seed), "python"))
    kinds = {kind for kind, count in windows.counts.items() if count}
    assert kinds == {"fim", *(f"fim_{kind}" for kind in FimMiddles.model_fields)}
    assert windows.counts["fim"] > 100


def test_a_repository_that_fits_stays_whole_with_fim_in_its_last_file(tiny_tokenizer):
    files = [("a.py", "A = 1\n"), ("b.py", "import a\nB = a.A\nC = B\n")]
    (sample,) = cutter(tiny_tokenizer, rate=1.0).repository_samples("org/tools", files, ["python", "python"])
    text = tiny_tokenizer.decode(sample.ids)
    header = formats.repo_header("org/tools", files[:1]) + f"{formats.FILE_SEP}b.py\n"
    assert text.startswith(header + formats.FIM_PREFIX)
    prefix, suffix, middle = parts_of(tiny_tokenizer, sample.ids)
    assert prefix + middle + suffix == files[1][1]


def test_every_file_of_a_longer_repository_has_its_path_in_front(tiny_tokenizer):
    files = [(f"{name}.py", lines_text(60, seed)) for seed, name in enumerate("abc")]
    samples = list(cutter(tiny_tokenizer, rate=1.0).repository_samples("org/tools", files, ["python"] * 3))
    for sample in samples:
        if not sample.middle:
            continue
        text = tiny_tokenizer.decode(sample.ids)
        prefix, suffix, middle = parts_of(tiny_tokenizer, sample.ids)
        (path,) = [path for path, content in files if prefix + middle + suffix in content]
        assert text.startswith(f"<|repo_name|>org/tools\n<|file_sep|>{path}\n<|fim_prefix|>")
    assert len(samples) > 6


def middles(kind, text, language, count=200):
    """Spans of one kind of middle, each drawn with a seed of its own."""
    weights = FimMiddles(**{name: float(name == kind) for name in FimMiddles.model_fields})
    drawn = (
        choose_middle(FileText(text, language), (0, len(text)), 400, weights, random.Random(seed))
        for seed in range(count)
    )
    return {chosen[0] for chosen in drawn if chosen is not None}


@pytest.mark.parametrize("text", [PYTHON, PYTHON.replace("\n", "\r\n")])
def test_the_rest_of_a_line_ends_at_its_end_and_starts_at_a_word(text):
    spans = middles("line", text, "python")
    assert len(spans) > 20
    for start, end in spans:
        assert text[end] in "\r\n" and "\n" not in text[start:end] and text[start:end].strip()
        assert not (text[start - 1].isalnum() and text[start].isalnum())


def test_whole_lines_start_at_a_line_and_end_at_one():
    for start, end in middles("lines", PYTHON, "python"):
        line_start = PYTHON.rfind("\n", 0, start) + 1
        assert not PYTHON[line_start:start].strip() or PYTHON[start] == "\n"
        assert PYTHON[end - 1 : end] == "\n" or PYTHON[end : end + 1] == "\n"


@pytest.mark.parametrize(
    ("text", "language", "bodies"),
    [
        (PYTHON, "python", ["self.radius = radius", "square = self.radius**2\n        return math.pi * square"]),
        (JAVASCRIPT, "javascript", [JAVASCRIPT.split("{\n", 1)[1].rsplit("\n}", 1)[0].strip()]),
    ],
)
def test_a_body_is_the_body_of_a_function(text, language, bodies):
    pytest.importorskip("tree_sitter_language_pack", reason="needs the extra [syntax]")
    drawn = {text[start:end].strip() for start, end in middles("body", text, language)}
    assert drawn.issuperset(bodies)
    assert all("def " not in body and "function" not in body for body in drawn)


def test_without_a_grammar_a_body_is_what_is_indented_below_a_line():
    drawn = {PYTHON[start:end].strip() for start, end in middles("body", PYTHON, "no such language")}
    assert "self.radius = radius" in drawn
    assert "result += circle.area()" in drawn


def test_at_the_edges_of_a_file_prefix_or_suffix_is_empty():
    spans = middles("edge", PYTHON, "python")
    assert {start == 0 for start, _ in spans} == {True, False}
    assert all(start == 0 or end == len(PYTHON) for start, end in spans)


def test_blank_text_has_no_middle(tiny_tokenizer):
    assert not middles("line", "\n \n\t\n", "")
    (sample,) = cutter(tiny_tokenizer, rate=1.0).document_samples("\n \n\t\n", "")
    assert not sample.middle


def test_a_region_bounds_its_middles():
    region = PYTHON.index("class"), PYTHON.index("def total")
    for seed in range(200):
        chosen = choose_middle(FileText(PYTHON, "python"), region, 60, FimMiddles(), random.Random(seed))
        if chosen is not None:
            start, end = chosen[0]
            assert region[0] <= start < end <= region[1] and end - start <= 60


@pytest.mark.parametrize(
    ("settings_of_fim", "message"),
    [
        ({"spans": "lines"}, "`spans` is for `level: document`"),
        ({"level": "document", "window": 512}, "`window` is for `level: context`"),
        ({"level": "document", "middles": {}}, "`middles` is for `level: context`"),
        ({"middles": dict.fromkeys(FimMiddles.model_fields, 0.0)}, "needs a weight above 0"),
    ],
)
def test_settings_without_effect_are_refused(settings_of_fim, message):
    with pytest.raises(ValueError, match=message):
        Fim.model_validate(settings_of_fim)
