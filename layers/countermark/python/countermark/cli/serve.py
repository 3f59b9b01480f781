"""`countermark serve`: serves the HTTP API over this state. Fetches and index builds run in the background."""

import logging
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.errors import CountermarkError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from countermark.cli.scheduler import Scheduler
    from countermark.cli.serving import Serving
    from countermark.local.state import LocalState

BACKLOG = 1_024
"""The maximum number of connections that wait to be accepted. The limit on open files can lower it."""

HEADER_TIMEOUT_S = 30.0
BODY_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 1_000

FIRST_INDEX_S = 5.0
"""If no index exists, the server waits this many seconds for the first one. A small index is built in this time."""

FRESH_INDEX_S = 0.5
"""If an index exists, the server waits this many seconds for an update. After that, it uses the old index."""


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="The port; 0 for a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--keys", is_flag=True, help="Require an API key from every caller: see `countermark key`.")
@click.option(
    "--fetch-every",
    "fetch_every_s",
    type=click.IntRange(min=0),
    default=900,
    show_default=True,
    metavar="SEC",
    help="The interval between fetches of the collaborations; 0 for never.",
)
@click.option(
    "--files",
    "files_directories",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    metavar="DIR",
    help="A directory from which collaborations that were created over the API can read files. Can be repeated; by "
    "default the directories in COUNTERMARK_FILES_DIR, or none.",
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
    help="The maximum time for a connection to send the headers of a request.",
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
    help="The maximum time to send a body or read an answer; longer if faster than 8 KiB per second.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1, max=1_000_000),
    default=MAX_CONNECTIONS,
    show_default=True,
    metavar="N",
    envvar="COUNTERMARK_MAX_CONNECTIONS",
    show_envvar=True,
    help="The maximum number of open connections; fewer if the limit on open files requires it.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    metavar="N",
    envvar="COUNTERMARK_WORKERS",
    show_envvar=True,
    help="How many processes answer requests. Each has the index in memory. With 1, this process answers.",
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
    workers: int,
) -> None:
    """Serve the HTTP API over this state until it is interrupted. Print the address when the server is ready.

    Collaborations are fetched on a schedule, and changes are in the index within seconds. At the start, the server
    answers from the existing index while it brings the index up to date. The routes are described at /openapi/swagger.

    \b
    Examples:
      countermark serve
      countermark serve --port 5000 --host 0.0.0.0 --keys
      countermark serve --files /srv/signals
      countermark serve --workers 4
    """
    from countermark.cli.connections import ConnectionLimits, fit_to_file_limit
    from countermark.cli.scheduler import Scheduler
    from countermark.cli.serving import Serving, check_installed

    share = -(-max_connections // workers)
    wanted = ConnectionLimits(header_s=header_timeout_s, body_s=body_timeout_s, connections=share)
    limits, backlog = fit_to_file_limit(wanted)
    check_installed()
    if files_directories:
        session.files_directories = files_directories
    serving = Serving(host=host, asks_for_keys=keys, limits=limits, backlog=backlog, processes=workers)
    with listening(host, port, backlog=backlog) as listener, session.state() as state:
        log_to_stderr(session)
        signal.signal(signal.SIGTERM, _end)
        session.shows_progress = False
        _advise(session, state, host, asks_for_keys=keys)
        if limits.connections < share:
            session.note(
                f"at most {limits.connections * workers} connections at a time, because the limit on open files of "
                f"{'this process' if workers == 1 else 'each worker'} is low: "
                "raise it (`ulimit -n`) for more"
            )
        scheduler = Scheduler(session, state, fetch_every_s=fetch_every_s or None)
        session.on_event = scheduler.on_event
        serve = _serve_here if workers == 1 else _serve_by_workers
        serve(session, state, serving, scheduler, listener)


def _serve_here(
    session: Session, state: "LocalState", serving: "Serving", scheduler: "Scheduler", listener: socket.socket
) -> None:
    """Serve from this process."""
    import uvicorn

    from countermark.cli.index_watch import IndexWatch
    from countermark.cli.serving import index_reader, server_config, share_memory

    share_memory(1)
    index = index_reader(session, state)
    scheduler.on_round = IndexWatch(session, index).check
    config = server_config(session, state, serving, index=index, start_fetch=scheduler.start_fetch)
    scheduler.start()
    try:
        _announce(state, scheduler, listener)
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        scheduler.stop()


def _serve_by_workers(
    session: Session, state: "LocalState", serving: "Serving", scheduler: "Scheduler", listener: socket.socket
) -> None:
    """Serve from workers. This process updates the index, fetches, and sends opinions for all of them."""
    from countermark.cli.supervisor import Supervisor

    supervisor = Supervisor(session, serving, scheduler)
    scheduler.on_round = supervisor.check_index
    scheduler.start()
    supervisor.start()
    try:
        supervisor.wait_until_ready()
        _announce(state, scheduler, listener)
        supervisor.serve(listener)
    finally:
        listener.close()
        try:
            supervisor.stop()
        finally:
            scheduler.stop()


def _announce(state: "LocalState", scheduler: "Scheduler", listener: socket.socket) -> None:
    """Print the address when an index is ready, or when building it takes too long."""
    scheduler.wait_for_index(FRESH_INDEX_S if _has_index(state) else FIRST_INDEX_S)
    output.print_result(_address(listener))
    output.flush()


def _has_index(state: "LocalState") -> bool:
    try:
        return state.index.manifest_token() is not None
    except CountermarkError:
        return True  # an index exists but cannot be read; each lookup reports the reason


def listening(host: str, port: int, *, backlog: int = BACKLOG) -> socket.socket:
    """Return a socket that is already listening, so that clients can connect as soon as the address is printed.

    Raises:
        InvalidInput: The host is not an address of this machine.
        Unavailable: The port is in use, or this user is not allowed to use it.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidInput(f"cannot listen on {host!r}: it is not an address of this machine") from error
    # Name the protocol, so that asyncio turns off Nagle's algorithm, which delays each answer by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _advise(session: Session, state: "LocalState", host: str, *, asks_for_keys: bool) -> None:
    """Print notes about settings that are allowed but probably not intended."""
    if asks_for_keys and not state.api_keys.keys():
        session.note("there is no API key yet: create one with `countermark key create`")
    from countermark.cli.serving import is_loopback

    if not asks_for_keys and not is_loopback(host):
        session.note(f"any client that reaches {host} can read and change all banks: use --keys to require a key")


def _end(number: int, frame: FrameType | None) -> None:
    """Exit normally, because a service manager stops a server with SIGTERM."""
    del number, frame
    sys.exit(0)


class _OneLineFormatter(logging.Formatter):
    """Formats each failure as one line, with the error id that the client received. `-v` adds the stack trace."""

    def __init__(self, *, shows_stack: bool) -> None:
        super().__init__("%(name)s: %(message)s")
        self._shows_stack = shows_stack

    def format(self, record: logging.LogRecord) -> str:
        stack = getattr(record, "stack", None) if self._shows_stack else None
        return super().format(record) + (f"\n{_printable_lines(stack)}".rstrip() if stack else "")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name in logging
        parts = [f"{key}={value}" for key in ("error", "error_id") if (value := getattr(record, key, None))]
        return output.printable(" ".join([super().formatMessage(record), *parts]))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the name in logging
        return _printable_lines(super().formatException(ei))


def _printable_lines(text: str) -> str:
    return "\n".join(output.printable(line) for line in str(text).split("\n"))


def log_to_stderr(session: Session) -> None:
    """Log warnings and errors to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLineFormatter(shows_stack=session.verbosity > 0))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # uvicorn warns about each request that is not valid HTTP. Any client could fill the disk with such warnings.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
