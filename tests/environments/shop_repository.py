"""Files and tests of a small repository with a bug: a discount is added, not taken off."""

PRICES = '''"""Prices of a shop."""

from shop.money import rounded


def total(prices, discount=0):
    """Sum of prices, less a discount in percent."""
    return rounded(sum(prices) + discount)


def cheapest(prices):
    return min(prices)
'''
MONEY = """def rounded(value):
    return round(value, 2)
"""
TESTS = """import pytest
from shop.prices import cheapest, total


def test_without_discount():
    assert total([1, 2]) == 3


def test_half():
    assert total([1, 2], 50) == 1.5


class TestMany:
    @pytest.mark.parametrize("discount", [10, 20])
    def test_discount(self, discount):
        assert total([100], discount) == 100 - discount

    def test_free(self):
        assert total([7, 8], 100) == 0


def test_cheapest():
    assert cheapest([3, 1]) == 1
"""
FILE = "tests/test_prices.py"
VISIBLE = [f"{FILE}::test_without_discount", f"{FILE}::test_half"]
HIDDEN = [f"{FILE}::TestMany::test_discount[10]", f"{FILE}::TestMany::test_discount[20]",
          f"{FILE}::TestMany::test_free", f"{FILE}::test_cheapest"]  # fmt: skip
WRONG, RIGHT = "sum(prices) + discount", "sum(prices) * (100 - discount) / 100"
