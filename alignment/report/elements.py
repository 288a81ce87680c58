"""Trees of HTML and SVG elements, from which the static report and the live page are made.

    element("td", rung["stage"], class_="number")

The static report contains a tree as markup, in which all text is escaped. The live page receives the tree as JSON and
builds the same elements with `document.createElement` and text nodes, so text from files is never parsed as HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

_SVG_LEAVES = frozenset({"line", "rect", "circle", "polyline", "path"})
_HTML_LEAVES = frozenset({"br", "hr"})


@dataclass(frozen=True)
class Element:
    """An element with attributes and children. Children are elements or text."""

    tag: str
    attributes: dict[str, str]
    children: tuple[Element | str, ...]

    def __str__(self) -> str:
        """Return the markup, with all text and all attribute values escaped."""
        return "".join(self._parts())

    def __html__(self) -> str:
        """Return the markup. Templates with automatic escaping call this method."""
        return str(self)

    def markup(self) -> Markup:
        """Return the element as a string that templates do not escape again."""
        return Markup(str(self))

    def as_json(self) -> list[Any]:
        """Return `[tag, attributes, child, ...]`, in which a child is such a list or a text."""
        children = [child if isinstance(child, str) else child.as_json() for child in self.children]
        return [self.tag, self.attributes, *children]

    def _parts(self) -> Iterator[str]:
        yield f"<{self.tag}" + "".join(f' {name}="{escape(value)}"' for name, value in self.attributes.items())
        if self.tag in _SVG_LEAVES:
            yield "/>"
            return
        yield ">"
        for child in self.children:
            if isinstance(child, str):
                yield str(escape(child))
            else:
                yield from child._parts()
        if self.tag not in _HTML_LEAVES:
            yield f"</{self.tag}>"


def element(tag: str, *children: Element | str | None, **attributes: object) -> Element:
    """Return an element.

    Args:
        tag: name of the element.
        children: elements and texts. None is left out.
        attributes: attributes. A final underscore is removed from a name (`class_`), and other underscores become
            hyphens (`aria_label`). An attribute with the value None or False is left out; True gives an empty value.
    """
    named = {
        name.rstrip("_").replace("_", "-"): "" if value is True else str(value)
        for name, value in attributes.items()
        if value is not None and value is not False
    }
    return Element(tag, named, tuple(child for child in children if child is not None))


def svg(width: float, height: float, label: str, *children: Element | str | None) -> Element:
    """Return a picture of the given size. `label` is what a screen reader says about the picture."""
    return Element(
        "svg",
        {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label},
        tuple(child for child in children if child is not None),
    )
