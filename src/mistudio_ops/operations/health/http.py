"""The API through the proxy and at each backend, and the page."""

import json
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mistudio_ops.domain.check import Finding
from mistudio_ops.operations.health.facts import Facts
from mistudio_ops.operations.health.side_by_side import Outcome, side_by_side

REQUEST_SECONDS = 4.0
#: A health document has a few kilobytes; whatever sends more is something else.
MOST_BYTES = 262_144
_EXCERPT = 120
#: What the page is recognised by, in any case.
PAGE_MARKER = "mistudio"
_OK = 200
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; the body is cut at ``MOST_BYTES``."""

    status: int
    content_type: str
    location: str
    body: str


class NoAnswerError(Exception):
    """Nothing that can be called an HTTP answer came."""


def fetch(url: str, seconds: float = REQUEST_SECONDS) -> Answer:
    """GET ``url`` within ``seconds`` in all, following no redirect and using no proxy of the shell's.

    Raises:
        NoAnswerError: refused, silent, too slow, or not HTTP; the text says which.
    """
    import httpx

    deadline = time.monotonic() + seconds
    address = urlsplit(url).netloc
    try:
        with (
            httpx.Client(timeout=seconds, trust_env=False, follow_redirects=False, verify=_no_tls()) as client,
            client.stream("GET", url, headers={"User-Agent": "mistudio-ops health"}) as response,
        ):
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if time.monotonic() > deadline:
                    raise NoAnswerError(f"{address} sends its answer too slowly: {len(body)} bytes in {seconds:g} s")
                if len(body) > MOST_BYTES:
                    break
            return Answer(
                response.status_code, response.headers.get("content-type", ""), response.headers.get("location", ""),
                body[:MOST_BYTES].decode(errors="replace"),
            )  # fmt: skip
    except httpx.ConnectError:
        raise NoAnswerError(f"nothing listens on {address}") from None
    except httpx.TimeoutException:
        raise NoAnswerError(f"{address} gives no answer within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(f"{address} does not speak HTTP: {error or type(error).__name__}") from None


def _no_tls() -> ssl.SSLContext:
    """Return a context that trusts nobody: our addresses are plain HTTP, and reading the CA bundle takes 100 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def check_api(facts: Facts) -> Finding:
    """Ask ``GET /api/health`` through the proxy and at each backend: a living proxy can hide a dead backend."""
    targets = {"proxy": facts.proxy_url, **facts.backends}
    outcomes = side_by_side({name: (_asker(url), REQUEST_SECONDS + 0.5) for name, url in targets.items()})
    troubles = {
        name: trouble for name, outcome in outcomes.items() if (trouble := _trouble(name, targets[name], outcome))
    }
    healthy = len(targets) - len(troubles)
    if troubles:
        # A dead backend makes the proxy fail now and then, never the other way round.
        culprit = max(troubles, key=lambda name: name != "proxy")
        return Finding.bad(f"{healthy} of {len(targets)} healthy; {_told(troubles)}", facts.logs_hint(culprit))
    return _agreement(outcomes)


def check_frontend(facts: Facts) -> Finding:
    """Get the page through the proxy, and recognise it."""
    hint = f"open {facts.proxy_url}/ and read: {facts.logs_hint('proxy')}"
    try:
        answer = fetch(f"{facts.proxy_url}/")
    except NoAnswerError as error:
        return Finding.bad(str(error), hint)
    if answer.status != _OK:
        return Finding.bad(_unexpected(answer), hint)
    if "html" not in answer.content_type or PAGE_MARKER not in answer.body.lower():
        return Finding.bad(f"200, but it is not the page of MiStudio: {_excerpt(answer.body)}", hint)
    return Finding.good(f"the page has {len(answer.body)} bytes")


def _asker(url: str) -> Any:
    return lambda: fetch(f"{url}/api/health")


def _trouble(name: str, url: str, outcome: Outcome[Answer]) -> str | None:
    """Return what is wrong with one answer, None for a healthy one."""
    if isinstance(outcome.error, NoAnswerError):
        return str(outcome.error)
    if outcome.value is None:
        return str(outcome.error or f"{urlsplit(url).netloc} gives no answer within {outcome.seconds:.0f} s")
    answer = outcome.value
    document = _document(answer)
    if document is None or answer.status not in {_OK, _UNAVAILABLE}:
        return _unexpected(answer)
    instance = document.get("instance")
    if name != "proxy" and instance not in {None, name}:
        return f"another server answers there: {str(instance)[:_EXCERPT]}"
    if answer.status == _OK and document["status"] == "healthy":
        return None
    return f"{answer.status} {document['status']}: {_failing(document)}"


def _told(troubles: dict[str, str]) -> str:
    """Return the troubles, each once, with the names of those who have it."""
    names: dict[str, list[str]] = {}
    for name, trouble in troubles.items():
        names.setdefault(trouble, []).append(name)
    return "; ".join(f"{', '.join(who)}: {trouble}" for trouble, who in names.items())


def _document(answer: Answer) -> dict[str, Any] | None:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("status"), str) else None


def _failing(document: dict[str, Any]) -> str:
    checks = document.get("checks")
    failing = [
        f"{name} ({str(check.get('evidence'))[:_EXCERPT]})"
        for name, check in (checks.items() if isinstance(checks, dict) else ())
        if isinstance(check, dict) and not check.get("ok")
    ]
    return ", ".join(failing) or "it does not say why"


def _unexpected(answer: Answer) -> str:
    if answer.location:
        return f"answered {answer.status}, a redirect to {answer.location[:_EXCERPT]}"
    return f"answered {answer.status}: {_excerpt(answer.body)}"


def _excerpt(body: str) -> str:
    text = " ".join(body.split())
    return repr(text[:_EXCERPT]) + ("..." if len(text) > _EXCERPT else "") if text else "an empty body"


def _agreement(outcomes: dict[str, Outcome[Answer]]) -> Finding:
    documents = [document for outcome in outcomes.values() if outcome.value and (document := _document(outcome.value))]
    releases = sorted({str(document.get("release")) for document in documents})
    evidence = f"{len(outcomes)} of {len(outcomes)} healthy ({', '.join(outcomes)}), release {' and '.join(releases)}"
    if len(releases) > 1:
        return Finding.poor(evidence, "a deploy is under way, or was cut off: mistudio-ops status, then deploy again")
    return Finding.good(evidence)
