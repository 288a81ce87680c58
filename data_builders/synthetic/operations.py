"""The operations of the grammar, on lists of integers and on strings.

An operation is one line of Python with three English phrases. The line reads and writes the variable of its kind
(`values` or `text`), so a phrase always stands for the same line, anywhere in a function.
"""

from dataclasses import dataclass

VARIABLES = {"numbers": "values", "text": "text"}
"""Maps a kind of value to the name of the variable that holds the value."""


@dataclass(frozen=True)
class Operation:
    """One step. `line` is an expression that takes a value of kind `takes` and gives a value of kind `gives`."""

    name: str
    takes: str
    gives: str
    line: str
    phrases: tuple[str, str, str]
    """Three imperative phrases. Docstrings use the first phrase."""


_NUMBERS_TO_NUMBERS = """
keep_even | [x for x in values if x % 2 == 0] | keep the even numbers | drop every odd number | select only even values
keep_odd | [x for x in values if x % 2 == 1] | keep the odd numbers | drop every even number | select only odd values
keep_positive | [x for x in values if x > 0] | keep the positive numbers | select numbers above zero | remove all that is not positive
keep_negative | [x for x in values if x < 0] | keep the negative numbers | select numbers below zero | remove all that is not negative
keep_large | [x for x in values if x > 10] | keep numbers above ten | remove numbers up to ten | select what exceeds ten
unique | list(dict.fromkeys(values)) | drop the duplicates | remove repeated numbers | keep each number once
ascending | sorted(values) | sort in ascending order | order from small to large | arrange with the smallest first
descending | sorted(values, reverse=True) | sort in descending order | order from large to small | arrange with the largest first
reverse | values[::-1] | reverse the list | flip the order of the list | turn the list around
double | [x * 2 for x in values] | double each number | multiply each number by two | take every number twice
square | [x * x for x in values] | square each number | multiply each number by itself | raise every number to the power of two
negate | [-x for x in values] | negate each number | flip the sign of each number | multiply each number by minus one
increment | [x + 1 for x in values] | add one to each number | increment every number | make each number larger by one
decrement | [x - 1 for x in values] | subtract one from each number | decrement every number | make each number smaller by one
absolute | [abs(x) for x in values] | take absolute values | remove the sign of each number | make every number non-negative
halve | [x // 2 for x in values] | halve each number | divide each number by two | take half of every number
first_three | values[:3] | take the first three numbers | keep three numbers from the start | cut the list after three numbers
last_three | values[-3:] | take the last three numbers | keep three numbers from the end | leave only the final three numbers
drop_first | values[1:] | drop the first number | skip the leading number | remove the number at the start
drop_last | values[:-1] | drop the last number | skip the trailing number | remove the number at the end
"""

_TEXT_TO_TEXT = """
lower | text.lower() | convert to lower case | make all letters small | write it without capitals
upper | text.upper() | convert to upper case | make all letters capital | write it in capitals
title | text.title() | convert to title case | capitalize every word | start each word with a capital
swap_case | text.swapcase() | swap the case | exchange small and capital letters | invert upper and lower case
reverse_text | text[::-1] | reverse the text | flip the order of the characters | read it backwards
no_spaces | text.replace(" ", "") | remove the spaces | delete each space | leave out all blanks
underscores | text.replace(" ", "_") | replace spaces with underscores | put an underscore for each space | turn blanks into underscores
dashes | text.replace(" ", "-") | replace spaces with dashes | put a dash for each space | turn blanks into dashes
no_vowels | "".join(c for c in text if c not in "aeiou") | remove the vowels | delete each of aeiou | leave out all vowels
head | text[:3] | take the first three characters | keep three characters from the start | cut it after three characters
tail | text[-3:] | take the last three characters | keep three characters from the end | leave only the final three characters
drop_head | text[1:] | drop the first character | skip the leading character | remove the character at the start
drop_tail | text[:-1] | drop the last character | skip the trailing character | remove the character at the end
stutter | "".join(c * 2 for c in text) | double each character | write every character twice | repeat each letter once more
twice | text + text | repeat the text | join the text with itself | write the text two times
exclaim | text + "!" | append an exclamation mark | end with an exclamation mark | add ! at the end
"""


def _read(table: str, takes: str, gives: str) -> list[Operation]:
    operations = []
    for row in table.strip().splitlines():
        name, line, first, second, third = (cell.strip() for cell in row.split(" | "))
        operations.append(Operation(name, takes, gives, line, (first, second, third)))
    return operations


OPERATIONS: tuple[Operation, ...] = (
    *_read(_NUMBERS_TO_NUMBERS, "numbers", "numbers"),
    *_read(_TEXT_TO_TEXT, "text", "text"),
)
"""All operations. Their order is fixed, because a seed selects by position."""
