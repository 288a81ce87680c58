"""Tell placeholders and technical names from secrets."""

from __future__ import annotations

import re

_PLACEHOLDER = re.compile(
    r"(?:(?:your|my|the|some|insert|enter|put|add|replace|change|dummy|fake|example|sample|placeholder|redacted|mock)"
    r"[-_ ].*|(?:example|dummy|fake|sample|placeholder|redacted)\w*|change[-_]?(?:me|it|this)?|x{3,}.*|\*+|\.{3,}|-+|_+|todo|tbd|none|null|nil|undefined|true|false|yes|no|on|off|"
    r"(?:[a-z]*[-_ .])?(?:passw(?:or)?d|pwd|secret|token|key|auth|string|str|int|bool|value|text|password_hash)s?"
    r"|test(?:ing)?\d*|oauth\d?(?:\.\d)?|[a-z_]+(?:\|[\w:,]+)+|foo|bar|baz|abc|default|string|optional|required|hidden|bearer|basic|n/?a|empty|unset|env|prompt|.)\Z",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(
    r"\$\{|\$\(|\{\{|<%|%\(|^\$[A-Za-z_]|^%[sdr]|^\{[\w.!:]*\}$|^<[^>]*>$|^\$[A-Z_]+$|^@@|#\{|^%\w+%$|^\{[A-Za-z_][\w.]*[\[(]|^process\.env|^os\.|^env\."
)
_TECHNICAL = re.compile(
    r"(?:base|utf|ucs|sha|md|iso|aes|des|[3t]des|rsa|dsa|ec|ed|x|rc|hs|rs|es|ps|hmac|pbkdf|oauth|saml|oidc|http|tls|ssl|ntlm|cram|crc|blake|ripemd|"
    r"keccak|ascii|latin|cp|windows|koi|big|euc|pkcs|ipv|rfc|python|java|node|php|ecdsa|ecdh|cha)[-_ ]?v?\d[\w.-]{0,24}\Z",
    re.IGNORECASE,
)
"""Names of algorithms, encodings and protocols, for example `ISO-8859-1`, `HS256` and `OAuth2.0`."""
_ABOUT_A_SECRET = re.compile(
    r"(?=.*(?:\b|_)(?:passw(?:or)?d|passwort|pwd|pass|passphrase|secret|token|key|auth|credential|login)s?(?:\b|_))"
    r"[a-z]+(?:[-_./: ][a-z]+)*(?:[-_.]v\d{1,2})?\Z",
    re.IGNORECASE,
)
"""Words joined by signs, one of which is `password` or another word for a secret: the name of a field or setting."""


def is_placeholder(value: str) -> bool:
    """Whether a value is a placeholder for a secret, such as `changeme` and `${TOKEN}`."""
    return bool(_PLACEHOLDER.match(value) or _TEMPLATE.search(value))


def is_name(value: str) -> bool:
    """Whether a value is the name of an algorithm, an encoding, or a field such as `password-field`."""
    return bool(_TECHNICAL.match(value) or _ABOUT_A_SECRET.match(value))
