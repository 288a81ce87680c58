"""Licenses of repositories and files: titles, notices in words, several files, manifests, and what is unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_builders.cleaning.license_manifests import license_of_manifests
from data_builders.cleaning.license_texts import identify
from data_builders.cleaning.licenses import (
    LicensePolicy,
    file_license,
    is_license_file,
    license_of,
    license_of_texts,
)
from data_builders.repositories.sources import Repository, iterate_files

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this work, to use it."
BSD = "Redistribution and use in source and binary forms are allowed under two conditions."
APACHE = "Apache License\nVersion 2.0, January 2004\n\nTerms of use follow."
GPL3 = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n\n" + "Some clause of the long text. " * 80
LGPL3 = "GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3\n\nThis adds permissions to version 3 of the GNU General Public License."
OWN = "Invented House License\n\nThe house may be looked at for thirty days."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (APACHE, "Apache-2.0"),
        (GPL3, "GPL-3.0"),
        (GPL3.replace("Version 3,", "Version 2,"), "GPL-2.0"),
        ("Mozilla Public License Version 2.0\n\nSecondary: the GNU Affero General Public License, Version 3.0", "MPL-2.0"),
        ("Eclipse Public License - v 2.0\n\nOr the GNU General Public License, version 2.0", "EPL-2.0"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3\n\nSee section 13 of the GNU General Public License", "AGPL-3.0"),
        (LGPL3, "LGPL-3.0"),
        ("GNU LIBRARY GENERAL PUBLIC LICENSE\nVersion 2, June 1991", "LGPL-2.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999", "LGPL-2.1"),
        ("Business Source License 1.1\nChange License: Apache License, Version 2.0", "BUSL-1.1"),
        ("Server Side Public License\nVERSION 1, based on the GNU Affero General Public License", "SSPL-1.0"),
        ("Elastic License 2.0\n\nURL: somewhere", "Elastic-2.0"),
        ('"Commons Clause" License Condition v1.0\n\nLicense: MIT\n\n' + MIT, "unknown"),
        ("Commons Clause\n\n" + APACHE, "unknown"),
        (MIT + " It shall be used for Good, not Evil.", "JSON"),
        (MIT + " Only for non-commercial purposes.", "unknown"),
        (MIT + " This is proprietary and confidential.", "unknown"),
        (MIT + " Another condition of the house." * 90, "unknown"),
        (BSD, "BSD-2-Clause"),
        (BSD + " Neither the name of the house may endorse anything.", "BSD-3-Clause"),
        (BSD + " The author's name may not be used to endorse or promote products.", "BSD-3-Clause"),
        (BSD + " All advertising materials must display it.", "BSD-4-Clause"),
        (APACHE + "\n\nParts are under this license:\n" + MIT, "Apache-2.0 AND MIT"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", "CC-BY-NC-SA-4.0"),
        ("Licensed under either of the Apache License, Version 2.0 or the MIT license, at your option.", "Apache-2.0 OR MIT"),
        ("You can redistribute it under the GNU General Public License, version 2 or any later version.", "GPL-2.0-or-later"),
        ("This code is under the MIT license.", "MIT"),
        (OWN, "unknown"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_the_license_of_a_text_is_the_first_license_that_it_names(text: str, expected: str) -> None:
    assert identify(text) == expected


GRANT = "This program is free software: you can redistribute it under the terms of the GNU {}General Public License{}."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# " + GRANT.format("", ", either version 3 of the License, or any later version") + "\nx = 1\n", "GPL-3.0-or-later"),
        ("/*\n * " + GRANT.format("Affero ", "\n * as published, version 3") + "\n */\nint x;\n", "AGPL-3.0"),
        ('"""Prices.\n\n' + GRANT.format("Lesser ", ", version 2.1") + '\n"""\nx = 1\n', "LGPL-2.1"),
        ("#!/bin/sh\n\n# Licensed under the Apache License, Version 2.0\necho\n", "Apache-2.0"),
        ("// SPDX-License-Identifier: MIT\n// " + GRANT.format("", ", version 2") + "\n", "MIT"),
        ("# A line of the header.\n" * 150 + "# SPDX-License-Identifier: GPL-3.0-only\nx = 1\n", "GPL-3.0-only"),
        ("# Parses the text of the GNU General Public License, version 2.\nx = 1\n", ""),
        ("# Licensed under the terms in the file LICENSE.\nx = 1\n", ""),
        ("x = 1\n# " + GRANT.format("", ", version 3") + "\n", ""),
        ("x = 1\n" * 400 + "# SPDX-License-Identifier: MIT\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_leading_comment_of_a_file_names_its_license(text: str, expected: str) -> None:
    assert file_license(text) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}, "Apache-2.0 OR MIT"),
        (
            {"LICENSE": "See LICENSE.MIT or LICENSE.APACHE.", "LICENSE.MIT": MIT, "LICENSE.APACHE": APACHE},
            "Apache-2.0 OR MIT",
        ),
        ({"LICENSE": MIT, "COPYING": GPL3}, "GPL-3.0 AND MIT"),
        ({"LICENSE": MIT, "LICENSE-HOUSE": OWN}, "MIT AND unknown"),
        ({"LICENSE": OWN, "LICENSE-MIT": MIT}, "unknown AND MIT"),
        ({"LICENSE": GPL3, "LICENSE-3RD-PARTY.txt": MIT}, "GPL-3.0"),
        ({"LICENSE": OWN, "LICENSE-docs": "Creative Commons Attribution 4.0 International"}, "unknown"),
        ({"COPYING": GPL3, "COPYING.LESSER": LGPL3}, "LGPL-3.0"),
        ({"LICENSE": MIT, "COPYRIGHT": "2020 The house"}, "MIT"),
        ({}, "owned"),
    ],
)
def test_several_license_files_hold_together_unless_their_names_offer_a_choice(
    texts: dict[str, str], expected: str
) -> None:
    assert license_of_texts(texts, LicensePolicy()) == expected


def test_a_proprietary_file_beside_mit_is_not_mit() -> None:
    assert not LicensePolicy(allow=["MIT"]).permits("MIT AND unknown")
    assert not LicensePolicy(deny=["unknown"]).permits("MIT AND unknown")


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("pyproject.toml", '[project]\nlicense = "GPL-3.0-only"\n', "GPL-3.0-only"),
        ("pyproject.toml", '[project]\nlicense = {text = "GNU GPL v2"}\n', "GPL-2.0"),
        ("pyproject.toml", '[project]\nlicense = {file = "X"}\nclassifiers = ["License :: OSI Approved :: GNU Affero General Public License v3"]\n', "AGPL-3.0"),
        ("pyproject.toml", '[tool.poetry]\nlicense = "MIT OR Apache-2.0"\n', "MIT OR Apache-2.0"),
        ("pyproject.toml", '[project]\nname = "shop"\n', ""),
        ("pyproject.toml", "[broken", ""),
        ("package.json", json.dumps({"license": "AGPL-3.0-only"}), "AGPL-3.0-only"),
        ("package.json", json.dumps({"licenses": [{"type": "MIT"}]}), "MIT"),
        ("package.json", json.dumps({"license": "UNLICENSED"}), ""),
        ("package.json", "[]", ""),
        ("Cargo.toml", '[package]\nlicense = "GPL-3.0-or-later"\n', "GPL-3.0-or-later"),
        ("pom.xml", "<licenses><license><name>GNU General Public License, version 2</name></license></licenses>", "GPL-2.0"),
        ("setup.cfg", "[metadata]\nlicense = LGPL-2.1\n", "LGPL-2.1"),
        ("README.md", "# Shop\n\nIt reads GPL files.\n\n## License\n\nReleased under the GNU General Public License v3.0.\n", "GPL-3.0"),
        ("README.md", "# Shop\n\nIt reads files under the GPL v3.\n", ""),
    ],
)  # fmt: skip
def test_a_manifest_names_the_license_of_a_repository_without_license_files(
    path: str, text: str, expected: str
) -> None:
    assert license_of_manifests({path: text}) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"package.json": '{"license": "GPL-3.0-only"}', "LICENSE": MIT}, "MIT"),
        ({"package.json": '{"license": "GPL-3.0-only"}'}, "GPL-3.0-only"),
        ({"LICENSES/GPL-3.0-or-later.txt": GPL3}, "GPL-3.0"),
        ({"COPYING3": GPL3}, "GPL-3.0"),
        ({"license.py": "x = 1\n"}, "owned"),
        ({"README.md": "# Shop\n"}, "owned"),
    ],
)
def test_license_files_go_before_manifests(files: dict[str, str], expected: str, tmp_path: Path) -> None:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    repository = Repository("shop", tmp_path, "", "")
    assert license_of(repository, iterate_files(repository, 1_000_000, top=True), LicensePolicy()) == expected


def test_a_policy_can_allow_exactly_one_exception() -> None:
    expression = "GPL-2.0-only WITH Classpath-exception-2.0"
    assert LicensePolicy(allow=[expression]).permits(expression)
    assert not LicensePolicy(allow=[expression]).permits("GPL-2.0-only")
    assert not LicensePolicy(deny=["GPL-2.0"]).permits(expression)


@pytest.mark.parametrize("path", ["LICENSE", "COPYING3", "licence.md", "LICENSE-MIT", "UNLICENSE", "COPYING.LESSER"])
def test_names_of_license_files(path: str) -> None:
    assert is_license_file(path) and not is_license_file(f"vendor/{path}")
