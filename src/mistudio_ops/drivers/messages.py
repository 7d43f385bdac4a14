"""Messages to people, by mail, chat and the like: apprise knows how, one URL for each who is told."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from mistudio_ops.errors import OpsError, PreconditionError, UsageError

NOTIFY_VARIABLE = "MISTUDIO_NOTIFY_URLS"
_HINT = "pip install 'mistudio[notify]'"


class NotDeliveredError(OpsError):
    """A message reached nobody, or not everybody."""

    code = "not_delivered"


def split_urls(text: str) -> tuple[str, ...]:
    """Return the URLs in a variable: separated by white space, or by commas before the next scheme."""
    parts = re.split(r"\s+|,(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)", text.strip())
    return tuple(part.strip(",") for part in parts if part.strip(","))


def require(urls: Sequence[str]) -> None:
    """Check that messages could be sent, without sending one.

    Raises:
        PreconditionError: apprise is not installed.
        UsageError: it does not know what one of the URLs means.
    """
    _client(urls)


def send(urls: Sequence[str], title: str, body: str, *, good: bool) -> None:
    """Send one message to all of them.

    Raises:
        NotDeliveredError: at least one of them did not take it.
        PreconditionError: apprise is not installed.
        UsageError: it does not know what one of the URLs means.
    """
    client = _client(urls)
    if not client.notify(body=body, title=title, notify_type="success" if good else "failure"):
        raise NotDeliveredError(
            "a message about the backup was not taken by all who should get it",
            hint=f"try the URLs of {NOTIFY_VARIABLE}: apprise -v -b test URL",
        )


def _client(urls: Sequence[str]) -> Any:
    if find_spec("apprise") is None:
        raise PreconditionError(f"{NOTIFY_VARIABLE} is set, and apprise is not installed", hint=_HINT)
    import apprise

    client = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not client.add(url):
            raise UsageError(  # the URL holds a secret: its number must do
                f"{NOTIFY_VARIABLE}: number {number} of {len(urls)} is no URL that apprise knows ({_scheme(url)})",
                hint="https://github.com/caronc/apprise/wiki lists what each service's looks like",
            )
    return client


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return f"{scheme}://..." if separator and scheme.isalnum() else "without a scheme"
