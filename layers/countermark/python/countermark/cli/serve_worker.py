"""A worker of `serve --workers`: a process that answers requests on connections that the supervisor accepted.

The worker receives the connections over a socket, each with one byte of data. A byte on standard input means that a
newer index may exist. When standard input ends, the worker answers the requests in progress and ends. So it ends
soon after the process that started it. The worker writes its reports to standard output, one JSON object per line: see
`Reports`.
"""

import asyncio
import json
import os
import queue
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.cli import output
from countermark.cli.connections import ConnectionLimits
from countermark.cli.index_watch import IndexWatch
from countermark.cli.serve import log_to_stderr
from countermark.cli.serving import Serving, index_reader, server_config, share_memory
from countermark.cli.session import Session
from countermark.domain.event import Event, OpinionGiven
from countermark.errors import CountermarkError
from countermark.local.state import LocalState

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn import Server as _UvicornServer
else:
    # uvicorn is an optional package. `worker_server` adds uvicorn's server class as a base class.
    _UvicornServer = object

_CODE = """\
import json, sys
setup = json.loads(sys.argv[1])
sys.path[:] = setup["path"]
from countermark.cli.serve_worker import main
main(setup)
"""

CONNECTIONS_PER_READ = 64
"""The maximum number of new connections that are received before open connections are served again."""


class Reports:
    """The reports of a worker. A thread writes them, so that no caller waits for the reader of the reports.

    Each report is an object with one of these keys:
    - `ready`: whether the worker accepts connections
    - `left`: how many connections have ended so far
    - `changed`: a change that needs a build of the index
    - `opinion`: an opinion to send
    - `fetch`: the name of a collaboration to fetch now
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._closed = 0
        self._is_counting = False
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="countermark-reports", daemon=True)
        self._thread.start()

    def report(self, key: str, value: object) -> None:
        """Write one report, without waiting for the reader."""
        self._lines.put(json.dumps({key: value}).encode() + b"\n")

    def on_leave(self) -> None:
        """Count a connection that ended, in the thread of the server.

        Connections that end together share one report.
        """
        self._closed += 1
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._report_closed)

    def _report_closed(self) -> None:
        self._is_counting = False
        self.report("left", self._closed)

    def on_event(self, event: Event) -> None:
        """Report an event that the process with the scheduler must handle."""
        self.report("opinion" if isinstance(event, OpinionGiven) else "changed", value=True)

    def close(self) -> None:
        """Write the reports that are waiting."""
        self._lines.put(None)
        self._thread.join()

    def _write(self) -> None:
        # An error means that the process that reads the reports has ended.
        with suppress(OSError):
            while (line := self._lines.get()) is not None:
                while line:
                    line = line[os.write(self._descriptor, line) :]


class WorkerServer(_UvicornServer):
    """A uvicorn server over connections that another process has accepted."""

    def __init__(self, config: "Config", channel: socket.socket, reports: Reports) -> None:
        """Create a server that receives connections from a non-blocking channel."""
        super().__init__(config)
        self._channel = channel
        self._reports = reports
        self._connecting: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._channel, self._receive_connections)
        self._reports.report("ready", value=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self._reports.report("ready", value=False)
        await super().shutdown(sockets)

    def _receive_connections(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS_PER_READ):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            if not data:
                loop.remove_reader(self._channel)
                return
            for descriptor in descriptors:
                task = loop.create_task(self._connect(socket.socket(fileno=descriptor)))
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:
            # The client has already disconnected.
            connection.close()
            self._reports.on_leave()

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        protocol_instance: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol_instance


def worker_server(config: "Config", channel: socket.socket, reports: Reports) -> WorkerServer:
    """Return a server that receives connections from a non-blocking channel."""
    import uvicorn

    server: type[WorkerServer] = type("Server", (WorkerServer, uvicorn.Server), {})
    return server(config, channel, reports)


def command_of(session: Session, serving: Serving, *, number: int, channel: int) -> list[str]:
    """Return the command that starts a worker.

    `number` identifies the worker. `channel` is the file descriptor over which the worker receives connections.
    """
    setup = {
        "path": sys.path,
        "directory": str(session.directory.absolute()),
        "verbosity": session.verbosity,
        "is_quiet": session.is_quiet,
        "files_directories": [str(each.absolute()) for each in session.files_directories],
        "serving": asdict(serving),
        "number": number,
        "channel": channel,
    }
    return [sys.executable, "-c", _CODE, json.dumps(setup)]


def main(setup: Mapping[str, Any]) -> None:
    """Serve until standard input ends."""
    # Only the reports go to standard output. Everything that a library prints goes to standard error.
    reports = Reports(os.dup(1))
    os.dup2(2, 1)
    output.configure_streams()
    session = Session(
        directory=Path(setup["directory"]),
        verbosity=setup["verbosity"],
        is_quiet=setup["is_quiet"],
        shows_progress=False,
        files_directories=[Path(each) for each in setup["files_directories"]],
    )
    serving = Serving(**setup["serving"] | {"limits": ConnectionLimits(**setup["serving"]["limits"])})
    name = f"worker {setup['number']}"
    log_to_stderr(session)
    share_memory(serving.processes)
    try:
        with (
            socket.socket(fileno=setup["channel"]) as channel,
            LocalState.open(session.directory, on_event=reports.on_event) as state,
        ):
            channel.setblocking(False)
            index = index_reader(session, state)
            config = server_config(
                session,
                state,
                serving,
                index=index,
                start_fetch=lambda collaboration: reports.report("fetch", collaboration),
                on_leave=reports.on_leave,
            )
            server = worker_server(config, channel, reports)
            watch = IndexWatch(session, index, prefix=f"{name}: ")

            def listen() -> None:
                while os.read(0, 4096):
                    watch.check()
                server.should_exit = True

            threading.Thread(target=listen, name="countermark-input", daemon=True).start()
            server.run(sockets=[])
    except CountermarkError as error:
        session.complain(f"{name}: {error}")
        sys.exit(error.exit_code)
    finally:
        reports.close()
