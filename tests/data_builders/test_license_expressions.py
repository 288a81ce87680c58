"""Which SPDX expressions a set of permitted licenses satisfies."""

from __future__ import annotations

import pytest

from data_builders.cleaning.license_expressions import is_satisfied

PERMITTED = {"MIT", "GPL-2.0"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0", False),
        ("Apache-2.0 OR MIT", True),
        ("Apache-2.0 AND MIT", False),
        ("MIT OR Apache-2.0 AND ISC", True),
        ("(MIT OR Apache-2.0) AND ISC", False),
        ("isc or (mit-0 and MIT) or GPL-2.0", True),
        ("GPL-2.0 WITH Classpath-exception-2.0", True),
        ("MIT AND", False),
        ("MIT/X11", False),
        ("", False),
    ],
)
def test_one_side_of_or_is_enough_and_and_needs_all(expression: str, expected: bool) -> None:
    assert is_satisfied(expression, PERMITTED.__contains__) is expected


def test_text_that_is_no_expression_is_judged_as_one_identifier() -> None:
    assert is_satisfied("MIT AND", {"MIT AND"}.__contains__)
