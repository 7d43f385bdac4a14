"""Which keys hold secrets, and what a secret looks like in a URL."""

import re
from urllib.parse import unquote, urlsplit

_SECRET = re.compile(
    r"(password|passwd|passphrase|secret|token|credential|private_?key|database_url|redis(_ws)?_url)$", re.IGNORECASE
)


def is_secret(key: str) -> bool:
    """Return True when the value of ``key`` must not be shown."""
    return _SECRET.search(key) is not None


def url_passwords(url: str | None) -> tuple[str, ...]:
    """Return the password of a URL, as written and decoded; empty when it has none."""
    try:
        password = urlsplit(url or "").password
    except ValueError:
        return ()
    return tuple(dict.fromkeys((password, unquote(password)))) if password else ()


def without_password(url: str) -> str:
    """Return a URL that can be shown: who and where, not the password."""
    for password in url_passwords(url):
        url = url.replace(f":{password}@", ":********@")
    return url
