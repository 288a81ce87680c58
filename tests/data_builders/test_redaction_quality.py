"""The measurement `python -m benchmarks redaction`: its texts, its figures, and patterns on hostile input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import redaction_quality
from benchmarks.redaction_texts import LabelledText, look_alikes, personal_data, secrets
from data_builders.cleaning.secrets import redact

SEED = 3


@pytest.mark.parametrize("group", [secrets, personal_data])
def test_at_least_99_percent_of_the_values_are_replaced(group: Callable[[int], list[LabelledText]]) -> None:
    texts = group(SEED)
    assert all(item.value and item.value in item.text for item in texts)
    missed = [item.text for item, hit in zip(texts, redaction_quality.redacted_values(texts), strict=True) if not hit]
    assert len(missed) <= 0.01 * len(texts), missed
    assert redaction_quality.broken_texts(texts) == 0


def test_look_alikes_stay_as_they_are() -> None:
    texts = look_alikes(SEED)
    assert [item.text for item in texts if redact(item.text, item.language).text != item.text] == []


def test_a_text_is_drawn_again_from_its_seed() -> None:
    assert secrets(1) == secrets(1)
    assert secrets(1) != secrets(2)


def test_a_missing_program_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="gitleaks cannot be run as /no/such/program"):
        redaction_quality.gitleaks_reports("/no/such/program", [LabelledText("python", "x = 1\n", "")])


@pytest.mark.parametrize(
    ("language", "text", "value"),
    [
        ("php", "$hash = '$2y$10$" + "Ab1" * 17 + "xy';\n", "Ab1" * 17),
        ("yaml", "kind: Secret\ndata:\n  user: YW5uYTEyMzQ1Ng==\n", "YW5uYTEyMzQ1Ng=="),
        ("yaml", "passwords:\n  anna: kieselturm\n  otto: Zinn_4410\n", "kieselturm"),
        ("shell", "docker run -e POSTGRES_PASSWORD=kieselturm postgres\n", "kieselturm"),
        ("shell", "tool --password kieselturm --verbose\n", "kieselturm"),
        ("javascript", "const key = process.env.API_TOKEN ?? 'm4q8z1w7k3v9t5x2';\n", "m4q8z1w7k3v9t5x2"),
        ("python", 'value = "${DB_PASSWORD:-Kobalt77}"\n', "Kobalt77"),
        ("text", "anna:Members:0f1e2d3c4b5a69788796a5b4c3d2e1f0\n", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ("text", "card 3782 822463 10005\npay with amex card 3799 992304 56713\n", "3799 992304 56713"),
        ("text", "contact o'kork@nord91.de\n", "o'kork"),
        ("text", "Tel. 030 23125-042\n", "23125"),
    ],
)  # fmt: skip
def test_further_forms_are_replaced(language: str, text: str, value: str) -> None:
    assert value not in redact(text, language).text


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "name = f'anna@{host}'\nmail = b'git@github.com'\n"),
        ("python", "magic = bytes.fromhex('1f8b0800000000000000ab562a2e2952b2')\n"),
        ("python", "order = +49 - 30 * 23125\nzone = '+0200'\n"),
        ("css", "path { d: 'M4 1.7.75.75 0 0 1-1.072' }\n"),
        ("rust", "use std::collections::HashMap;\nlet a = b::c::d;\n"),
        ("python", "parser.add_argument('--password', '-p', help='password of the user')\n"),
        ("python", "passwords = [user.password for user in users]\ntokens = ['if', 'x12', '+=']\n"),
        ("sql", "INSERT INTO users (login, password) VALUES (:login, :password);\n"),
        ("markdown", "The user is identified by the token; see section 3.2 of the contact page.\n"),
        ("yaml", "secret: my-app-credentials\nexistingSecret: shop-db-secret\n"),
        ("python", "if not name or 'password' in name or 'token' in name:\n    pass\n"),
        ("c", "#define PASSWORD_MAX 64\n#define TOKEN_NAME \"%s\"\n"),
    ],
)  # fmt: skip
def test_further_look_alikes_stay(language: str, text: str) -> None:
    assert redact(text, language).text == text
