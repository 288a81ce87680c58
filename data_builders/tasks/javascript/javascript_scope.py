"""Names that JavaScript and TypeScript code uses, and the declarations in the module that define the names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment.grading.node_syntax import CLASSES, FUNCTIONS, METHOD, Tree
from alignment.grading.source_tree import descend

_GLOBALS = """
AggregateError Array ArrayBuffer Atomics BigInt BigInt64Array BigUint64Array Boolean DataView Date Error EvalError
FinalizationRegistry Float32Array Float64Array Function Infinity Int16Array Int32Array Int8Array Intl Iterator JSON Map
Math NaN Number Object Promise Proxy RangeError ReferenceError Reflect RegExp Set SharedArrayBuffer String Symbol
SyntaxError TypeError URIError Uint16Array Uint32Array Uint8Array Uint8ClampedArray WeakMap WeakRef WeakSet
decodeURI decodeURIComponent encodeURI encodeURIComponent escape eval globalThis isFinite isNaN parseFloat parseInt
undefined unescape arguments
AbortController AbortSignal Blob BroadcastChannel Buffer ByteLengthQueuingStrategy CompressionStream
CountQueuingStrategy Crypto CryptoKey CustomEvent DOMException DecompressionStream Event EventTarget File FormData
Headers MessageChannel MessageEvent MessagePort Navigator Performance ReadableStream Request Response SubtleCrypto
TextDecoder TextDecoderStream TextEncoder TextEncoderStream TransformStream URL URLSearchParams WebAssembly WebSocket
WritableStream __dirname __filename atob btoa clearImmediate clearInterval clearTimeout console crypto exports fetch
global module navigator performance process queueMicrotask require setImmediate setInterval setTimeout
structuredClone
window self document define location localStorage sessionStorage HTMLElement Element Node XMLHttpRequest
requestAnimationFrame cancelAnimationFrame getComputedStyle Deno Bun
"""
KNOWN_GLOBALS = frozenset(_GLOBALS.split())
"""Names that need no declaration: those of the language, of node, and of browsers."""
DECLARATIONS = (
    "lexical_declaration", "variable_declaration", "function_declaration", "generator_function_declaration", "import_statement",
    "interface_declaration", "type_alias_declaration", "enum_declaration", "internal_module", *CLASSES,
)  # fmt: skip
NAMES = ("identifier", "shorthand_property_identifier", "type_identifier")


@dataclass(frozen=True)
class JsDeclaration:
    """A declaration of a name."""

    name: str
    node: Any
    """The node of the whole declaration, without `export`."""
    part: Any
    """The declarator of the name in a declaration of variables, otherwise the same as `node`."""


def function_at(tree: Tree, start: int) -> Any | None:
    """Return the function whose body begins (after the brace) at an offset in characters, or None."""
    for node in descend(tree.root):
        if node.type in FUNCTIONS:
            body = node.child_by_field_name("body")
            if body is not None and tree.character(body.start_byte) + 1 == start:
                return node
    return None


def used_names(tree: Tree, node: Any) -> set[str]:
    """Return the names of variables and types that code uses and does not declare."""
    names = {tree.text(item) for item in descend(node) if item.type in NAMES and not _is_tag(tree, item)}
    return names - declared_names(tree, node)


def _is_tag(tree: Tree, node: Any) -> bool:
    """Whether an identifier is the name of an HTML element in JSX."""
    return bool(node.parent is not None and node.parent.type.startswith("jsx_") and tree.text(node)[:1].islower())


def declared_names(tree: Tree, node: Any) -> set[str]:
    """Return the names that code declares: variables, parameters, functions and classes, at any depth."""
    names: set[str] = set()
    for item in descend(node):
        if item.type == "variable_declarator" or item.type in CLASSES or item.type in FUNCTIONS:
            parts = [item.child_by_field_name("name")] if item.type != METHOD else []
            parts += [item.child_by_field_name("parameters"), item.child_by_field_name("parameter")]
        elif item.type in ("catch_clause", "for_in_statement"):
            parts = [item.child_by_field_name("parameter"), item.child_by_field_name("left")]
        elif item.type == "import_statement":
            parts = [child for child in item.children if child.type == "import_clause"]
        else:
            continue
        for part in parts:
            if part is not None:
                names |= _pattern_names(tree, part)
    return names


def _pattern_names(tree: Tree, pattern: Any) -> set[str]:
    """Return the names in a pattern, a list of parameters, or an import clause, without default values and types."""
    names: set[str] = set()
    waiting = [pattern]
    while waiting:
        item = waiting.pop()
        if item.type in ("identifier", "shorthand_property_identifier_pattern", "type_identifier"):
            names.add(tree.text(item))
        elif item.type in ("assignment_pattern", "object_assignment_pattern"):
            waiting.append(item.child_by_field_name("left"))
        elif item.type == "pair_pattern":
            waiting.append(item.child_by_field_name("value"))
        elif item.type in ("required_parameter", "optional_parameter"):
            waiting.append(item.child_by_field_name("pattern"))
        elif item.type == "import_specifier":
            waiting.append(item.child_by_field_name("alias") or item.child_by_field_name("name"))
        elif item.type not in ("type_annotation", "property_identifier", "string"):
            waiting += item.named_children
    return names


def declarations_around(tree: Tree, node: Any) -> dict[str, JsDeclaration]:
    """Return the declarations that are in scope around a node, keyed by name. Inner declarations hide outer ones."""
    known: dict[str, JsDeclaration] = {}
    outer = node.parent
    while outer is not None:
        if outer.type in ("program", "statement_block"):
            for child in outer.children:
                for declaration in _declared(tree, child):
                    known.setdefault(declaration.name, declaration)
        elif outer.type in FUNCTIONS:  # the wrapper of a module
            for field in ("parameters", "parameter"):
                if (part := outer.child_by_field_name(field)) is not None:
                    for name in _pattern_names(tree, part):
                        known.setdefault(name, JsDeclaration(name, part, part))
        outer = outer.parent
    return known


def _declared(tree: Tree, statement: Any) -> Iterator[JsDeclaration]:
    if statement.type == "export_statement":
        inner = statement.child_by_field_name("declaration")
        if inner is None:
            return
        statement = inner
    if statement.type not in DECLARATIONS:
        return
    if statement.type in ("lexical_declaration", "variable_declaration"):
        for part in statement.named_children:
            if part.type == "variable_declarator":
                for name in _pattern_names(tree, part.child_by_field_name("name")):
                    yield JsDeclaration(name, statement, part)
    elif statement.type == "import_statement":
        for name in declared_names(tree, statement):
            yield JsDeclaration(name, statement, statement)
    else:
        name_node = statement.child_by_field_name("name")
        if name_node is not None:
            yield JsDeclaration(tree.text(name_node), statement, statement)


def member_uses(tree: Tree, node: Any, of: str) -> set[str]:
    """Return the names of the members of an object (for example `this`) that code uses."""
    return {
        tree.text(item.child_by_field_name("property"))
        for item in descend(node)
        if item.type == "member_expression" and tree.text(item.child_by_field_name("object")) == of
    }
