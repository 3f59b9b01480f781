"""A worker of `serve --workers`: a process that answers the connections it is given.

It gets connections over a socket, one byte with each. On its standard input comes a byte whenever the index may be
newer; when the input ends, it answers the requests under way and ends, so it never outlives the process that started
it for long. On its standard output it reports, one JSON object a line: see `Reports`.
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
from typing import Any

import uvicorn

from countermark.cli import output
from countermark.cli.connections import ConnectionLimits
from countermark.cli.index_watch import IndexWatch
from countermark.cli.serve import log_to_stderr
from countermark.cli.serving import Serving, configured, index_reader, share_memory
from countermark.cli.session import Session
from countermark.domain.event import Event, OpinionGiven
from countermark.errors import CountermarkError
from countermark.local.state import LocalState

_CODE = """\
import json, sys
setup = json.loads(sys.argv[1])
sys.path[:] = setup["path"]
from countermark.cli.serve_worker import main
main(setup)
"""

AT_ONCE = 64
"""How many connections are taken before those that are open are served again."""


class Reports:
    """What a worker reports, each as an object of one key; a thread writes it, so that nobody waits for the reader.

    `ready` is whether it takes connections, `left` how many have ended so far, `changed` that a build has something to
    do, `opinion` that one is to be sent, and `fetch` the name of a collaboration that is to be fetched now.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left = 0
        self._is_counting = False
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="countermark-reports", daemon=True)
        self._thread.start()

    def report(self, key: str, value: object) -> None:
        """Report one thing. Never waits."""
        self._lines.put(json.dumps({key: value}).encode() + b"\n")

    def on_leave(self) -> None:
        """Count a connection that ended, in the server's thread; one report is made for all that end together."""
        self._left += 1
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._report_left)

    def _report_left(self) -> None:
        self._is_counting = False
        self.report("left", self._left)

    def on_event(self, event: Event) -> None:
        """Report an event that the process with the scheduler has to act on."""
        self.report("opinion" if isinstance(event, OpinionGiven) else "changed", value=True)

    def close(self) -> None:
        """Write what is waiting."""
        self._lines.put(None)
        self._thread.join()

    def _write(self) -> None:
        # Once nobody reads, there is nothing to report to.
        with suppress(OSError):
            while (line := self._lines.get()) is not None:
                while line:
                    line = line[os.write(self._descriptor, line) :]


class WorkerServer(uvicorn.Server):
    """uvicorn over connections that another process has accepted."""

    def __init__(self, config: uvicorn.Config, channel: socket.socket, reports: Reports) -> None:
        """Take connections from a channel, which does not wait."""
        super().__init__(config)
        self._channel = channel
        self._reports = reports
        self._joining: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._channel, self._take)
        self._reports.report("ready", value=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self._reports.report("ready", value=False)
        await super().shutdown(sockets)

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(AT_ONCE):
            try:
                some, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            if not some:
                loop.remove_reader(self._channel)
                return
            for descriptor in descriptors:
                task = loop.create_task(self._join(socket.socket(fileno=descriptor)))
                self._joining.add(task)
                task.add_done_callback(self._joining.discard)

    async def _join(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:
            # Its client is gone already.
            connection.close()
            self._reports.on_leave()

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def command_of(session: Session, serving: Serving, *, number: int, channel: int) -> list[str]:
    """Return the command that starts a worker of a number, which is given connections over a descriptor."""
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
    """Serve until the standard input ends."""
    # What is read there are reports, and nothing that a library prints.
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
            config = configured(
                session,
                state,
                serving,
                index=index,
                start_fetch=lambda collaboration: reports.report("fetch", collaboration),
                on_leave=reports.on_leave,
            )
            server = WorkerServer(config, channel, reports)
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
