"""Recall and false positives of the redaction on generated secrets and look-alikes, beside detect-secrets."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from data_builders.cleaning.secrets import redact
from data_builders.cleaning.syntax_check import still_parses

SUFFIXES = {"python": "py", "shell": "sh", "yaml": "yaml", "javascript": "js", "json": "json", "c": "c", "toml": "toml"}
ASSIGNMENTS = [
    ("python", '{name} = "{value}"\n'), ("python", 'connect(user="ada", {name}="{value}")\n'),
    ("python", 'SETTINGS = {{"user": "ada", "{name}": "{value}"}}\n'), ("json", '{{"user": "ada", "{name}": "{value}"}}\n'),
    ("yaml", "db:\n  user: ada\n  {name}: {value}\n"), ("yaml", "db: {{user: ada, {name}: \"{value}\"}}\n"),
    ("toml", '[db]\n{name} = "{value}"\n'), ("shell", "export {name}={value}\n"),
    ("javascript", "const options = {{ {name}: '{value}' }};\n"),
]  # fmt: skip
NAMES = ["pass", "pw", "pwd", "passwd", "password", "db_pass", "smtp_pw", "DB_PASSWORD", "mail_passwd", "passphrase"]
CONTEXTS = [
    ("c", '#define PASSWORD "{value}"\n'), ("c", '#define WIFI_PASS "{value}"\n'), ("c", 'strcpy(password, "{value}");\n'),
    ("python", 'URL = "postgres://ada:{value}@db.firm/app"\n'), ("python", 'URL = "redis://:{value}@cache:6379/0"\n'),
    ("yaml", "url: amqp://ada:{value}@queue.firm:5672\n"), ("shell", "curl -u ada:{value} https://firm/api\n"),
    ("python", 'headers = {{"Authorization": "Bearer {token}"}}\n'), ("python", 'headers = {{"Authorization": "Token {token}"}}\n'),
    ("shell", 'curl -H "Authorization: Bearer {token}" https://firm\n'), ("shell", 'curl -H "PRIVATE-TOKEN: {token}" https://firm\n'),
    ("", "//registry.npmjs.org/:_authToken={token}\n"), ("", "machine git.firm login ada password {value}\n"),
    ("", "db.firm:5432:app:ada:{value}\n"), ("python", 'DSN = "Server=sql;Database=app;User Id=sa;Password={value};"\n'),
    ("json", '{{"c": "Server=sql;User Id=sa;Pwd={value};"}}\n'),
    ("python", 'KEY = "-----BEGIN PRIVATE ' + 'KEY-----\\n{token}{token}\\n-----END PRIVATE ' + 'KEY-----"\n'),
    ("json", '{{"k": "-----BEGIN RSA PRIVATE ' + 'KEY-----\\n{token}{token}\\n-----END RSA PRIVATE ' + 'KEY-----\\n"}}\n'),
    ("yaml", "key: |\n  -----BEGIN PRIVATE " + "KEY-----\n  {token}{token}\n  -----END PRIVATE " + "KEY-----\n"),
    ("shell", "setenv DB_PASSWORD {value}\n"), ("", "requirepass {value}\n"), ("shell", "keytool -list -storepass {value}\n"),
    ("json", '{{"iban": "{iban}"}}\n'), ("yaml", "iban: {iban}\n"), ("python", 'card = "{card}"\n'), ("json", '{{"card": {card}}}\n'),
]  # fmt: skip
HARMLESS = [
    ("python", 'connect(password=config["{word}"], host="db-01")\n'), ("python", "connect({word}, password=args.password)\n"),
    ("python", "check(pwd=row['{word}'], salt=row['salt'])\n"), ("python", "y = {word}@self.weight + self.bias\n"),
    ("python", 'if text.startswith("-----BEGIN PRIVATE ' + 'KEY-----"):\n    {word}(text)\n'),
    ("python", "line = f'password = \"{{{word}[\"pw\"]}}\"'\n"),
    ("python", "password = getpass({word})\n"), ("python", 'password = os.environ["{word}"]\n'), ("python", "def login({word}, password: str) -> None:\n    pass\n"),
    ("json", '{{"password_reset_timeout": 259200, "{word}": 1}}\n'), ("yaml", "password_expiry_days: 3650\n{word}: 1\n"),
    ("yaml", "password_file: /run/secrets/{word}\n"), ("yaml", "password: ${{{word}}}\n"),
    ("c", "passwd=argv[1];\n{word}=buf+4;\n"), ("kotlin", "val b = this@MainActivity.{word}\n"),
    ("python", "order = 4000123412341234  # {word}\n"), ("python", 'ref = "DE00 1234 5678 9012 3456 78 {word}"\n'),
    ("shell", 'PASSWORD=$({word})\necho "$PASSWORD"\n'), ("sql", "SELECT * FROM users WHERE password={word};\n"),
    ("python", 'raw = password.encode("ISO-8859-1")\n{word} = 1\n'), ("javascript", "const opts = {{ password: user.{word} }};\n"),
    ("javascript", "save({{ ...rest, password: await hash({word}) }});\n"), ("yaml", 'image: "docker://registry:5000@sha256:' + "0a1b" * 16 + '"\nname: {word}\n'),
]  # fmt: skip
WORDS = ["settings", "payload", "user_name", "total"]


def _iban(generator: random.Random) -> str:
    account = "".join(generator.choices(string.digits, k=18))
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"


def _card(generator: random.Random) -> str:
    start = "49" + "".join(generator.choices(string.digits, k=13))
    doubled = [int(char) * (2 - place % 2) for place, char in enumerate(start)]
    return start + str(-sum(value - 9 * (value > 9) for value in doubled) % 10)


def _secrets() -> list[tuple[str, str, str]]:
    """Generate (language, text, secret)."""
    generator = random.Random(7)
    cases = []
    templates = [(language, text.replace("{name}", name)) for language, text in ASSIGNMENTS for name in NAMES]
    for language, text in [*templates, *CONTEXTS, *CONTEXTS]:
        words = {
            "value": "Q" + "".join(generator.choices("bcdfghkmnprtvwz", k=6)) + f"-{generator.randrange(10, 99)}x",
            "token": "".join(generator.choices(string.ascii_letters, k=22)) + f"7Kq{generator.randrange(10, 99)}",
            "iban": _iban(generator), "card": _card(generator),
        }  # fmt: skip
        secret = next(word for key, word in words.items() if f"{{{key}}}" in text)
        cases.append((language, text.format_map(words), secret))
    return cases


SECRETS = _secrets()
LOOK_ALIKES = [(language, text.format(word=word)) for language, text in HARMLESS for word in WORDS]


def test_at_least_99_percent_of_the_secrets_are_replaced_and_no_file_breaks() -> None:
    assert len(SECRETS) >= 120
    passed = []
    for language, text, secret in SECRETS:
        redacted = redact(text, language).text
        assert still_parses(text, redacted, language), (text, redacted)
        if secret in redacted:
            passed.append(text)
    print(f"recall: {1 - len(passed) / len(SECRETS):.3f} of {len(SECRETS)}")
    assert len(passed) <= 0.01 * len(SECRETS), passed


def test_look_alikes_are_unchanged() -> None:
    assert len(LOOK_ALIKES) >= 80
    changed = [text for language, text in LOOK_ALIKES if redact(text, language).text != text]
    assert not changed


def test_recall_and_false_positives_beside_detect_secrets(tmp_path: Path) -> None:
    pytest.importorskip("detect_secrets", reason="needs the extra [dev]")
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    def reports(number: int, language: str, text: str) -> bool:
        file = tmp_path / f"case{number}.{SUFFIXES.get(language, 'ini')}"
        file.write_text(text)
        return any(True for _ in scan_file(str(file)))

    with default_settings():
        reported = sum(reports(number, language, text) for number, (language, text, _) in enumerate(SECRETS))
        wrong = sum(reports(number, language, text) for number, (language, text) in enumerate(LOOK_ALIKES))
    ours = sum(secret not in redact(text, language).text for language, text, secret in SECRETS)
    ours_wrong = sum(redact(text, language).text != text for language, text in LOOK_ALIKES)
    print(f"secrets of {len(SECRETS)}: detect-secrets {reported}, ours {ours}")
    print(f"false positives of {len(LOOK_ALIKES)}: detect-secrets {wrong}, ours {ours_wrong}")
    assert ours > reported and ours_wrong <= wrong


@pytest.mark.parametrize(
    ("language", "before", "after", "expected"),
    [
        ("json", '{"a": 1}', '{"a": X_1}', False),
        ("json", "{", "{{", True),
        ("python", "x = 1", "x = =", False),
        ("yaml", "a: 1", "a: [", False),
        ("toml", "a = 1", "a = X", False),
        ("go", "x", "((", True),
    ],
)
def test_a_change_that_breaks_the_syntax_is_noticed(language: str, before: str, after: str, expected: bool) -> None:
    assert still_parses(before, after, language) is expected
