"""The HTTP API of one process, served by uvicorn. The process is `serve` itself or one of its workers."""

import importlib
import ipaddress
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from countermark.cli.connections import ConnectionLimits, protocol_of
from countermark.cli.session import Session
from countermark.errors import MissingExtra

if TYPE_CHECKING:
    import uvicorn

    from countermark.api.services import Services
    from countermark.indexes.reader import IndexReader
    from countermark.local.state import LocalState

MAX_BODY_BYTES = 50 * 1024 * 1024
"""The maximum size of a request in bytes, equal to the limit for content by URL.

This server has no gateway with a lower limit.
"""

MAX_AGE_S = 1
"""How many seconds the server uses the cached index, banks and ratios before it checks them again.

A change matches within two seconds: this time, the debounce of a build, and the build.
"""

SHUTDOWN_S = 10
"""When the server stops, requests in progress can continue for this many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The settings with which one process serves. `limits` are the connection limits of this process.

    `backlog` is the maximum number of connections that wait to be accepted. `processes` is the number of processes that
    serve the same state. They share the memory for the bodies of requests.
    """

    host: str
    asks_for_keys: bool
    limits: ConnectionLimits
    backlog: int
    processes: int = 1


def check_installed() -> None:
    """Check that all packages that a server needs are installed.

    Raises:
        MissingExtra: A package is missing.
    """
    try:
        for name in ("uvicorn", "httptools", "uvloop"):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"serve needs {error.name}: pip install 'countermark[serve]'") from error


def server_config(
    session: Session,
    state: "LocalState",
    serving: Serving,
    *,
    index: "IndexReader",
    start_fetch: Callable[[str], None],
    on_leave: Callable[[], None] | None = None,
) -> "uvicorn.Config":
    """Return uvicorn's configuration for this process. `on_leave` is called after each connection that ended."""
    import uvicorn

    from countermark.api.asgi import BUFFERED_BODIES, asgi_app
    from countermark.api.same_origin import SameOriginGuard

    services = _services(session, state, index=index, start_fetch=start_fetch, asks_for_keys=serving.asks_for_keys)
    app = asgi_app(services, buffered_bodies=-(-BUFFERED_BODIES // serving.processes))
    return uvicorn.Config(
        app if serving.asks_for_keys else SameOriginGuard(app, loopback_only=is_loopback(serving.host)),
        http=protocol_of(serving.limits, on_leave=on_leave),
        # Use uvloop, because asyncio's default loop logs a line per waiting connection if no more files can be opened.
        loop="uvloop",
        # No route uses WebSockets, even if a library for them is installed.
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=serving.backlog,
        timeout_keep_alive=math.ceil(serving.limits.header_s),
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def share_memory(processes: int) -> None:
    """Limit this process to its share of the memory for decoding. `processes` processes share the memory.

    Also make the process return freed memory to the system.
    """
    from countermark.signals import memory

    memory.give_back_freed_memory()
    if processes > 1:
        share_mb = (memory.process_budget().limit_bytes >> 20) // processes
        os.environ[memory.VARIABLE] = str(max(1, share_mb))
        memory.process_budget.cache_clear()


def index_reader(session: Session, state: "LocalState") -> "IndexReader":
    """Return the reader of the index from which a process answers lookups."""
    from countermark.indexes.reader import IndexReader

    return IndexReader(state.index, session.signal_types(), max_age_s=MAX_AGE_S)


def _services(
    session: Session,
    state: "LocalState",
    *,
    index: "IndexReader",
    start_fetch: Callable[[str], None],
    asks_for_keys: bool,
) -> "Services":
    """Return the services that the routes use."""
    from countermark.api.keys import access_by_keys, open_access
    from countermark.api.services import Limits, Services
    from countermark.flows.cached import BankDirectory

    services = Services.of(
        state,
        session.registries(),
        exchanges=session.exchanges(),
        directory=BankDirectory(state.banks, max_age_s=MAX_AGE_S),
        clock=session.now_s,
        access=access_by_keys(state.api_keys) if asks_for_keys else open_access(session.caller()),
        index=index,
        start_fetch=start_fetch,
    )
    return replace(
        services,
        check_store=state.check,
        confined_exchanges=session.exchanges(is_confined=True),
        limits=Limits(body_bytes=MAX_BODY_BYTES),
    )


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
