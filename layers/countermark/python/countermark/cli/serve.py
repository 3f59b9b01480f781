"""`countermark serve`: the whole HTTP API over this state, with fetch and index on a schedule inside."""

import ipaddress
import logging
import math
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.errors import CountermarkError, InvalidInput, MissingExtra, Unavailable

if TYPE_CHECKING:
    from countermark.api.asgi import AsgiApp
    from countermark.api.own_pages import OwnPages
    from countermark.api.services import Services
    from countermark.cli.scheduler import Scheduler
    from countermark.local.state import LocalState

MAX_BODY_BYTES = 50 * 1024 * 1024
"""The largest request: as large as content that is fetched by URL. No gateway sets a lower limit here."""

MAX_AGE_S = 1
"""How long the server relies on what it read of the index, of banks and of ratios before it looks again, in seconds.

A change matches within two seconds: this, the debounce of a build, and the build.
"""

SHUTDOWN_S = 10
"""How long requests under way may take once the server is told to end."""

BACKLOG = 1_024
"""How many connections may wait to be accepted; fewer once it is known how many files may be open."""

HEADER_TIMEOUT_S = 30.0
BODY_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 1_000

FIRST_INDEX_S = 5.0
"""How long the server waits for the first index where there is none yet: a small one is built by then."""

FRESH_INDEX_S = 0.5
"""How long it waits for an index that is there to be brought up to date; it answers from the old one after that."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--keys", is_flag=True, help="Ask every caller for an API key: see `countermark key`.")
@click.option(
    "--fetch-every",
    "fetch_every_s",
    type=click.IntRange(min=0),
    default=900,
    show_default=True,
    metavar="SEC",
    help="How often to fetch the collaborations; 0 for never.",
)
@click.option(
    "--files",
    "files_directories",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    metavar="DIR",
    help="A directory whose files collaborations made over the API may read. May be given again; none by default, "
    "or those that COUNTERMARK_FILES_DIR names.",
)
@click.option(
    "--header-timeout",
    "header_timeout_s",
    type=click.FloatRange(min=0.1, max=86_400),
    default=HEADER_TIMEOUT_S,
    show_default=True,
    metavar="SEC",
    envvar="COUNTERMARK_HEADER_TIMEOUT",
    show_envvar=True,
    help="How long a connection may take to send the headers of its first or its next request.",
)
@click.option(
    "--body-timeout",
    "body_timeout_s",
    type=click.FloatRange(min=0.1, max=86_400),
    default=BODY_TIMEOUT_S,
    show_default=True,
    metavar="SEC",
    envvar="COUNTERMARK_BODY_TIMEOUT",
    show_envvar=True,
    help="How long a client may take to send a body, or to read an answer; longer if it is faster than 8 KiB a second.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1, max=1_000_000),
    default=MAX_CONNECTIONS,
    show_default=True,
    metavar="N",
    envvar="COUNTERMARK_MAX_CONNECTIONS",
    show_envvar=True,
    help="How many connections are open at a time; fewer where the limit on open files asks for it.",
)
@click.pass_obj
def command(
    session: Session,
    *,
    port: int,
    host: str,
    keys: bool,
    fetch_every_s: int,
    files_directories: tuple[Path, ...],
    header_timeout_s: float,
    body_timeout_s: float,
    max_connections: int,
) -> None:
    """Serve the HTTP API over this state, until it is interrupted. Prints its address once it answers.

    Collaborations are fetched on a schedule, and changes are in the index within seconds. At start it answers from the
    index that there is, and brings it up to date meanwhile. The routes are described at /openapi/swagger.

    \b
    Examples:
      countermark serve
      countermark serve --port 5000 --host 0.0.0.0 --keys
      countermark serve --files /srv/signals
    """
    from countermark.cli.connections import ConnectionLimits, fit_to_open_files, protocol_of
    from countermark.cli.scheduler import Scheduler
    from countermark.signals.memory import give_back_freed_memory

    wanted = ConnectionLimits(header_s=header_timeout_s, body_s=body_timeout_s, connections=max_connections)
    limits, backlog = fit_to_open_files(wanted)
    try:
        import uvicorn

        protocol = protocol_of(limits)
        import uvloop  # noqa: F401  # only to see that it is installed: uvicorn imports it by name
    except ModuleNotFoundError as error:
        raise MissingExtra(f"serve needs {error.name}: pip install 'countermark[serve]'") from error
    if files_directories:
        session.files_directories = files_directories
    with listening(host, port, backlog=backlog) as listener, session.state() as state:
        _log_to_stderr(session)
        signal.signal(signal.SIGTERM, _end)
        session.shows_progress = False
        _advise(session, state, host, asks_for_keys=keys)
        if limits.connections < wanted.connections:
            session.note(
                f"at most {limits.connections} connections at a time, as this process may open few files: "
                "raise its limit (`ulimit -n`) for more"
            )
        give_back_freed_memory()
        scheduler = Scheduler(session, state, fetch_every_s=fetch_every_s or None)
        session.on_event = scheduler.on_event
        config = uvicorn.Config(
            _app(_services(session, state, scheduler, asks_for_keys=keys), host, asks_for_keys=keys),
            http=protocol,
            # Where no more files can be opened, asyncio's own loop logs a line for each connection that waits.
            loop="uvloop",
            # No route has a WebSocket, whatever library for them is installed.
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=backlog,
            timeout_keep_alive=math.ceil(header_timeout_s),
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        scheduler.start()
        try:
            scheduler.wait_for_index(FRESH_INDEX_S if _has_index(state) else FIRST_INDEX_S)
            output.result(_address(listener))
            output.finish()
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            scheduler.stop()


def _has_index(state: "LocalState") -> bool:
    try:
        return state.index.manifest_token() is not None
    except CountermarkError:
        return True  # it is there, and each lookup says why it cannot be read


def _services(session: Session, state: "LocalState", scheduler: "Scheduler", *, asks_for_keys: bool) -> "Services":
    """Return what the routes work with."""
    from countermark.api.keys import access_by_keys, open_access
    from countermark.api.services import Limits, Services
    from countermark.flows.cached import BankDirectory
    from countermark.indexes.reader import IndexReader

    scheduler.index = IndexReader(state.index, session.signal_types(), max_age_s=MAX_AGE_S)
    services = Services.of(
        state,
        session.registries(),
        exchanges=session.exchanges(),
        directory=BankDirectory(state.banks, max_age_s=MAX_AGE_S),
        clock=session.now_s,
        access=access_by_keys(state.api_keys) if asks_for_keys else open_access(session.caller()),
        index=scheduler.index,
        start_fetch=scheduler.start_fetch,
    )
    return replace(
        services,
        check_store=state.check,
        confined_exchanges=session.exchanges(is_confined=True),
        limits=Limits(body_bytes=MAX_BODY_BYTES),
    )


def _app(services: "Services", host: str, *, asks_for_keys: bool) -> "AsgiApp | OwnPages":
    from countermark.api.asgi import asgi_app
    from countermark.api.own_pages import OwnPages

    app = asgi_app(services)
    return app if asks_for_keys else OwnPages(app, loopback_only=_is_loopback(host))


def listening(host: str, port: int, *, backlog: int = BACKLOG) -> socket.socket:
    """Return a socket that listens already: who reads the address may connect at once.

    Raises:
        InvalidInput: The host is no address of this machine.
        Unavailable: The port is taken, or not for this user.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidInput(f"{host!r} is no address to listen at") from error
    # With the protocol named, asyncio turns Nagle's algorithm off: otherwise each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _advise(session: Session, state: "LocalState", host: str, *, asks_for_keys: bool) -> None:
    """Tell of what is allowed, and is hardly meant."""
    if asks_for_keys and not state.api_keys.keys():
        session.note("there is no API key yet: make one with `countermark key create`")
    if not asks_for_keys and not _is_loopback(host):
        session.note(f"whoever reaches {host} may read and change all banks: --keys asks callers for a key")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _end(number: int, frame: FrameType | None) -> None:
    """End like any program that is done: a service manager's SIGTERM is how a server is meant to end."""
    del number, frame
    sys.exit(0)


class _Lines(logging.Formatter):
    """One line for each failure, with the id that its caller was given; with `-v` where it was as well."""

    def __init__(self, *, shows_stack: bool) -> None:
        super().__init__("%(name)s: %(message)s")
        self._shows_stack = shows_stack

    def format(self, record: logging.LogRecord) -> str:
        stack = getattr(record, "stack", None) if self._shows_stack else None
        return super().format(record) + (f"\n{_printable_lines(stack)}".rstrip() if stack else "")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        told = [f"{key}={value}" for key in ("error", "error_id") if (value := getattr(record, key, None))]
        return output.printable(" ".join([super().formatMessage(record), *told]))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # as above
        return _printable_lines(super().formatException(ei))


def _printable_lines(text: str) -> str:
    return "\n".join(output.printable(line) for line in str(text).split("\n"))


def _log_to_stderr(session: Session) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(shows_stack=session.verbosity > 0))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Its warnings are of requests that are no HTTP: strangers would fill the disk with them.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
