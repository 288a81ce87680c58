"""Find the material of private keys: PEM with and without its header, JSON Web Keys, PuTTY, signify and XML keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_builders.cleaning.findings import Finding, find_all
from data_builders.cleaning.text_index import TextIndex, WordSet

KIND = "PRIVATE_KEY"
_HEADER = re.compile(
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)? ?-{4,5}|(?<=Private-Lines: )\d+\r?\n(?=[A-Za-z0-9+/=]{4,})"
)
_UNTITLED = re.compile(
    r"(?<![A-Za-z0-9+/])(?:MII[A-Za-z0-9+/]{3}IBA(?:AKB|AKC|DANBgkqhkiG9w0BAQ)|MIIC[A-Za-z0-9+/]{2}(?:IB|AgEA)|MI[GHI][A-Za-z0-9+/]{1,3}Ag[EQ][AB]M|MH[cQ]CAQEE|MC4CAQAwBQYDK2V|"
    r"MII[A-Za-z0-9+/]{2,3}(?:TBXBgkqhkiG9w0BBQ0|DBOBgkqhkiG9w0BBQ0|jBABgkqhkiG9w0BBQ0)|b3BlbnNzaC1rZXktdjEA|LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,40}(?:UFJJVkFURSBLRVk|QUklWQVRFIEtFW|BSSVZBVEUgS0VZ))(?=[A-Za-z0-9+/]{8})"
)
"""First characters of private keys in base64. A certificate and a public key have other first characters."""
_SIGNIFY = re.compile(r"secret key\r?\n(?=RW[A-Za-z0-9+/=]{20,})")
# What stands between the lines of a key: quotes, escapes, operators of concatenation, and headers of the key.
_GAP = re.compile(
    r"(?:[\s\"'`\\+,.;&|#*>-]|(?:Version|Comment|Proc-Type|DEK-Info|Hash|Charset):[ \t]*[^\n\"' ]*(?: [^\n\"' ]+)*(?:\s|\Z))*"
)
_RUN = re.compile(r"[A-Za-z0-9+/=]{4,}")
_JWK_PART = re.compile(r"[\"'](?:d|p|q|dp|dq|qi|k)[\"']\s*:\s*[\"']([A-Za-z0-9_-]{16,1500})[\"']")
_XML_PART = re.compile(r"<(?:D|P|Q|DP|DQ|InverseQ)>\s*([A-Za-z0-9+/=]{16,1500})\s*</")
_HINTS = WordSet(["PRIVATE KEY", "Private-Lines", "secret key", '"kty"', "'kty'", "<RSAKeyValue>", "MII", "MIG", "MIH", "MHc", "MHQ",
                  "MC4CAQ", "b3BlbnNzaC1r", "LS0tLS1CRUdJTi"])  # fmt: skip


def private_keys(index: TextIndex) -> list[Finding]:
    """Find private keys. Quotes, escapes and line breaks between the parts of a key are not part of the findings."""
    text = index.text
    words = {_HINTS.words[number] for number in _HINTS.candidates(index) if _HINTS.words[number] in text}
    findings: list[Finding] = []
    if not words:
        return findings
    for match in _HEADER.finditer(text):
        findings += _key_lines(text, match.end())
    if words & {"MII", "MIG", "MIH", "MHc", "MHQ", "MC4CAQ", "b3BlbnNzaC1r", "LS0tLS1CRUdJTi"}:
        for match in _UNTITLED.finditer(text):
            findings += _key_lines(text, match.start())
    if "secret key" in words:
        for match in _SIGNIFY.finditer(text):
            findings += _key_lines(text, match.end())
    for word in words & {'"kty"', "'kty'", "<RSAKeyValue>"}:
        findings += _parts(text, word)
    return findings


def _key_lines(text: str, position: int) -> Iterator[Finding]:
    """Yield the base64 runs of a key that begins at an offset, up to the first run that cannot belong to a key."""
    longest = 0
    while True:
        gap = _GAP.match(text, position)
        run = _RUN.match(text, gap.end() if gap else position)
        if run is None or not _belongs_to_key(run.group(), longest):
            return
        yield Finding(*run.span(), KIND)
        longest = max(longest, run.end() - run.start())
        position = run.end()


def _belongs_to_key(run: str, longest: int) -> bool:
    """Whether a run of base64 characters is a line of a key instead of a word that follows the key.

    Args:
        run: the run.
        longest: length of the longest run of this key before.
    """
    telling = any(char.isdigit() or char in "+/=" for char in run)
    if len(run) >= 40:
        return telling or run.lower() != run
    if len(run) >= 16 and telling and run.lower() != run:
        return True
    # The last line and the checksum of a key are shorter than the other lines.
    return longest >= 16 and longest > len(run) and (telling or not (run.islower() or run.istitle() or run.isupper()))


def _parts(text: str, word: str) -> Iterator[Finding]:
    """Yield the secret members of each JSON Web Key, or the secret elements of each XML key, in a text."""
    for place in find_all(text, word):
        if word == "<RSAKeyValue>":
            start, end, part = place, text.find("</RSAKeyValue>", place), _XML_PART
        else:
            start, end, part = text.rfind("{", 0, place), text.find("}", place), _JWK_PART
        if start >= 0 and end >= 0 and end - start < 8000:
            yield from (Finding(*match.span(1), KIND) for match in part.finditer(text, start, end))
