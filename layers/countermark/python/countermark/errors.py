"""All errors that countermark raises deliberately, with their HTTP status and exit code.

Adapters translate the errors that they catch into these classes by exact codes, with `from` the cause. A subclass
exists only if a caller handles it differently. An error that is not a `CountermarkError` is a bug: it crashes the
process, the event is retried, and the dead-letter queue stores the event.
"""

from typing import ClassVar


class CountermarkError(Exception):
    """An error that countermark expects. Its text can be shown to a user."""

    http_status = 500
    exit_code = 1


class InvalidInput(CountermarkError):
    """The caller's input is wrong. The text names the value."""

    http_status = 400
    exit_code = 2


class InvalidSignal(InvalidInput):
    """A text is not a signal of its type."""


class InvalidContent(InvalidInput):
    """Bytes are not content of the stated type: they are truncated, hostile or of another format."""


class UnsupportedContent(InvalidContent):
    """Bytes are content of a format, or of a variant of a format, that is not supported. The text names it."""


class ContentTooLarge(InvalidContent):
    """Content exceeds a limit on bytes, pixels or frames."""

    http_status = 413


class UnsafeURL(InvalidInput):
    """Content must not be fetched from a URL, because of its scheme, its host or a redirect."""


class NotFound(CountermarkError):
    """The requested object does not exist."""

    http_status = 404
    exit_code = 2


class Conflict(CountermarkError):
    """The current state does not allow the operation: another caller was first, or holds the object now."""

    http_status = 409
    exit_code = 2


class AlreadyExists(Conflict):
    """A name is already in use. The status is the one that HMA's clients expect."""

    http_status = 403


class CursorLost(InvalidInput):
    """A cursor is past the last change of this store. It is of another store, or this store is an older copy."""


class PublishConflict(Conflict):
    """Another build published its manifest first. The caller reads that manifest and starts again."""


class LeaseHeld(Conflict):
    """Another run holds the lease of this collaboration. The caller's input is correct."""

    exit_code = 3


class LeaseLost(Conflict):
    """The lease of this run expired or was taken over. The run must not write anything more."""

    exit_code = 3


class Unauthorized(CountermarkError):
    """The request has no API key, or an unknown one."""

    http_status = 401
    exit_code = 2


class Forbidden(CountermarkError):
    """The API key is known, but lacks the role."""

    http_status = 403
    exit_code = 2


class Unavailable(CountermarkError):
    """An external service failed, or is not ready. The same request can succeed later."""

    http_status = 503
    exit_code = 3
    retry_after_s: ClassVar[int | None] = None
    """How long a caller should wait before sending the same request again, in seconds; None if this is not known."""


class Busy(Unavailable):
    """This process has too many requests, and none of them finished in time to make space for this one."""

    retry_after_s: ClassVar[int | None] = 10


class IndexNotReady(Unavailable):
    """No index has been published yet."""


class IndexDamaged(Unavailable):
    """Bytes of the index fail a check. Lookups never use them; a full build repairs the index."""


class ExchangeFailed(Unavailable):
    """An exchange refused, timed out, or sent an answer that is not in its format.

    `status` is the HTTP status of the answer. It is None if there was no answer, or if the status was not the reason.
    """

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class MissingExtra(Unavailable):
    """A required optional package is not installed. The text names it."""

    exit_code = 2
