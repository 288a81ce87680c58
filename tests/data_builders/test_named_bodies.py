"""Functions of languages without a parser of their own, from the syntax tree."""

from __future__ import annotations

import pytest

from data_builders.parsing.syntax_tree import SyntaxTree

FILES = {
    "go": ("package a\n\nfunc (s *Shop) Add(n int) error {\n\ts.n += n\n\treturn nil\n}\n\nfunc Empty() {}\n", "s.n += n\n\treturn nil"),
    "java": ("class A {\n  abstract int none();\n  int Add(int y) {\n    return x + y;\n  }\n}\n", "return x + y;"),
    "rust": ("impl A {\n  fn Add(&self) -> i32 {\n    self.x + 1\n  }\n}\nfn empty() {}\n", "self.x + 1"),
    "c": ("static int *Add(int a)\n{\n  return a + b;\n}\nint declared(void);\n", "return a + b;"),
    "c++": ("template <class T> T Add(T x) {\n  return x;\n}\n", "return x;"),
    "c#": ("class A { public int X => 3; public int Add(int y) { return y; } }\n", "return y;"),
    "ruby": ("class A\n  def Add(y)\n    @x + y\n  end\nend\n", "@x + y"),
    "php": ("<?php\nclass A { function Add($y) { return $y; } }\n", "return $y;"),
    "swift": ("func Add(y: Int) -> Int {\n  return y\n}\n", "return y"),
}  # fmt: skip


@pytest.mark.parametrize("language", FILES)
def test_named_functions_have_bodies_without_braces(language: str) -> None:
    text, body = FILES[language]
    tree = SyntaxTree.parse(text, language)
    assert tree is not None
    assert [(name, text[start:end]) for name, (start, end) in tree.named_bodies()] == [("Add", body)]


def test_functions_inside_of_functions_belong_to_the_outer_body() -> None:
    text = "package a\n\nfunc Outer() func() int {\n\treturn func() int { return 1 }\n}\n"
    tree = SyntaxTree.parse(text, "go")
    assert tree is not None
    assert [name for name, _ in tree.named_bodies()] == ["Outer"]


def test_a_function_with_a_syntax_error_is_left_out() -> None:
    tree = SyntaxTree.parse("package a\n\nfunc Broken() int {\n\treturn (1\n}\n", "go")
    assert tree is not None
    assert list(tree.named_bodies()) == []
