"""Go code: functions, scopes, answers, and what an answer may not use. Nothing is compiled."""

from __future__ import annotations

import pytest
from go_shop import CHEATING_FILES, CHEATS, FILES, GOOD_ANSWERS, SHOP

pytest.importorskip("tree_sitter_language_pack", reason="needs the extra [syntax]")

from alignment.grading.projects.go_language import GoLanguage
from alignment.grading.projects.go_scope import free_names, without_unused_imports
from alignment.grading.projects.go_syntax import go_functions
from alignment.grading.source_tree import SourceTree
from data_builders.tasks.projects.go_source import GoSource

GO = GoLanguage()
SOURCES = {path: str(text) for path, text in FILES.items() if path.endswith((".go", ".mod"))}
FUNCTIONS = {item.name: item for item in go_functions("shop.go", SHOP)}
FACTS = GO.facts({**SOURCES, **GO.instrumented(SOURCES, "token")})[""]


def problem(program: str, name: str = "Basket.Total") -> str:
    """Why an answer is not graded, or "" if it is."""
    target = FUNCTIONS[name].target()
    answer = GO.read_answer(program, target)
    new = GO.replaced(SHOP, target, answer, FACTS) if answer is not None else None
    if new is None:
        return "syntax"
    return ", ".join(GO.refusals(SHOP, new, target, FACTS))


def test_functions_and_methods_are_found_with_their_bodies_and_tiers() -> None:
    assert {name: item.tier for name, item in FUNCTIONS.items()} == {
        "New": "A", "Basket.Add": "A", "Basket.Total": "A", "Slug": "A", "Program": "B", "unused": "A",
    }  # fmt: skip
    total = FUNCTIONS["Basket.Total"]
    assert total.header == "func (b *Basket) Total(percent int) (int, error)" and total.parameters == ("percent",)
    assert total.doc.startswith("// Total returns") and SHOP[total.start : total.end].strip().startswith(
        "if len(b.names)"
    )
    assert go_functions("broken.go", "package a\nfunc x( {") == []


def test_tests_are_listed_with_their_package() -> None:
    assert GO.tests(SOURCES) == dict.fromkeys(
        [f"shop_test.go::Test{name}" for name in ("Total", "TotalOfNothing", "Full", "Program", "ProgramHasNoBlanks", "Fails", "Skipped")]
        + ["slug_test.go::TestSlug", "slug_test.go::TestSlugOfNothing"], "",
    )  # fmt: skip
    assert GO.tests({"vendor/a/a_test.go": SOURCES["shop_test.go"], "a_test.go": "package a\nfunc Testing() {}"}) == {}


def test_each_test_reports_its_begin_before_anything_else_runs() -> None:
    changed = GO.instrumented(SOURCES, "token")
    assert 'func TestFull(tt *testing.T) { Record_token(tt, "TestFull");' in changed["shop_test.go"]
    assert "func TestSlugOfNothing(t_token *testing.T) { inner_token.Record_token(t_token, " in changed["slug_test.go"]
    assert 'package shop_test; import inner_token "example.com/shop"' in changed["slug_test.go"]
    assert changed["align_token_test.go"].startswith("package shop\n")
    assert {"Record_token", "Variant_token", "totals", "filled"} <= set(FACTS["test_names"])


@pytest.mark.parametrize(("body", "names"), [
    ("{ x := y; _ = x }", "y"), ("{ { x := 1; _ = x }; _ = x }", "x"), ("{ x := x; _ = x }", "x"),
    ("{ for i, v := range all { _, _ = i, v } }", "all"), ("{ if v := f(); v { } }", "f"),
    ("{ switch v := a.(type) { case int: _ = v } }", "a"), ("{ _ = T{Field: value} }", "T value"),
    ("{ f := func(a int) int { return a + b }; f(1) }", "b"), ("{ type t struct{ a other }; var z t; _ = z }", "other"),
    ("{ var r io.Reader = new(bytes.Buffer); _ = r }", "io bytes"), ("{ f := func(h hash.Hash) {}; f(nil) }", "hash"),
    ("{ var f func(x int); _ = f; _ = x }", "x"), ("{ _ = a.b.c(d) }", "a d"), ("{ x, err := g(); _, _ = x, err }", "g"),
])  # fmt: skip
def test_names_are_resolved_by_the_scopes_of_the_language(body: str, names: str) -> None:
    tree = SourceTree(f"package p\nfunc f0() {body}\n", "go")
    assert not tree.root.has_error
    assert " ".join(dict.fromkeys(tree.text(node) for node in free_names(tree, tree.root.named_children[1]))) == names


def test_an_import_that_is_no_longer_used_becomes_blank() -> None:
    text = 'package p\nimport (\n\t"fmt"\n\tm "math"\n\t"gopkg.in/yaml.v3"\n)\nvar x = yaml.A\n'
    assert without_unused_imports(text) == text.replace('"fmt"', '_ "fmt"').replace('m "math"', '_ "math"')


STATIC = {
    "reads_the_nonce": "os.Stdin", "reads_a_file": "os.ReadFile", "no_test_cases": "'totals' of a test file",
    "other_test_cases": "'totals' of a test file", "calls_a_helper_of_the_tests": "'filled' of a test file",
    "calls_a_test": "'TestSkipped' of a test file", "no_error_to_compare_with": "a change of 'ErrEmpty'",
    "no_error_by_address": "a change of 'ErrEmpty'", "shadowed_in_a_block": "'totals' of a test file", "closes_the_function": "syntax",
    "linkname": "the comment", "line_directive": "the comment", "deep_nesting": "syntax", "does_not_parse": "syntax",
    "null_character": "syntax",
}  # fmt: skip


@pytest.mark.parametrize("name", STATIC)
def test_an_answer_that_names_what_could_change_the_tests_is_not_run(name: str) -> None:
    assert STATIC[name] in problem(CHEATS[name])


def test_an_answer_cannot_add_functions_to_the_file() -> None:
    for name in ("replaces_main", "adds_an_init"):
        target = FUNCTIONS["Basket.Total"].target()
        answer = GO.read_answer(CHEATING_FILES[name], target)
        assert answer is not None
        new = GO.replaced(SHOP, target, answer, FACTS)
        assert new is None or ("func TestMain" not in new and "func init()" not in new)


@pytest.mark.parametrize("name", GOOD_ANSWERS)
def test_right_answers_of_every_form_are_accepted(name: str) -> None:
    assert problem(GOOD_ANSWERS[name]) == ""


def test_what_the_original_body_uses_is_allowed() -> None:
    assert problem("return os.Args[0]", "Program") == ""
    assert "os.Getpid" in problem("os.Getpid()\n\treturn os.Args[0]", "Program")


def test_the_prompt_shows_what_the_body_needs_and_nothing_else() -> None:
    needed = GoSource().needed(SOURCES, FUNCTIONS["Basket.Total"])
    assert not needed.unresolved and not needed.others
    assert "type Basket struct" in needed.head and 'var ErrEmpty = errors.New("empty basket")' in needed.head
    assert '"errors"' in needed.head and '"strings"' not in needed.head and "maxItems" not in needed.head
    assert needed.head.endswith("(int, error) {") and needed.tail == "}"
    needed = GoSource().needed(SOURCES, FUNCTIONS["Program"])
    assert "func Slug(name string) string" in needed.head and "ReplaceAll" not in needed.head


def test_types_of_other_packages_are_no_unknown_names() -> None:
    text = 'package p\n\nimport "io"\n\nfunc read(r io.Reader) []byte {\n\tb, _ := io.ReadAll(r)\n\treturn b\n}\n'
    (function,) = go_functions("p.go", text)
    needed = GoSource().needed({"p.go": text, "go.mod": "module a\n"}, function)
    assert not needed.unresolved and '"io"' in needed.head


def test_mutants_and_trivial_bodies_differ_from_the_original() -> None:
    source, total = GoSource(), FUNCTIONS["Basket.Total"]
    original = SHOP[total.first : total.end + 1]
    wrong = source.mutants(SHOP, total, 50)
    assert len(wrong) > 5 and original not in wrong and len(set(wrong)) == len(wrong)
    assert wrong[:3] == source.mutants(SHOP, total, 3)
    trivial = source.trivial(SHOP, total)
    assert any("return percent, zero1" in item for item in trivial) and any(
        "return 1, zero1" in item for item in trivial
    )
    assert all(not SourceTree(item, "go").root.has_error for item in [*wrong, *trivial])
