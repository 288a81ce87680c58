"""Names that secrets are assigned to, and the forms of an assignment."""

from __future__ import annotations

import re

STRONG_STEMS = (
    "password",
    "passwd",
    "passwort",
    "passphrase",
    "pwd",
    "db_pass",
    "dbpass",
    "contraseña",
    "contrasena",
    "passcode",
    "mot_de_passe",
    "kennwort",
)
"""Parts of the names of password variables. Any word that is assigned to a name with one of these parts is a secret."""
SHORT_STEMS = ("pass", "pw")
"""Names of password variables that also occur inside many other words. They count only as a whole word, or as the last
word of a name."""
NO_SECRET_TAIL = re.compile(
    r"\w*?(?:timeout|expir|polic|mode|file|path|field|propert|pattern|regex|selector|hasher|length|_?min\b|_?max\b|days|hours|"
    r"label|placeholder|hint|error|message|prompt|type|provider|valid|rule|input|izer|ize|name|format|strength|count|class\b|column|"
    r"param|env_?var|attr\b|header|title|schema|service|manager|view|page|route|event|action|charset|encoding|algo|endpoint|url|uri\b|"
    r"scheme|strategy|callback|handler|factory|category)"
)
"""Matches ends of names that describe a property of a secret, such as `password_file` or `token_timeout`. Their values
are no secrets."""
NO_SECRET_BEFORE = re.compile(r"(?:forgot|forgotten|invalid|wrong|missing|show|hide|confirm|reset)_?\Z")
WEAK_STEMS = ("secret", "token", "credential", "key", "auth")
"""Parts of the names of variables for other secrets. A value that is assigned to a name with one of these parts is a
secret only if the value looks random."""
BEFORE_KEY = ("api", "auth", "service", "account", "db", "database", "priv", "private", "client", "access", "encryption", "signing",
              "master", "app", "license", "shared", "storage", "secret", "consumer", "deploy", "subscription", "host")  # fmt: skip
BEFORE_PHRASE = ("jwt", "session", "cookie", "signing", "hmac", "csrf", "nextauth", "encryption", "shared", "webhook", "client",
                 "consumer", "oauth", "api")  # fmt: skip
"""Words before `secret` in names of secrets that people choose. Words joined by a sign are such a secret."""
BEFORE_PASS = (
    "ssh",
    "db",
    "smtp",
    "ftp",
    "sql",
    "mail",
    "user",
    "root",
    "admin",
    "wifi",
    "redis",
    "ldap",
    "login",
    "http",
    "proxy",
    "key",
    "store",
)
"""Words that `pass` follows without a sign between them, as in `SSHPASS`."""
AFTER_NAME = frozenset("\"'`\\=:,(])<>?+! \t\r\n")
NAME_TAIL = re.compile(r"[\w.-]{0,60}")
# Type annotations and casts may stand between a name and its value: `key: str = "..."`, `Key string = "..."`.
QUOTED_VALUE = re.compile(
    r"""[\\]?["'`]?\]?\)?(?:[ \t]*:[ \t]*[A-Za-z_][\w.\[\] |]{0,30}|[ \t]+(?:string|String|str)\b)?[ \t]*(?P<sign>===?|!==?|:=|=>|\?=|\+=|=|:|<-|->|,|\(|\|\||\?\?|\bor\b|\?:)"""
    r"""[ \t]*(?:\([ \t]*(?:\r?\n[ \t]*)?|@?[A-Za-z_][\w.]{0,30}\(?[ \t]*)??(?:[bruRBfFLu@$]{0,2})(?P<quote>\\?["'`])(?!["'`])(?P<value>(?:(?!(?P=quote))[^\n\\]|\\(?!["'`]).|\\(?=["'`])(?!(?P=quote)).){1,500}?)(?P=quote)"""
)
FALLBACK_VALUE = re.compile(
    r"""["'`]?\]?[ \t]*(?:=|:=|:)[ \t]*[A-Za-z_$][\w.$]{0,60}(?:\([^()\n]{0,80}\)|\[[^\]\n]{1,60}\])?[ \t]*(?:\|\||\?\?|\bor\b|\?:)[ \t]*(["'`])([^"'`\n\s]{4,200})\1"""
)
"""A default after an expression: `password = os.environ.get("X") or "value"`."""
TRIPLE_VALUE = re.compile(r"""["'`]?\]?[ \t]*(?:=>|:=|=|:)[ \t]*[bru]?(\"{3}|'{3})([^"'\n]{4,200})\1""")
SHELL_ASSIGNED = re.compile(r"""=([^\s"'`#;,<>(){}\[\]|&$]{4,300})(?=[ \t])""")
"""In a shell: `PASSWORD=value command`."""
SHELL_OPTION = re.compile(
    r"""[ ]((?=[^\s]*[a-z])[^\s"'`#;,<>(){}\[\]|&$-][^\s"'`#;,<>(){}\[\]|&$]{5,300})(?=[ ]?(?:[^ ]|\Z))"""
)
"""In a shell: `--password value`. After two spaces stands a text of help."""
BARE_VALUE = re.compile(
    r"""["']?[ \t]*(?:=>|:=|=|:)[ \t]*([^\s"'`#;,<>(){}\[\]]{3,300})[ \t]*(?:[#;,].*)?$""", re.MULTILINE
)
# In a sentence: `the password is tr0ub4dor&3, by the way`. PROSE_VALUE (a value after `=` or `:`) is not used in code.
SENTENCE_VALUE = re.compile(
    r"""[ \t]+(?:is|was|will be)[ \t]*:?[ \t]+["'`]?([^\s"'`<>(){}\[\]]{5,100}[^\s"'`<>(){}\[\].,;:!?])"""
)
PROSE_VALUE = re.compile(r"""[ \t]*[=:][ \t]*["'`]?([^\s"'`<>(){}\[\]]{5,100}[^\s"'`<>(){}\[\].,;:!?])""")
# Inside a connection string: up to a delimiter, or to the next setting of a libpq string.
STRING_VALUE = re.compile(r"""=([^\s"'&<>{}$();,\[\]|]{4,100})(?=[;&"']|[ ][a-z_]{2,20}=[^\s=])""")
SUM_BEFORE = re.compile(
    r"(?:(?:sha-?\d{0,3}|md5|checksum|commit|revision|rev|etag|integrity)(?:sum)?|digest(?:\(\))?)[\s\"'`:=(/-]{0,8}\Z|"
    r"sha-?\d+[\"'],\s*[\"'](?:content|value|hash)[\"']\s*:\s*[\"']\Z",
    re.IGNORECASE,
)
ARGUMENT_VALUE = re.compile(r"""[ =]([^\s"'`$<>(){}\[\]|&;]{6,300})(?=\s|$)""")
# `{"name": "DB_PASSWORD", "value": "..."}` in JSON and YAML, `db_password: {"value": "..."}` in Terraform's state.
_NAMED = r"""["']?,?\s{0,40}(?::[ \t]*\{\s{0,40})?["']?\b(?:value|default)["']?[ \t]*[:=][ \t]*"""
NAMED_VALUE = re.compile(_NAMED + r"""["']([^\s"'<>{}$]{4,200})["']""")
NAMED_BARE_VALUE = re.compile(_NAMED + r"""([^\s"',<>{}$]{4,200})[ \t]*$""", re.MULTILINE)
BLOCK_VALUE = re.compile(r"""["']?:[ \t]*[|>][-+]?[ \t]*\n[ \t]+([^\s"'<>{}$]{4,300})[ \t]*$""", re.MULTILINE)
ENV_VALUE = re.compile(r"""[ \t]+([^\s"'$=<>{}]{4,300})[ \t]*$""", re.MULTILINE)
COMMENT = re.compile(r"//|/\*|^[ \t]*\*|#|--[ \t]|<!--")
CONTINUED = re.compile(
    r"""["'`][ \t]{0,80}(?:[+.&\\]|\.\.)?[ \t]{0,80}(?:\r?\n[ \t]{0,80}(?:[+.&][ \t]{0,80})?)?["'`]([A-Za-z0-9+/=_.~-]{6,200})["'`]"""
)
"""Matches the end of a string literal, up to the next literal of the same concatenation, which is group 1."""
XML_VALUE = re.compile(r"""[ \t]*(?:[\w:-]+="[^"\n]{0,60}"[ \t]*)*>[ \t]*([^\s<>{}$"']{4,200})[ \t]*</""")
XML_ATTRIBUTE_VALUE = re.compile(r"""["'][ \t]+value[ \t]*=[ \t]*["']([^"'\n<>{}$]{4,200})["']""")

BLOB = re.compile(r"[A-Za-z0-9+/_-]{16,512}={0,2}\Z")
NOT_A_BLOB = re.compile(
    r"sha\d{1,3}[-:=]|^[a-z]+(?:[-_/][a-z0-9]+)*$|^[A-Z]+(?:[-_][A-Z0-9]+)*$|^(?:\w+/)+\w+$|^[A-Za-z]+$", re.ASCII
)
