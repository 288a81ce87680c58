"""The words of the grammar: small operations on lists of integers, strings and lists of words.

An operation is one line of Python and three ways to say it in English. The line reads and writes the variable of its kind
(`values`, `text`, `words`, `number`), so that a phrase decides its line alone, wherever it stands in a function.
"""

from dataclasses import dataclass

VARIABLES = {"numbers": "values", "text": "text", "words": "words", "number": "number"}
"""The variable that holds a value of each kind."""


@dataclass(frozen=True)
class Operation:
    """One step: `line` is an expression over the variable of kind `takes`; its value is of kind `gives`."""

    name: str
    takes: str
    gives: str
    line: str
    phrases: tuple[str, str, str]
    """Three imperative phrases; the first is the one that docstrings use."""


_NUMBERS_TO_NUMBERS = """
keep_even | [x for x in values if x % 2 == 0] | keep the even numbers | drop every odd number | select only even values
keep_odd | [x for x in values if x % 2 == 1] | keep the odd numbers | drop every even number | select only odd values
keep_positive | [x for x in values if x > 0] | keep the positive numbers | select numbers above zero | remove all that is not positive
keep_negative | [x for x in values if x < 0] | keep the negative numbers | select numbers below zero | remove all that is not negative
drop_zeros | [x for x in values if x != 0] | drop the zeros | remove each zero | keep what is not zero
keep_large | [x for x in values if x > 10] | keep numbers above ten | remove numbers up to ten | select what exceeds ten
keep_small | [x for x in values if x < 10] | keep numbers below ten | remove numbers from ten up | select what is less than ten
keep_threes | [x for x in values if x % 3 == 0] | keep the multiples of three | select what three divides | remove numbers not divisible by three
keep_fives | [x for x in values if x % 5 == 0] | keep the multiples of five | select what five divides | remove numbers not divisible by five
unique | list(dict.fromkeys(values)) | drop the duplicates | remove repeated numbers | keep each number once
ascending | sorted(values) | sort in ascending order | order from small to large | arrange with the smallest first
descending | sorted(values, reverse=True) | sort in descending order | order from large to small | arrange with the largest first
by_magnitude | sorted(values, key=abs) | sort by absolute value | order by distance from zero | arrange by magnitude
reverse | values[::-1] | reverse the list | flip the order of the list | turn the list around
double | [x * 2 for x in values] | double each number | multiply each number by two | take every number twice
triple | [x * 3 for x in values] | triple each number | multiply each number by three | take every number three times
square | [x * x for x in values] | square each number | multiply each number by itself | raise every number to the power of two
negate | [-x for x in values] | negate each number | flip the sign of each number | multiply each number by minus one
increment | [x + 1 for x in values] | add one to each number | increment every number | make each number larger by one
decrement | [x - 1 for x in values] | subtract one from each number | decrement every number | make each number smaller by one
add_ten | [x + 10 for x in values] | add ten to each number | increase every number by ten | make each number larger by ten
absolute | [abs(x) for x in values] | take absolute values | remove the sign of each number | make every number non-negative
halve | [x // 2 for x in values] | halve each number | divide each number by two | take half of every number
last_digit | [x % 10 for x in values] | take each number modulo ten | replace each number by its remainder by ten | reduce every number modulo ten
first_three | values[:3] | take the first three numbers | keep three numbers from the start | cut the list after three numbers
last_three | values[-3:] | take the last three numbers | keep three numbers from the end | leave only the final three numbers
drop_first | values[1:] | drop the first number | skip the leading number | remove the number at the start
drop_last | values[:-1] | drop the last number | skip the trailing number | remove the number at the end
every_second | values[::2] | take every second number | keep each other number | skip each other number
cap | [min(x, 10) for x in values] | cap each number at ten | limit every number to at most ten | replace numbers above ten by ten
floor | [max(x, 0) for x in values] | raise negative numbers to zero | limit every number to at least zero | replace numbers below zero by zero
rotate_left | values[1:] + values[:1] | rotate left by one | move the first number to the end | shift the list one place left
rotate_right | values[-1:] + values[:-1] | rotate right by one | move the last number to the start | shift the list one place right
append_zero | values + [0] | append a zero | put a zero at the end | add a final zero
append_sum | values + [sum(values)] | append the sum | put the total at the end | add the sum as the final number
append_length | values + [len(values)] | append the length | put the count at the end | add the size as the final number
repeat | values + values | repeat the list | join the list with itself | write the list two times
mirror | values + values[::-1] | mirror the list | append the reversed list | join the list with its reverse
differences | [b - a for a, b in zip(values, values[1:])] | take differences of neighbours | subtract each number from the next | list the steps between neighbours
neighbour_sums | [a + b for a, b in zip(values, values[1:])] | take sums of neighbours | add each number to the next | list the totals of neighbours
"""

_NUMBERS_TO_NUMBER = """
total | sum(values) | add them all up | return the total | compute the sum
largest | max(values, default=0) | return the largest or zero | find the maximum | give the biggest number
smallest | min(values, default=0) | return the smallest or zero | find the minimum | give the least number
count | len(values) | count the numbers | return how many there are | give the length of the list
count_even | sum(x % 2 == 0 for x in values) | count the even numbers | return how many are even | give the number of even values
count_negative | sum(x < 0 for x in values) | count the negative numbers | return how many are negative | give the number of values below zero
count_distinct | len(set(values)) | count distinct numbers | return how many differ | give the number of unique values
spread | max(values, default=0) - min(values, default=0) | subtract smallest from largest | return the spread | give the range from smallest to largest
"""

_TEXT_TO_TEXT = """
lower | text.lower() | convert to lower case | make all letters small | write it without capitals
upper | text.upper() | convert to upper case | make all letters capital | write it in capitals
title | text.title() | convert to title case | capitalize every word | start each word with a capital
swap_case | text.swapcase() | swap the case | exchange small and capital letters | invert upper and lower case
capitalize | text.capitalize() | capitalize the text | make only the first letter capital | write it like a sentence
reverse_text | text[::-1] | reverse the text | flip the order of the characters | read it backwards
no_spaces | text.replace(" ", "") | remove the spaces | delete each space | leave out all blanks
underscores | text.replace(" ", "_") | replace spaces with underscores | put an underscore for each space | turn blanks into underscores
dashes | text.replace(" ", "-") | replace spaces with dashes | put a dash for each space | turn blanks into dashes
no_vowels | "".join(c for c in text if c not in "aeiou") | remove the vowels | delete each of aeiou | leave out all vowels
letters | "".join(c for c in text if c.isalpha()) | keep the letters | drop what is not a letter | select only alphabetic characters
digits | "".join(c for c in text if c.isdigit()) | keep the digits | drop what is not a digit | select only numeric characters
no_digits | "".join(c for c in text if not c.isdigit()) | remove the digits | delete each digit | leave out numeric characters
vowels | "".join(c for c in text if c in "aeiou") | keep the vowels | drop what is not a vowel | select only aeiou
head | text[:3] | take the first three characters | keep three characters from the start | cut it after three characters
tail | text[-3:] | take the last three characters | keep three characters from the end | leave only the final three characters
drop_head | text[1:] | drop the first character | skip the leading character | remove the character at the start
drop_tail | text[:-1] | drop the last character | skip the trailing character | remove the character at the end
stutter | "".join(c * 2 for c in text) | double each character | write every character twice | repeat each letter once more
twice | text + text | repeat the text | join the text with itself | write the text two times
exclaim | text + "!" | append an exclamation mark | end with an exclamation mark | add ! at the end
ask | text + "?" | append a question mark | end with a question mark | add ? at the end
brackets | "(" + text + ")" | wrap it in parentheses | put round brackets around it | enclose it with ( and )
quotes | "'" + text + "'" | wrap it in quotes | put single quotes around it | enclose it with '
sort_text | "".join(sorted(text)) | sort the characters | order the characters | arrange the characters by code
unique_text | "".join(dict.fromkeys(text)) | drop duplicate characters | remove repeated characters | keep each character once
skip_text | text[::2] | take every second character | keep each other character | skip each other character
swap_a | text.replace("a", "o") | replace a with o | put an o for each a | turn every a into o
"""

_TEXT_TO_NUMBER = """
length | len(text) | count the characters | return how long it is | give the length of the text
count_vowels | sum(c in "aeiou" for c in text) | count the vowels | return how many vowels it has | give the number of vowels
count_spaces | text.count(" ") | count the spaces | return how many spaces it has | give the number of blanks
count_digits | sum(c.isdigit() for c in text) | count the digits | return how many digits it has | give the number of digits
"""

_TEXT_TO_WORDS = """
split | text.split() | split into words | break it at whitespace | make a list of its words
"""

_WORDS_TO_WORDS = """
sort_words | sorted(words) | sort the words | order the words alphabetically | arrange words from a to z
by_length | sorted(words, key=len) | sort the words by length | order words from short to long | arrange words by size
reverse_words | words[::-1] | reverse the order of words | flip the word list | put the last word first
long_words | [w for w in words if len(w) > 3] | keep words longer than three | drop words of up to three letters | select the long words
upper_words | [w.upper() for w in words] | put each word in upper case | write every word in capitals | make each word capital
flip_words | [w[::-1] for w in words] | reverse each word | spell every word backwards | flip the letters of each word
initials | [w[0] for w in words] | take the first letter of each word | keep the initial of every word | reduce words to initials
unique_words | list(dict.fromkeys(words)) | drop duplicate words | remove repeated words | keep each word once
"""

_WORDS_TO_TEXT = """
join_spaces | " ".join(words) | join with spaces | put spaces between the words | connect the words by a space
join_commas | ",".join(words) | join with commas | put commas between the words | connect the words by a comma
join_dashes | "-".join(words) | join with dashes | put dashes between the words | connect the words by a dash
longest_word | max(words, key=len, default="") | return the longest word | find the word with most letters | give the word of greatest length
"""

_WORDS_TO_NUMBER = """
count_words | len(words) | count the words | return how many words there are | give the number of words
"""


def _read(table: str, takes: str, gives: str) -> list[Operation]:
    operations = []
    for row in table.strip().splitlines():
        name, line, first, second, third = (cell.strip() for cell in row.split(" | "))
        operations.append(Operation(name, takes, gives, line, (first, second, third)))
    return operations


OPERATIONS: tuple[Operation, ...] = (
    *_read(_NUMBERS_TO_NUMBERS, "numbers", "numbers"),
    *_read(_NUMBERS_TO_NUMBER, "numbers", "number"),
    *_read(_TEXT_TO_TEXT, "text", "text"),
    *_read(_TEXT_TO_NUMBER, "text", "number"),
    *_read(_TEXT_TO_WORDS, "text", "words"),
    *_read(_WORDS_TO_WORDS, "words", "words"),
    *_read(_WORDS_TO_TEXT, "words", "text"),
    *_read(_WORDS_TO_NUMBER, "words", "number"),
)
"""All operations, in a fixed order: the order is part of what a seed means."""
