"""Read the license of a repository from package manifests (`pyproject.toml`, `package.json`, ...) and from READMEs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from data_builders.cleaning.license_expressions import identifiers_of
from data_builders.cleaning.license_texts import UNKNOWN, named_license

MANIFESTS = ("pyproject.toml", "package.json", "Cargo.toml", "composer.json", "setup.cfg", "pom.xml")
_README = re.compile(r"readme(?:\.(?:md|rst|txt))?", re.IGNORECASE)
_SECTION = re.compile(
    r"^(?:#{1,6}[ \t]*licen[sc]e[^\n]*|licen[sc]e[ \t]*\n[-=~^]{3,})\n(.*?)(?=^#|\n[-=~^]{3,}\n|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_OWN = re.compile(r"unlicensed|proprietary|all rights reserved|private|see license", re.IGNORECASE)


def is_manifest(path: str) -> bool:
    """Whether a path is a manifest or a README in the top-level folder, which can name a license."""
    return path in MANIFESTS or bool(_README.fullmatch(path))


def license_of_manifests(texts: Mapping[str, str]) -> str:
    """Return the SPDX expression that manifests name, or "" if no manifest names a license.

    The README is read only if no manifest names a license.

    Args:
        texts: texts of the manifests and READMEs by path.
    """
    names = [name for path in sorted(texts) if path in MANIFESTS for name in _names(path, texts[path])]
    expressions = sorted({_expression(name) for name in names if not _OWN.search(name)} - {""})
    if expressions:
        return " AND ".join(f"({part})" if " " in part and len(expressions) > 1 else part for part in expressions)
    for path in sorted(texts):
        if _README.fullmatch(path) and (section := _SECTION.search(texts[path])):
            expression = named_license(section.group(1)[:2000])
            return "" if expression == UNKNOWN else expression
    return ""


def _expression(name: str) -> str:
    """Convert the value of a license field to an SPDX expression.

    The value is an SPDX expression, or the name of a license.
    """
    named = named_license(name)
    if identifiers_of(name) and (re.search(r"\d\.\d|-", name) or " " not in name):
        return name.strip()
    return named


def _names(path: str, text: str) -> list[str]:
    """Return the names of licenses in a manifest. A manifest that does not parse names no license."""
    try:
        if path.endswith(".toml"):
            return _from_toml(tomllib.loads(text))
        if path.endswith(".json"):
            return _from_json(json.loads(text))
    except ValueError:
        return []
    if path == "pom.xml":
        return re.findall(r"<license>\s*<name>([^<]{2,200})</name>", text)
    return [*re.findall(r"^license[ \t]*=[ \t]*([^\n]{2,200})$", text, re.MULTILINE), *_classifiers(text)]


def _from_toml(manifest: dict[str, Any]) -> list[str]:
    tables = [manifest.get("project"), manifest.get("package"), _table(manifest.get("tool")).get("poetry")]
    names: list[str] = []
    for table in map(_table, tables):
        value = table.get("license")
        if isinstance(value, dict):
            value = value.get("text")
        listed = table.get("classifiers")
        if isinstance(value, str):
            names.append(value[:200])
        elif isinstance(listed, list):
            names += _classifiers("\n".join(map(str, listed)))
    return names


def _from_json(manifest: Any) -> list[str]:
    value = _table(manifest).get("license", _table(manifest).get("licenses"))
    values = value if isinstance(value, list) else [value]
    names = [item.get("type") if isinstance(item, dict) else item for item in values]
    return [name[:200] for name in names if isinstance(name, str)]


def _classifiers(text: str) -> list[str]:
    return [line.rsplit("::", 1)[1].strip() for line in text.splitlines() if "License ::" in line]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
