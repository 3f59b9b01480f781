"""What the API needs of the outside, built by a composition root: the command line, or a Lambda handler."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from countermark.api.keys import Access
from countermark.domain.content import ContentTypes
from countermark.domain.exchange import Exchange
from countermark.domain.signal import SignalType
from countermark.domain.stores import MAX_PAGE, Ports
from countermark.flows.cached import BankDirectory

if TYPE_CHECKING:
    # They bring NumPy and urllib3, which a function that only curates does not start with.
    from countermark.extensions.registries import Registries
    from countermark.indexes.shards import IndexProvider
    from countermark.transport.fetch import FetchedContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may ask for.

    `body_bytes` is what API Gateway takes (10 MB); Lambda takes less, and answers itself beyond that.
    `index_stale_s` is how long ago a build may last have found the index current.
    """

    body_bytes: int = 10 * 1024 * 1024
    parts: int = 50
    batch_signals: int = 1_000
    batch_contents: int = MAX_PAGE
    page: int = 1_000
    index_stale_s: int = 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The ports, and what else the routes work with; nothing of it is global.

    `index` is None in a function that serves no route that matches, `fetch_url` is None where content by URL is not
    offered, `start_fetch` is None where no fetch can be started. `check_store` raises `Unavailable` where the store has
    gone since it was opened; None where that cannot happen. `confined_exchanges` are those that collaborations made
    here are checked against; None where every exchange will do.
    """

    ports: Ports
    signal_types: Mapping[str, SignalType]
    exchanges: Mapping[str, Exchange]
    directory: BankDirectory
    clock: Callable[[], int]
    access: Access
    index: "IndexProvider | None" = None
    fetch_url: "Callable[[str], FetchedContent] | None" = None
    start_fetch: Callable[[str], None] | None = None
    check_store: Callable[[], None] | None = None
    confined_exchanges: Mapping[str, Exchange] | None = None
    content_types: ContentTypes = field(default_factory=ContentTypes)
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(
        cls,
        ports: Ports,
        installed: "Registries",
        *,
        exchanges: Mapping[str, Exchange],
        directory: BankDirectory,
        clock: Callable[[], int],
        access: Access,
        index: "IndexProvider | None",
        start_fetch: Callable[[str], None],
    ) -> Self:
        """Return the services over these ports, with what is installed; content by URL comes from public addresses."""
        from countermark.transport.fetch import URLFetcher

        return cls(
            ports=ports,
            signal_types=installed.signal_types,
            content_types=installed.content_types,
            exchanges=exchanges,
            directory=directory,
            clock=clock,
            access=access,
            index=index,
            fetch_url=URLFetcher().fetch,
            start_fetch=start_fetch,
        )
