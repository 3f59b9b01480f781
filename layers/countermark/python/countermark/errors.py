"""All errors that countermark raises deliberately, with their HTTP status and exit code.

Adapters catch the errors of libraries and raise one of these classes instead, chosen by the exact error code. They use
`raise ... from`, so that the cause is kept. A subclass exists only if a caller handles it differently. Any other error
is a bug: it crashes the process, the event is retried, and the event finally goes to the dead-letter queue.
"""

from typing import ClassVar


class CountermarkError(Exception):
    """An error that countermark expects. The text can be shown to a user."""

    http_status = 500
    exit_code = 1


class InvalidInput(CountermarkError):
    """The caller's input is wrong. The text names the wrong value."""

    http_status = 400
    exit_code = 2


class InvalidSignal(InvalidInput):
    """A text is not a valid signal of the stated type."""


class InvalidContent(InvalidInput):
    """Bytes are not valid content of the stated type: they are truncated, hostile, or in another format."""


class UnsupportedContent(InvalidContent):
    """The format of a content, or the variant of the format, is not supported. The text names the format."""


class ContentTooLarge(InvalidContent):
    """Content exceeds a limit on bytes, pixels or frames."""

    http_status = 413


class UnsafeURL(InvalidInput):
    """countermark must not fetch content from a URL, because of its scheme or host, or because of a redirect."""


class NotFound(CountermarkError):
    """The requested object does not exist."""

    http_status = 404
    exit_code = 2


class Conflict(CountermarkError):
    """The current state does not allow the operation, for example because another caller was faster or holds a lock."""

    http_status = 409
    exit_code = 2


class AlreadyExists(Conflict):
    """A name is already in use. HMA's clients expect the status 403 in this case."""

    http_status = 403


class CursorLost(InvalidInput):
    """A cursor is past the last change of this store. Either another store made it, or this store is an older copy."""


class PublishConflict(Conflict):
    """Another build published its manifest first. The caller reads that manifest and starts again."""


class LeaseHeld(Conflict):
    """Another run holds the lease of this collaboration. The caller's input is correct."""

    exit_code = 3


class LeaseLost(Conflict):
    """The lease of this run expired, or another run acquired it. This run must stop writing."""

    exit_code = 3


class Unauthorized(CountermarkError):
    """The request has no API key, or its key is unknown."""

    http_status = 401
    exit_code = 2


class Forbidden(CountermarkError):
    """The API key is known, but does not have the required role."""

    http_status = 403
    exit_code = 2


class Unavailable(CountermarkError):
    """An external service failed, or is not ready. The same request can succeed later."""

    http_status = 503
    exit_code = 3
    retry_after_s: ClassVar[int | None] = None
    """The time in seconds that a caller should wait before it repeats the request; None if the time is not known."""


class Busy(Unavailable):
    """This process has too many requests. None of them finished in time, so this request got no memory."""

    retry_after_s: ClassVar[int | None] = 10


class IndexNotReady(Unavailable):
    """No index has been published yet."""


class IndexDamaged(Unavailable):
    """Bytes of the index fail a check. Lookups never use such bytes. A full build repairs the index."""


class ExchangeFailed(Unavailable):
    """An exchange refused a request, timed out, or sent an answer that is not in the exchange's format.

    `status` is the HTTP status of the answer. It is None if no answer arrived, or if the error has another reason.
    """

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class MissingExtra(Unavailable):
    """An optional package is required here, but is not installed. The text names the package."""

    exit_code = 2
