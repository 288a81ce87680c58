"""YAML with positions: scalars, merging, overrides, and hostile text."""

import pytest

from alignment.recipe import RecipeError
from alignment.recipe.overlays import override
from alignment.recipe.recipe_file import load_source
from alignment.recipe.yaml_source import parse


def message(call):
    with pytest.raises(RecipeError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E3", 1000.0), ("-.5", -0.5), (".5", 0.5), ("1_000", 1000), ("no", "no"), ("on", "on"),
        ("True", True), ("~", None), ("", None), ("2001-01-01", "2001-01-01"), ("12:30", "12:30"), ("010", "010"),
        ("0", 0), ("-3", -3), ('"3"', "3"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    result = parse(f"a: {text}", "f").value["a"]
    assert result == value and isinstance(result, type(value))


def test_a_key_written_twice_is_refused_with_its_line():
    assert "f:3: a: written twice" in message(lambda: parse("a: 1\nb: 2\na: 3", "f"))


def test_an_alias_repeats_its_value():
    assert parse("a: &x {b: 1}\nc: *x", "f").value == {"a": {"b": 1}, "c": {"b": 1}}


def test_the_keys_of_a_mapping_win_over_merged_ones():
    assert parse("a: &x {b: 1, c: 2}\nd: {b: 3, <<: *x}", "f").value["d"] == {"b": 3, "c": 2}


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"])
def test_an_alias_bomb_is_refused(form):
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} " + form.format(", ".join([f"*a{i - 1}"] * 10)) for i in range(1, 12)]
    assert "values, aliases counted" in message(lambda: parse("\n".join(lines), "f"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x [*x]", "f:1: an alias that contains itself"),
        ("a: &x {<<: *x}", "f:1: an alias that contains itself"),
        ("a: {<<: 3}", "merges mappings"),
        ("a: " + "[" * 2000, "nested more than"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than"),
        ("a: 1\n\tb: 2", "f:2: "),
        ("a:\n\tb: 2", "f:2: not valid YAML: a tab"),
        ("a: 1\nb: \0", "f:2: not valid YAML: the character U+0000 is not allowed"),
        ('a: "\\0"', "f:1: a: '\\x00' has a character that no setting may have"),
        ('a: "\\uD800"', "has a character that no setting may have"),
        ("a: .nan", "f:1: a: must be a finite number"),
        ("b: [1, -.INF]", "f:1: b.1: must be a finite number"),
        ("a: 1e999", "finite"),
        ("a: 1" + "0" * 30, "is too large"),
        ("a: 1" + "0" * 5000, "f:1: a: 1000"),
        ("a: !!int x", "f:1: a: x is not a valid int"),
        ("a: !!timestamp 2001-01-01", "is not supported in a recipe"),
        ("a: !!python/object/apply:os.system [ls]", "is not supported in a recipe"),
        ("a: !!binary aGk=", "is not supported in a recipe"),
        ("? [a]\n: 1", "a key must be a plain word"),
        ("a: *x", "undefined alias"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: {", "f:1: not valid YAML"),
    ],
)
def test_invalid_text_is_refused_with_one_line_that_says_why(text, expected):
    result = message(lambda: parse(text, "f"))
    assert expected in result and len(result.splitlines()) == 2 and len(result) < 300


def test_a_byte_order_mark_and_windows_newlines_are_accepted(write):
    source = load_source(write(a="\ufeffa: 1\r\nb:\r\n  c: 2\r\n"))
    assert source.value == {"a": 1, "b": {"c": 2}} and source.positions["b", "c"] == ("a.yaml", 3)


def test_a_file_that_is_not_utf8_is_refused_with_its_line(write):
    path = write(a="a: 1\nb: ä".encode("latin1"))
    assert "a.yaml:2: not UTF-8" in message(lambda: load_source(path))


def test_a_missing_recipe_suggests_a_similar_name(write):
    path = write(quickstart="a: 1")
    assert "Did you mean 'quickstart.yaml'?" in message(lambda: load_source(path.with_name("quikstart.yaml")))


def test_a_folder_is_refused(tmp_path):
    assert "cannot be read: Is a directory" in message(lambda: load_source(tmp_path))


def test_extends_merges_mappings_by_key_and_lists_by_name(write):
    write(base="a: {b: 1, c: 2}\nlist: [{name: x, v: 1}, {name: y, v: 1}]\nplain: [1, 2]")
    path = write(top="extends: base.yaml\na: {c: 3}\nlist: [{name: z}, {name: y, v: 2}]\nplain: [3]")
    assert load_source(path).value == {
        "a": {"b": 1, "c": 3},
        "list": [{"name": "x", "v": 1}, {"name": "y", "v": 2}, {"name": "z"}],
        "plain": [3],
    }


def test_the_last_of_several_parents_wins_and_the_file_itself_wins_over_all(write):
    write(one="a: 1\nb: 1\nc: 1", two="a: 2\nb: 2")
    assert load_source(write(top="extends: [one.yaml, two.yaml]\na: 3")).value == {"a": 3, "b": 2, "c": 1}


def test_every_value_has_the_file_and_line_it_was_written_in(write):
    write(base="list:\n  - name: x\n    v: 1\n    w: 1")
    positions = load_source(write(top="extends: base.yaml\nlist:\n  - name: x\n\n    w: 2")).positions
    assert positions["list", 0, "v"] == ("base.yaml", 3) and positions["list", 0, "w"] == ("top.yaml", 5)


def test_a_circle_of_extends_is_refused_and_shown(write):
    path = write(a="x: 1\nextends: b.yaml", b="extends: c.yaml", c="extends: a.yaml")
    assert "c.yaml:1: extends: recipes extend each other in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml" in message(
        lambda: load_source(path.with_name("a.yaml"))
    )


def test_a_recipe_that_extends_itself_is_a_circle(write):
    assert "circle" in message(lambda: load_source(write(a="extends: ./a.yaml")))


@pytest.mark.parametrize("named", ["3", "[]", "[1]", "''", "{a: b}", "~"])
def test_extends_accepts_file_names_only(write, named):
    assert "a.yaml:2: extends: must be the path of another recipe" in message(
        lambda: load_source(write(a=f"x: 1\nextends: {named}"))
    )


def test_a_missing_parent_is_refused_with_the_line_that_names_it(write):
    write(base="a: 1")
    assert "a.yaml:2: extends: there is no file bse.yaml. Did you mean 'base.yaml'?" in message(
        lambda: load_source(write(a="x: 1\nextends: bse.yaml"))
    )
    assert "there is no file" in message(lambda: load_source(write(a="extends: " + "y" * 3000)))


def test_override_finds_list_items_by_name_by_number_and_by_a_name_with_dots(write):
    source = load_source(write(a="list: [{name: x}, {name: v2.5, t: {b: 1}}]"))
    assert override(source, "list.x.a=1e-3").value["list"][0] == {"name": "x", "a": 1e-3}
    assert override(source, "list.0.a.b=[1]").value["list"][0] == {"name": "x", "a": {"b": [1]}}
    assert override(source, "list.v2.5.t.b=2").value["list"][1]["t"] == {"b": 2}
    assert source.value["list"][0] == {"name": "x"}


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_key_with_dots_or_equals_signs_is_quoted(write, quote):
    source = load_source(write(a="t: {}"))
    for key in ("llama.cpp:q8_0", "gptq-int4", "a=b", "a b", "x"):
        changed = override(source, f"t.{quote}{key}{quote}.max_kl_divergence=1e-3")
        assert changed.value == {"t": {key: {"max_kl_divergence": 1e-3}}}
        assert changed.positions["t", key, "max_kl_divergence"] == ("--set", 0)


def test_a_mapping_that_an_override_creates_has_a_position(write):
    source = override(load_source(write(a="t: {}")), "u.v.w=1")
    assert source.positions["u",] == source.positions["u", "v"] == ("--set", 0)
    assert override(source, "t.x=1").positions["t",] == ("a.yaml", 1)


def test_a_bare_key_may_have_hyphens_and_colons(write):
    source = load_source(write(a="t: {}"))
    assert override(source, "t.gptq-int4.x=1").value == {"t": {"gptq-int4": {"x": 1}}}
    assert override(source, "t.ollama:q4_K_M.x = 1").value == {"t": {"ollama:q4_K_M": {"x": 1}}}


def test_a_quoted_name_of_a_list_item_may_have_dots(write):
    source = load_source(write(a="list: [{name: v2.5}, {name: x}]"))
    assert override(source, 'list."v2.5".a=1').value["list"][0] == {"name": "v2.5", "a": 1}


def test_errors_write_keys_as_set_does(write):
    source = load_source(write(a="t: {llama.cpp:q8_0: {x: 1}}\nlist: [{name: v2.5, x: 1}]"))
    assert source.problem(("t", "llama.cpp:q8_0", "x"), "wrong").key == 't."llama.cpp:q8_0".x'
    assert source.problem(("list", 0, "x"), "wrong").key == "list.v2.5.x"


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a", "write it as key.of.setting=value"),
        ("=1", "write it as"),
        ("a..b=1", "write it as"),
        ('"a.b', "write it as"),
        ('"a"b=1', "write it as"),
        ("list.'x.y'.z=1", "there is no item 'x.y' in this list. Its items are x."),
        ("n.x=1", "n is a single value"),
        ("list.y=1", "there is no item 'y' in this list"),
        ("list.1=1", "there is no item '1'"),
        ("n={", "--set: n: not valid YAML"),
        ("n={a: 1, a: 2}", "--set: n: written twice"),
    ],
)
def test_a_bad_override_says_what_is_wrong(write, assignment, expected):
    source = load_source(write(a="n: 1\nlist: [{name: x}]"))
    assert expected in message(lambda: override(source, assignment))
