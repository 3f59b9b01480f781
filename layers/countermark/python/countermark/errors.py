"""Every deliberate error of countermark, with its HTTP status and its exit code.

Adapters translate what they catch into this tree on exact codes, `from` the cause. A subclass exists
only where a caller acts differently. Anything that is not a `CountermarkError` is our fault: it
crashes, the event is tried again, and the dead-letter queue keeps it.
"""

from typing import ClassVar


class CountermarkError(Exception):
    """Something that countermark foresees going wrong; its text is fit for a user to read."""

    http_status = 500
    exit_code = 1


class InvalidInput(CountermarkError):
    """What the caller gave is wrong; the text names the value."""

    http_status = 400
    exit_code = 2


class InvalidSignal(InvalidInput):
    """A text is not a signal of its type."""


class InvalidContent(InvalidInput):
    """Bytes are not the content that they are said to be: truncated, hostile or of another format."""


class UnsupportedContent(InvalidContent):
    """Bytes are content of a format, or of a variant of one, that is not read here; the text names it."""


class ContentTooLarge(InvalidContent):
    """Content exceeds a limit on bytes, pixels or frames."""

    http_status = 413


class UnsafeURL(InvalidInput):
    """A URL points where content must not be fetched from: its scheme, its host or a redirect."""


class NotFound(CountermarkError):
    """What was asked for by name or id is not there."""

    http_status = 404
    exit_code = 2


class Conflict(CountermarkError):
    """The state does not allow it: somebody else was first, or holds it now."""

    http_status = 409
    exit_code = 2


class AlreadyExists(Conflict):
    """A name is taken. The status is what HMA's clients expect."""

    http_status = 403


class CursorLost(InvalidInput):
    """A place in the changes of a store that this store never reached: it is another store, or an older copy."""


class PublishConflict(Conflict):
    """Another build published its manifest first; the loser reads it and starts again."""


class LeaseHeld(Conflict):
    """Another run holds the lease of this collaboration: nothing that the caller gave is wrong."""

    exit_code = 3


class LeaseLost(Conflict):
    """The run's own lease expired or was taken over: nothing more may be written under it."""

    exit_code = 3


class Unauthorized(CountermarkError):
    """No API key was given, or one that is not known."""

    http_status = 401
    exit_code = 2


class Forbidden(CountermarkError):
    """The API key is known, but lacks the role."""

    http_status = 403
    exit_code = 2


class Unavailable(CountermarkError):
    """Something outside failed, or is not ready; the same request may succeed later."""

    http_status = 503
    exit_code = 3
    retry_after_s: ClassVar[int | None] = None
    """How long a caller should wait before the same request; None where nothing is known of that."""


class Busy(Unavailable):
    """This process has too much to do at the same time: no room became free in time."""

    retry_after_s: ClassVar[int | None] = 10


class IndexNotReady(Unavailable):
    """No index has been published yet."""


class IndexDamaged(Unavailable):
    """Bytes of the index fail a check. Never answered from; repaired by a full build."""


class ExchangeFailed(Unavailable):
    """An exchange refused, timed out, or answered outside its format.

    `status` is the HTTP status of its answer; None where there was none, or where the status was not at fault.
    """

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class MissingExtra(Unavailable):
    """An optional package is needed and not installed; the text names it."""

    exit_code = 2
