"""Repositories in JavaScript and TypeScript give instructions: JSDoc comments describe functions, and the whole file is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import run_builder, write_files

from alignment.rows import reading as row_files

PRICES = """'use strict'

const CENTS = 100

/**
 * Add the tax of a country to a price.
 *
 * @param {number} price
 * @param {string} [country]
 * @returns {number}
 */
function withTax (price, country) {
  const rate = country === 'de' ? 19 : 20
  return Math.round(price * (CENTS + rate)) / CENTS
}

/** Short. */
function short (a) {
  const b = a
  return b
}

/**
 * Remove all things that were put into the basket.
 *
 * @param {object} cart
 */
exports.clear = function (basket) {
  basket.things = []
  return basket
}

function undocumented (a) {
  const b = a
  return b
}
"""


def test_a_repository_without_python_gives_instructions(tmp_path: Path) -> None:
    write_files(tmp_path / "shop", {"prices.js": PRICES, "test/prices.test.js": PRICES, "prices.d.ts": "export {}\n"})
    account = run_builder("instructions", tmp_path / "out", sources=[tmp_path / "shop"])
    rows = {
        (row["source"].partition(":")[0], row["source"].rpartition(":")[2]): row["messages"]
        for row in row_files.read(tmp_path / "out")
    }
    # The comment of `clear` names a parameter that the function does not have, so it is no answer.
    assert set(rows) == {("implement", "withTax"), ("document", "withTax"), ("implement", "clear")}
    assert account["languages"] == {"javascript": 3}
    prompt, answer = (message["content"] for message in rows["implement", "withTax"])
    assert "const CENTS = 100" in prompt and "// write this body" in prompt and "const rate" not in prompt
    assert (
        answer == f"```javascript\n{PRICES[PRICES.index('function withTax') : PRICES.index('/** Short')].strip()}\n```"
    )
    prompt, answer = (message["content"] for message in rows["document", "withTax"])
    assert "Add the tax" not in prompt and answer.startswith(
        "```javascript\n/**\n * Add the tax of a country to a price.\n *\n"
    )


def test_other_languages_are_an_error_that_names_the_builder_for_them(tmp_path: Path) -> None:
    write_files(tmp_path / "shop", {"shop.go": "package shop\n\nfunc Price() int {\n\treturn 1\n}\n"})
    with pytest.raises(ValueError, match=r"no instruction could be made.*Use the builder `commits`"):
        run_builder("instructions", tmp_path / "out", sources=[tmp_path / "shop"])
