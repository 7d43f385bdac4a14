"""Copies in an S3-compatible store: AWS, MinIO, Garage, Ceph and their like.

A file there appears when its upload completes, and not before. An upload that a kill interrupted leaves invisible parts
that cost money: give the bucket a lifecycle rule that aborts incomplete multipart uploads after some days.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, parse_qs, unquote

from mistudio_ops.drivers.destinations import AbsentError, DestinationError, UnreachableError
from mistudio_ops.drivers.destinations.aws_files import shared_settings
from mistudio_ops.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import S3Store

#: A request moves at most this much, so that slow lines stay below its timeout; larger for files of 80 GB and more,
#: because an upload has at most 10,000 parts.
PART = 8 << 20
MAX_PARTS = 9_000
REQUEST_TIMEOUT = timedelta(seconds=120)
RETRY_TIMEOUT = timedelta(seconds=30)
#: Asked for the role of a machine at AWS when no credentials were given.
_MACHINE_ROLE = "169.254.169.254"
_OPTIONS = {"endpoint", "region"}
_FULL = ("XMinioStorageFull", "QuotaExceeded", "507 Insufficient", "EntityTooLarge")
_CREDENTIALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "401 Unauthorized")
_AGAIN = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout<", "502 ", "503 ", "504 ", "500 ")


class S3:
    """A bucket, or the part of it below a prefix."""

    elsewhere = True

    def __init__(self, parts: SplitResult, environ: Mapping[str, str]) -> None:
        self.url = parts.geturl()
        self._bucket = parts.hostname or ""
        self._prefix = unquote(parts.path).strip("/")
        options = _options(parts)
        shared = shared_settings(environ)
        self._endpoint = (
            options.get("endpoint") or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        )
        self._region = (
            options.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or shared.region
        )
        self._credentials = shared.credentials(environ)
        if self._endpoint and not self._credentials:
            raise UsageError(
                f"there are no credentials for {self.url}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials",
            )
        self._store: S3Store = self._open()

    def list(self, below: str = "") -> dict[str, int]:
        """Return the files below a folder."""
        import obstore

        with self._explained():
            found = [one for page in obstore.list(self._store, self._key(below) or None) for one in page]
        skipped = len(self._prefix) + 1 if self._prefix else 0
        return {one["path"][skipped:]: one["size"] for one in found}

    @contextmanager
    def read(self, name: str) -> Iterator[Iterator[bytes]]:
        """Open a file. It is read in ranges, each of them a request."""
        import obstore

        with self._explained(name):
            size = obstore.head(self._store, self._key(name))["size"]
        yield self._ranges(name, size)

    def write(self, name: str, chunks: Iterator[bytes], size: int) -> None:
        """Write a file; the store checks the SHA-256 that each request is signed with."""
        import obstore

        with self._explained():
            if size <= PART:
                obstore.put(self._store, self._key(name), b"".join(chunks), use_multipart=False)
                return
            part = max(PART, -(-size // MAX_PARTS))
            obstore.put(self._store, self._key(name), chunks, chunk_size=part, max_concurrency=3)

    def remove(self, name: str) -> None:
        """Remove a file."""
        import obstore

        with self._explained():
            obstore.delete(self._store, self._key(name))

    def close(self) -> None:
        """Connections end with the object."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name) if part)

    def _ranges(self, name: str, size: int) -> Iterator[bytes]:
        import obstore

        for start in range(0, size, PART):
            with self._explained(name):
                chunk = bytes(obstore.get_range(self._store, self._key(name), start=start, end=min(size, start + PART)))
            yield chunk

    def _open(self) -> "S3Store":
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        config: dict[str, Any] = dict(self._credentials)
        if self._endpoint:
            config["endpoint"] = self._endpoint
        if self._region:
            config["region"] = self._region
        plain_http = (self._endpoint or "").startswith("http://")
        try:
            return S3Store(
                self._bucket,
                client_options={"allow_http": plain_http, "timeout": REQUEST_TIMEOUT},
                retry_config={"max_retries": 3, "retry_timeout": RETRY_TIMEOUT},
                **config,
            )
        except (BaseError, ValueError) as error:
            raise UsageError(f"{self.url} cannot be used: {_short(error)}") from error

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._error(str(error), error, name) from error

    def _error(self, text: str, error: Exception, name: str) -> Exception:
        """Turn the store's answer into words. The codes are S3's own, which compatible stores share."""
        if "NoSuchBucket" in text:
            return DestinationError(
                f"there is no bucket {self._bucket} at {self._where}", hint="make it, or correct the URL"
            )
        if isinstance(error, FileNotFoundError):
            return AbsentError(f"there is no {name} at {self.url}")
        if "RequestTimeTooSkewed" in text or "RequestExpired" in text:
            return DestinationError(
                f"{self._where} refuses: this machine's clock and its own differ by more than 15 minutes",
                hint="date -u; set the clock (timedatectl set-ntp true)",
            )
        if any(code in text for code in _CREDENTIALS):
            return DestinationError(
                f"{self._where} does not accept the credentials: {_short(error)}",
                hint="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE in ~/.aws/credentials)",
            )
        return self._refused(text, error)

    def _refused(self, text: str, error: Exception) -> Exception:
        if any(code in text for code in _FULL):
            return DestinationError(
                f"the store {self._where} is full: {_short(error)}",
                hint=f"mistudio-ops backup prune --at '{self.url}'",
            )
        if "without LOCATION" in text or "AuthorizationHeaderMalformed" in text or "PermanentRedirect" in text:
            return DestinationError(
                f"the bucket {self._bucket} is in another region",
                hint="add ?region=REGION to the URL, or set AWS_REGION",
            )
        if "403 Forbidden" in text:
            return DestinationError(
                f"{self._where} refuses access to the bucket {self._bucket}: {_short(error)}",
                hint="the key needs s3:ListBucket, GetObject, PutObject, DeleteObject and AbortMultipartUpload",
            )
        if _MACHINE_ROLE in text:
            return DestinationError(
                f"there are no credentials for {self.url}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials",
            )
        if "HTTP error" in text or any(code in text for code in _AGAIN):
            return UnreachableError(
                f"{self._where} cannot be reached, or the connection was cut: {_short(error)}",
                hint="run it again: what is there already stays",
            )
        return DestinationError(f"{self._where} refuses: {_short(error)}")

    @property
    def _where(self) -> str:
        return self._endpoint or f"S3 ({self._region or 'default region'})"


def _options(parts: SplitResult) -> dict[str, str]:
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if unknown := set(options) - _OPTIONS:
        raise UsageError(
            f"{parts.geturl()}: unknown option {', '.join(sorted(unknown))}",
            hint="s3://bucket/prefix?endpoint=https://host:9000&region=NAME",
        )
    endpoint = options.get("endpoint", "https://")
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"{parts.geturl()}: endpoint must start with https:// or http://")
    return options


def _short(error: Exception) -> str:
    """Return the sentence of an error of obstore's, without the dump of its structures."""
    text = str(error).split("Debug source", 1)[0].strip()
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    message = text.partition("<Message>")[2].partition("</Message>")[0]
    if code:
        return f"{code}: {message}" if message else code
    return " ".join(text.split())[:300]
