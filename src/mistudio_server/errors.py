"""Errors that a user can act on. One place (``problem``) turns them into problem documents, another into exit codes."""

from typing import Any, ClassVar


class StudioError(Exception):
    """Base of every expected failure.

    ``code`` is stable and documented, ``detail`` says what is wrong and why, ``hint`` what to do next, and
    ``errors`` lists offending fields as ``{"field", "value", "message"}``.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, hint: str | None = None, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = errors or []


class NotFoundError(StudioError):
    """The thing named does not exist."""

    code = "not_found"
    status = 404
    title = "Not found"


class ConflictError(StudioError):
    """The thing is in a state that does not allow the request."""

    code = "conflict"
    status = 409
    title = "Conflict"


class InvalidInputError(StudioError):
    """A value is out of range or of the wrong form."""

    code = "invalid_input"
    status = 422
    title = "Invalid input"


class InvalidPathError(InvalidInputError):
    """A path is outside DATA_DIR, is missing, or holds the wrong kind of file."""

    code = "invalid_path"
    title = "Invalid path"


class InvalidDatasetError(InvalidInputError):
    """A dataset's files cannot be used: wrong width, wrong type, NaN, or garbled."""

    code = "invalid_dataset"
    title = "Invalid dataset"


class UnauthenticatedError(StudioError):
    """No token, or one that is unknown, revoked or expired."""

    code = "unauthenticated"
    status = 401
    title = "Authentication required"


class ForbiddenError(StudioError):
    """The token lacks the scope."""

    code = "forbidden"
    status = 403
    title = "Scope missing"


class BodyTooLargeError(StudioError):
    """The request body is over the limit."""

    code = "body_too_large"
    status = 413
    title = "Body too large"


class TrainingUnavailableError(StudioError):
    """The worker side has no torch: extra ``train`` is not installed."""

    code = "training_unavailable"
    status = 503
    title = "Training unavailable"


class DependencyUnavailableError(StudioError):
    """PostgreSQL or Redis does not answer."""

    code = "dependency_unavailable"
    status = 503
    title = "Dependency unavailable"


class LockedError(StudioError):
    """Somebody else does maintenance on the database: a backup, a migration, the archiver."""

    code = "locked"
    status = 409
    title = "Locked"


class InsufficientStorageError(StudioError):
    """The disk has no room for what was asked."""

    code = "insufficient_storage"
    status = 507
    title = "Insufficient storage"
