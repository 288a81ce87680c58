"""Evaluate SPDX license expressions, such as `(MIT OR Apache-2.0) AND BSD-3-Clause`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

from license_expression import AND, ExpressionError, LicenseExpression, LicenseWithExceptionSymbol, Licensing

_LICENSING = Licensing()  # without a list of known licenses: `owned` and `unknown` are identifiers like any other


def is_satisfied(expression: str, permits: Callable[[str], bool], exceptions: Collection[str] = ()) -> bool:
    """Whether code under a license expression may be used.

    `permits` decides whether a single license identifier is permitted.

    `OR` needs one permitted side, `AND` needs all sides. A `WITH` exception only adds permissions, so it is ignored and
    the license before `WITH` decides. Text that is not a valid expression is treated as one identifier.

    Args:
        expression: an SPDX expression. Its operators may be in lower case.
        permits: function that returns whether a license identifier is permitted.
        exceptions: permitted licenses with an exception in lower case, such as `gpl-2.0 with classpath-exception-2.0`.
            The suffix `-only` is omitted.
    """
    parsed = _parse(expression)
    return permits(expression) if parsed is None else _evaluate(parsed, permits, exceptions)


def identifiers_of(expression: str) -> list[str]:
    """Return the license identifiers of an SPDX expression, or an empty list for text that is not an expression."""
    parsed = _parse(expression)
    return [] if parsed is None else [str(key) for key in _LICENSING.license_keys(parsed)]


def _evaluate(expression: LicenseExpression, permits: Callable[[str], bool], exceptions: Collection[str]) -> bool:
    if isinstance(expression, LicenseWithExceptionSymbol):
        name = f"{expression.license_symbol.key} with {expression.exception_symbol.key}".lower()
        return name.replace("-only ", " ") in exceptions or permits(expression.license_symbol.key)
    if not expression.args:
        return permits(expression.key)
    combine = all if isinstance(expression, AND) else any
    return combine(_evaluate(argument, permits, exceptions) for argument in expression.args)


@lru_cache(maxsize=1024)
def _parse(expression: str) -> LicenseExpression | None:
    try:
        return _LICENSING.parse(expression)
    except ExpressionError:
        return None
