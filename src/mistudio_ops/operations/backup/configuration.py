"""What a backup says about the configuration: enough to build the environment again, and no secret of it.

Secrets are found twice: by the names of keys, in the file that is parsed, and by their values, in the whole text. What
still holds one after that is left out, and a note says so.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mistudio_ops.config.secret_keys import is_secret, url_passwords, without_password
from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.release import Release
from mistudio_ops.drivers.releases import current_release
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.errors import OpsError
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.redaction import MASK

CONFIGURATION_FILE = "configuration.json"
_LEFT_OUT = "it was left out: it holds a secret that could not be taken out"
#: Shorter values would tear holes into words that are none.
_SHORTEST_SECRET = 4
_MORE_SECRETS = re.compile(r"(passphrase|api_?key|access_?key|authorization)$", re.IGNORECASE)
#: A line of TOML that sets a key, also one that is commented out.
_SETTING = re.compile(
    r"^(?P<start>[ \t]*(?:#[ \t]*)*[\"']?(?P<key>[\w.-]+)[\"']?[ \t]*=[ \t]*)(?P<value>.+)$", re.MULTILINE
)
_URL_PASSWORD = re.compile(r"(://[^\s:/@\"']*):[^\s@\"']+@")


def configuration_document(workplace: Workplace, release: dict[str, Any] | None) -> bytes:
    """Return ``configuration.json``: the resolved environment, the text of mistudio.toml, and the release that ran."""
    environment = workplace.environment
    document = {
        "environment": environment.name,
        "resolved": _without_secrets(_resolved(environment)),
        "file": _file(workplace.config_file),
        "release": release,
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    known = _known_secrets(workplace)
    if _holds(text, known):
        document["file"] = {"path": str(workplace.config_file), "text": None, "note": _LEFT_OUT}
        text = json.dumps(_masked(document, known), indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def release_document(workplace: Workplace) -> dict[str, Any] | None:
    """Return the record of the release that serves; None before the first, or when it cannot be read."""
    try:
        release: Release | None = current_release(workplace.environment.paths)
    except (OpsError, OSError) as error:
        workplace.reporter.warning(f"the backup will not say which release ran: {error}")
        return None
    return release.document() if release else None


def masked_toml(text: str, secrets: Iterable[str] = ()) -> str | None:
    """Return the text of a TOML file without its secrets; None when one could not be taken out."""
    try:
        values = sorted({*_secret_values(tomllib.loads(text)), *secrets}, key=len, reverse=True)
    except tomllib.TOMLDecodeError:
        return None
    masked = _URL_PASSWORD.sub(rf"\1:{MASK}@", _SETTING.sub(_masked_setting, text))
    for value in values:
        if len(value) >= _SHORTEST_SECRET:
            for form in (value, json.dumps(value, ensure_ascii=False)[1:-1]):  # as TOML escapes it, too
                masked = masked.replace(form, MASK)
    try:
        left = set(_secret_values(tomllib.loads(masked)))
    except tomllib.TOMLDecodeError:
        return None
    return None if left - {MASK} else masked


def _resolved(environment: Environment) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(environment), default=str))  # type: ignore[no-any-return]


def _file(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        text = masked_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return {"path": str(path), "text": None, "note": f"it could not be read: {error}"}
    return {"path": str(path), "text": text} | ({} if text is not None else {"note": _LEFT_OUT})


def _without_secrets(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _without_secrets(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_secrets(one, key) for one in value]
    if not isinstance(value, str):
        return value
    if "://" in value:
        return without_password(value)
    return MASK if value and _secret_key(key) else value


def _masked_setting(match: re.Match[str]) -> str:
    value = match["value"]
    if not _secret_key(match["key"].rpartition(".")[2]) or "://" in value:
        return match[0]
    return f'{match["start"]}"{MASK}"'


def _secret_key(key: str) -> bool:
    return is_secret(key) or _MORE_SECRETS.search(key) is not None


def _secret_values(value: Any, key: str = "") -> Iterator[str]:
    """Yield what must not be read by others: passwords within URLs, and the values of keys with such names."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _secret_values(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _secret_values(one, key)
    elif isinstance(value, str) and "://" in value:
        yield from (password for password in url_passwords(value) if password != MASK)
    elif isinstance(value, str) and value and _secret_key(key):
        yield value


def _known_secrets(workplace: Workplace) -> set[str]:
    """Return the values themselves: generated ones, those of URLs, and those of variables."""
    environment = workplace.environment
    found = set(_secret_values(_resolved(environment)))
    found |= {value for name, value in workplace.environ.items() if _secret_key(name) and "://" not in value}
    for url in (environment.database_url, environment.database_admin_url, environment.redis_url):
        found |= set(url_passwords(url))
    generated = read_secrets(environment.paths.secrets)
    found |= set(generated.all()) if generated else set()
    return {value for value in found if len(value) >= _SHORTEST_SECRET and value != MASK}


def _holds(text: str, secrets: Iterable[str]) -> bool:
    return any(value in text or json.dumps(value)[1:-1] in text for value in secrets)


def _masked(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _masked(one, secrets) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one, secrets) for one in value]
    if not isinstance(value, str):
        return value
    for secret in sorted(secrets, key=len, reverse=True):
        value = value.replace(secret, MASK)
    return value
