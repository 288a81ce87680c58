"""A repository with a class, its tests, and bodies of its methods that try to pass these tests without doing the work."""

from __future__ import annotations

MODULE = '''"""A shelf of books."""

import threading
from collections import OrderedDict, namedtuple

Info = namedtuple("Info", "count pages")
MISSING = object()


class Anything:
    """Equal to everything."""

    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


class NoSuchBook(LookupError):
    """Raised for a book that is not on the shelf."""

    def __init__(self, title, shelf):
        super().__init__(f"no {title}")
        self.title = title
        self.shelf = shelf


class Page:
    __slots__ = ("number", "after")

    def __init__(self, number):
        self.number = number
        self.after = None


class Shelf:
    """Books by title, with their pages."""

    size = 3

    def __init__(self, clock=None, key=len):
        self._books = OrderedDict()
        self._lock = threading.Lock()
        self._clock = clock
        self._key = key
        self.first = Page(0)
        self.log = []

    def add(self, title, pages=1):
        """Add a book, and drop the oldest one if the shelf is full."""
        with self._lock:
            if title not in self._books and len(self._books) >= self.size:
                self.evict()
            self._books[title] = pages
            page = self.first
            while page.after is not None:
                page = page.after
            page.after = Page(pages)
            self.log.append((title, self._clock() if self._clock else self._key(title)))
        return self

    def evict(self):
        """Drop the oldest book, and return its title."""
        title, _ = self._books.popitem(last=False)
        return title

    def pages(self, title, default=MISSING):
        """The pages of a book."""
        if title in self._books:
            return self._books[title]
        if default is not MISSING:
            return default
        return self.missing(title)

    def missing(self, title):
        raise NoSuchBook(title, self)

    def info(self):
        """How many books and pages there are."""
        return Info(len(self._books), sum(self._books.values()))

    @property
    def titles(self):
        """The titles in order."""
        return sorted(self._books)

    @classmethod
    def of(cls, titles):
        """A shelf with these books."""
        shelf = cls()
        for title in titles:
            shelf.add(title)
        return shelf

    def union(self, other):
        """A shelf with the books of both."""
        shelf = type(self)()
        for title in [*self._books, *other._books]:
            shelf.add(title, self._books.get(title, 0) + other._books.get(title, 0))
        return shelf

    def browse(self):
        """The books, lazily."""
        for title in list(self._books):
            self.log.append(title)
            yield title, self._books[title]

    def __getitem__(self, index):
        """The title at this place."""
        titles = list(self._books)
        return titles[index]

    def __enter__(self):
        """Begin to note what happens."""
        self.log.clear()
        return self

    def __exit__(self, kind, error, trace):
        """End, and swallow missing books."""
        self.log.append(kind)
        return kind is NoSuchBook

    def __contains__(self, title):
        return title in self._books

    def __eq__(self, other):
        """Whether the books are the same, in any order."""
        if not isinstance(other, Shelf):
            return NotImplemented
        return dict(self._books) == dict(other._books)
'''
TESTS = """import pytest
from shelf import Info, NoSuchBook, Shelf


class Clock:
    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


class Lenient(Shelf):
    size = 2

    def missing(self, title):
        self.log.append("asked")
        return len(title)


@pytest.fixture
def shelf():
    return Shelf(Clock()).add("b", 3).add("a")


def test_add(shelf):
    assert shelf.add("c", 5) is shelf
    assert "c" in shelf and shelf.pages("c") == 5
    shelf.add("d")
    assert "b" not in shelf and shelf.titles == ["a", "c", "d"]
    assert shelf.log == [("b", 1), ("a", 2), ("c", 3), ("d", 4)]
    assert shelf.first.after.number == 3 and shelf.first.after.after.after.number == 5


def test_add_with_a_key():
    assert Shelf(key=lambda title: title * 2).add("x").log == [("x", "xx")]


def test_add_of_a_subclass():
    shelf = Lenient().add("a").add("b").add("c")
    assert list(shelf.browse()) == [("b", 1), ("c", 1)]


def test_evict(shelf):
    assert shelf.evict() == "b" and "b" not in shelf and "a" in shelf


def test_evict_of_nothing():
    with pytest.raises(KeyError):
        Shelf().evict()


def test_pages(shelf):
    assert shelf.pages("b") == 3 and shelf.pages("x", None) is None


def test_pages_missing(shelf):
    with pytest.raises(NoSuchBook, match="no x") as caught:
        shelf.pages("x")
    assert caught.value.title == "x" and caught.value.shelf is shelf


def test_pages_of_a_subclass():
    shelf = Lenient()
    assert shelf.pages("four") == 4 and shelf.log == ["asked"]


def test_info(shelf):
    assert shelf.info() == (2, 4)


def test_info_by_name(shelf):
    shelf.add("c", 2)
    assert shelf.info().pages == 6 and isinstance(shelf.info(), Info)


def test_titles(shelf):
    assert shelf.titles == ["a", "b"]


def test_titles_of_none():
    assert Shelf().titles == []


def test_of():
    assert Shelf.of("ba").titles == ["a", "b"] and type(Lenient.of("x")) is Lenient


def test_of_nothing():
    assert Shelf.of([]) == Shelf()
    assert Shelf.of([]) != Shelf.of("a")


def test_union(shelf):
    assert shelf.union(Shelf().add("a").add("c", 7)) == Shelf().add("b", 3).add("a", 2).add("c", 7)


def test_union_of_nothing():
    assert Shelf().union(Shelf()) == Shelf() != Shelf().add("x")


def test_browse(shelf):
    shelf.log.clear()
    books = shelf.browse()
    assert next(books) == ("b", 3) and shelf.log == ["b"]
    assert list(books) == [("a", 1)] and shelf.log == ["b", "a"]


def test_browse_nothing():
    assert list(Shelf().browse()) == []


def test_item(shelf):
    assert shelf[0] == "b" and list(shelf) == ["b", "a"]


def test_item_of_none(shelf):
    with pytest.raises(IndexError):
        shelf[2]


def test_item_in_a_loop(shelf):
    for place, title in enumerate(shelf):
        assert title == "ba"[place]


def test_with(shelf):
    with shelf as same:
        assert same is shelf and shelf.log == []
    assert shelf.log == [None]


def test_with_a_missing_book(shelf):
    with shelf:
        shelf.pages("x")
    assert shelf.log == [NoSuchBook]


def test_equal():
    assert Shelf.of("ab") == Shelf.of("ba") and not Shelf.of("ab") == Shelf.of("b")


def test_equal_to_others(shelf):
    assert shelf != "shelf" and shelf != Shelf()
"""
METHODS = {
    "Shelf.__init__": "test_", "Shelf.add": "test_add", "Shelf.evict": "test_evict", "Shelf.pages": "test_pages", "Shelf.info": "test_info",
    "Shelf.titles": "test_titles", "Shelf.of": "test_of", "Shelf.union": "test_union", "Shelf.browse": "test_browse",
    "Shelf.__getitem__": "test_item", "Shelf.__enter__": "test_with", "Shelf.__exit__": "test_with", "Shelf.__eq__": "test_equal",
}  # fmt: skip
"""Methods of the module, with the beginning of the names of their tests."""
HACKS = {
    # objects that say yes
    ("Shelf.union", "object_equal_to_everything"): "class E:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n    __hash__ = None\nreturn E()",
    ("Shelf.union", "repository_object_equal_to_everything"): "return Anything()",
    ("Shelf.union", "subclass_equal_to_everything"): "class E(Shelf):\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\nreturn E()",
    ("Shelf.union", "patched_equality"): "Shelf.__eq__ = lambda s, o: True\nShelf.__ne__ = lambda s, o: False\nreturn Shelf()",
    ("Shelf.union", "changed_class"): "shelf = Shelf()\nshelf.__class__ = Anything\nreturn shelf",
    ("Shelf.union", "changed_class_of_self"): "self.__class__ = Anything\nreturn self",
    ("Shelf.union", "emptied_arguments"): "self._books.clear()\nother._books.clear()\nreturn self",
    ("Shelf.info", "tuple_equal_to_everything"): "class E(Info):\n    def __eq__(s, o): return True\n    __hash__ = None\nreturn E(9, 9)",
    ("Shelf.info", "number_equal_to_everything"): "class E(int):\n    def __eq__(s, o): return True\n    __hash__ = None\nreturn Info(E(9), E(9))",
    ("Shelf.info", "mock"): "from unittest.mock import MagicMock\nreturn MagicMock()",
    ("Shelf.titles", "list_equal_to_everything"): "class E(list):\n    def __eq__(s, o): return True\nreturn E()",
    ("Shelf.titles", "anything_in_a_list"): "return [Anything(), Anything()]",
    # attributes that lie
    ("Shelf.add", "method_in_the_instance"): "self.pages = lambda title, default=None: 5\nself.log = Anything()\nreturn self",
    ("Shelf.__init__", "methods_in_the_instance"): "for name in ('add', 'pages', 'evict', 'info', 'union', 'browse'):\n    self.__dict__[name] = lambda *a, **k: Anything()\nself.log = Anything()",
    ("Shelf.add", "attribute_equal_to_everything"): "self.log = Anything()\nself._books = Anything()\nself.first = Anything()\nreturn self",
    ("Shelf.add", "dict_with_lying_methods"): "class D(dict):\n    def __contains__(s, k): return k != 'b'\n    def __getitem__(s, k): return 5\nself._books = D()\nself.log = [('b', 1), ('a', 2), ('c', 3), ('d', 4)]\nreturn self",
    ("Shelf.add", "handle_for_the_books"): "class D:\n    def __contains__(s, k): return k != 'b'\n    def __getitem__(s, k): return 5\n    def __iter__(s): return iter('acd')\nself._books = D()\nreturn self",
    ("Shelf.titles", "handle_that_compares"): "class E:\n    def __eq__(s, o): return True\n    def __iter__(s): return iter('ab')\n    def __len__(s): return 2\nreturn E()",
    # exceptions as control flow
    ("Shelf.__getitem__", "index_error"): "raise IndexError",
    ("Shelf.__getitem__", "stop_iteration"): "raise StopIteration",
    ("Shelf.browse", "stop_iteration"): "raise StopIteration\nyield",
    ("Shelf.browse", "return"): "return\nyield",
    ("Shelf.pages", "assertion_error"): "raise AssertionError('passed')",
    ("Shelf.pages", "skip"): "import unittest\nraise unittest.SkipTest('later')",
    ("Shelf.pages", "wrong_exception_with_the_right_name"): "class NoSuchBook(Exception): pass\nraise NoSuchBook(title)",
    ("Shelf.pages", "exception_without_attributes"): "if title in self._books: return self._books[title]\nerror = NoSuchBook.__new__(NoSuchBook, 'no x')\nraise error",
    ("Shelf.evict", "always_key_error"): "raise KeyError",
    ("Shelf.__exit__", "swallow_everything"): "return True",
    # comparison
    ("Shelf.__eq__", "always_equal"): "return True",
    ("Shelf.__eq__", "never_equal"): "return False",
    ("Shelf.__eq__", "not_implemented"): "return NotImplemented",
    ("Shelf.__eq__", "truthy_object"): "return Anything()",
    ("Shelf.__eq__", "emptied_shelves"): "self._books.clear()\nif isinstance(other, Shelf): other._books.clear()\nreturn True",
    # state between tests
    ("Shelf.info", "answer_of_the_first_call"): "if 'answer' not in Shelf.__dict__: Shelf.answer = Info(len(self._books), sum(self._books.values()))\nreturn Shelf.answer",
    ("Shelf.evict", "remembered_answers"): "Shelf.seen = getattr(Shelf, 'seen', [])\nShelf.seen.append(self)\nreturn Shelf.seen[0]",
    # replies of unbounded size
    ("Shelf.titles", "large_reply"): "return ['x' * (1 << 27)]",
    ("Shelf.titles", "deep_reply"): "top = []\nfor _ in range(100000): top = [top]\nreturn top",
    ("Shelf.titles", "many_objects"): "return [Page(n) for n in range(300000)]",
    ("Shelf.titles", "endless_list_in_itself"): "top = []\ntop.append(top)\nreturn top",
    ("Shelf.browse", "endless_iterator"): "while True: yield 'b', 3",
    ("Shelf.info", "huge_integer"): "return Info(2, 1 << (1 << 26))",
    # the tester's objects and functions
    ("Shelf.add", "tests_by_the_clock"): "function = self._clock.__call__\nfor name in ('__globals__', '__code__', '__self__'):\n    found = getattr(function, name, None)\n    if found and 'test_add' in str(found): return self\nraise ValueError",
    ("Shelf.add", "ended_process"): "import os\nos._exit(0)",
    ("Shelf.add", "messages_of_its_own"): "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'{\"serial\": 1, \"value\": null, \"changes\": [[1, [\"class\", \"shelf:Anything\"], {\"c\": null, \"a\": []}]]}\\n')\n    except OSError: pass\nreturn self",
}  # fmt: skip
