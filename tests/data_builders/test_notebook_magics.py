"""Cells of IPython as plain Python."""

from __future__ import annotations

import ast

import pytest

from data_builders.parsing.notebook_magics import plain_python


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        ("%%timeit -n 3\nwork(3)", "# %%timeit -n 3\nwork(3)"),
        ("%%prun\nx = 1\n%matplotlib inline", "# %%prun\nx = 1\n# %matplotlib inline"),
        ("\n%%capture\nimport shop", "\n# %%capture\nimport shop"),
        ("%%time", "# %%time"),
        ("%%writefile shop.py\nx = 1", "# %%writefile shop.py\n# x = 1"),
        ("%%sql\nSELECT 1", "# %%sql\n# SELECT 1"),
        ("%%ownmagic\nx = 1", "# %%ownmagic\nx = 1"),
        ("%%ownmagic\nnot python at all", "# %%ownmagic\n# not python at all"),
        ("%timeit -n 10 -r 3 work(3)", "work(3)"),
        ("%prun -s cumtime work(size)", "work(size)"),
        ("%lprun -f work work(3)", "work(3)"),
        ("%time", "# %time"),
        ("%matplotlib inline", "# %matplotlib inline"),
        ("% matplotlib inline", "# % matplotlib inline"),
        ("if fast:\n    %load_ext shop\nx = 1", "if fast:\n    pass  # %load_ext shop\nx = 1"),
        ("with a:\n    !ls\n", "with a:\n    pass  # !ls\n"),
        ("!pip install a \\\n    b\nx = 1", "# !pip install a \\\n#     b\nx = 1"),
        ("files = !ls *.csv", "files = None  # !ls *.csv"),
        ("a, b = %sql SELECT 1", "a, b = None  # %sql SELECT 1"),
        ("pip install shop", "# pip install shop"),
        ("?shop.load", "# ?shop.load"),
        ("shop.load??", "# shop.load??"),
        ("%time?", "# %time?"),
        ("rows[0]?", "# rows[0]?"),
        ("*load*?", "# *load*?"),
    ],
)
def test_special_lines_become_comments_or_their_statement(cell: str, plain: str) -> None:
    assert plain_python(cell) == plain
    ast.parse(plain)


@pytest.mark.parametrize(
    "cell",
    [
        'text = """\n%(name)s wrote:\n!important\nwhat?\n"""', "text = '''\n%%time\n'''", "share = (amount\n    %base)",
        "share = amount \\\n    %base", "x = [\n    a\n    %b,\n]", 'print("%d" % x)\nx = "a" if b != c else "what?"',
        "x = 'it\\'s (' # [\nassert x != 3", "def f(\n    a,\n):\n    return a % 2", "x = f'{a!r}'", "x %= 3",
        'x = r"""\\d"""\nprint(x)', "d = {'a': '''\n!ls\n'''}", "# %matplotlib inline\nx = 1",
    ],
)  # fmt: skip
def test_python_stays_as_it_is(cell: str) -> None:
    assert plain_python(cell) == cell
    ast.parse(cell)
