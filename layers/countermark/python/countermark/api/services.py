"""The services that the API uses. The command line or a Lambda handler composes them."""

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
    # These modules import NumPy and urllib3. A Lambda function that only curates does not need them at its start.
    from countermark.extensions.registries import Registries
    from countermark.indexes.shards import IndexProvider
    from countermark.transport.fetch import FetchedContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one request.

    `body_bytes` is the limit of API Gateway (10 MB). Lambda has a lower limit, and Lambda itself answers requests that
    exceed it. The index is stale if no build has found it up to date for more than `index_stale_s` seconds.
    """

    body_bytes: int = 10 * 1024 * 1024
    parts: int = 50
    batch_signals: int = 1_000
    batch_contents: int = MAX_PAGE
    page: int = 1_000
    index_stale_s: int = 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The ports and all other objects that the routes use. None of these objects is global.

    `index` is None in a function that serves no matching routes. `fetch_url` is None if content by URL is not
    supported. `start_fetch` is None if fetches cannot be started. `check_store` raises `Unavailable` if the store has
    disappeared since it was opened. `check_store` is None if the store cannot disappear. `confined_exchanges` check new
    collaborations. If `confined_exchanges` is None, `exchanges` check new collaborations.
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
        """Return the services over these ports, with the installed types.

        Content by URL is fetched from public addresses only.
        """
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
