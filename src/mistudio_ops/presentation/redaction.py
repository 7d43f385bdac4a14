"""The last line of defence against a secret on the screen: every line that a reporter writes passes through here.

Operations do not put secrets into messages. But evidence comes from servers, libraries and log files, and some of
those repeat the connection string they were given.
"""

import json
import re

MASK = "********"
#: Shorter values would blank out ordinary words.
SHORTEST = 6
_URL_PASSWORD = re.compile(r"(?P<head>\b[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@]*:)(?P<password>[^\s/@]+)(?=@)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Redactor:
    """Masks the secrets it was told of, and passwords in URLs whether it was told or not."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def hide(self, *secrets: str) -> None:
        """Mask these from now on, also where JSON escapes them."""
        wanted = {form for secret in secrets if len(secret) >= SHORTEST for form in (secret, json.dumps(secret)[1:-1])}
        if wanted <= self._secrets:
            return
        self._secrets |= wanted
        longest_first = sorted(self._secrets, key=lambda secret: (-len(secret), secret))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def mask(self, text: str) -> str:
        """Return ``text`` without any of them."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _URL_PASSWORD.sub(rf"\g<head>{MASK}", text)


def printable(text: str) -> str:
    """Return ``text`` with control characters spelled out: evidence must not move a terminal's cursor."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
