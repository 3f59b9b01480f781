"""A process that hashes files for `workers`: names of files in, what comes of each out, a line of JSON each.

The first line that it reads says what is wanted, and it answers "ready". An answer of null leaves the file to the
process that asked, which has more memory, or shows the error. When its input ends, it ends at once, with all that it
started.
"""

import json
import os
import queue
import signal
import threading
from pathlib import Path
from typing import BinaryIO


def main() -> None:
    """Hash until the input ends."""
    # What libraries print is for the terminal, as in the process that asks, and nothing reads the input but we.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    setup = json.loads(requests.readline())
    threading.Thread(target=_read, args=(requests, names), daemon=True).start()

    from countermark.cli.content import Complaint, HashOptions, make_hasher, parse_input
    from countermark.cli.session import Session
    from countermark.cli.workers import outcome_json
    from countermark.domain.signal import ContentType
    from countermark.errors import CountermarkError
    from countermark.flows import hash as _  # noqa: F401  # loaded before the first file comes
    from countermark.signals import memory

    # Each process has its part of the memory for decoding; what exceeds that is left to the one that asks.
    share_mb = (memory.process_budget().limit_bytes >> 20) // setup["processes"]
    os.environ[memory.VARIABLE] = str(max(1, share_mb))
    memory.process_budget.cache_clear()
    session = Session(directory=Path(setup["directory"]), is_quiet=True, shows_progress=False)
    wanted = setup["wanted"]
    outcomes = make_hasher(session, HashOptions(**wanted | {"content_type": ContentType(wanted["content_type"])}))
    answer: object = "ready"
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        name = names.get()
        try:
            made = list(outcomes(parse_input(name)))
        except CountermarkError as error:
            made = [Complaint.of(name, error)]
        except Exception:  # noqa: BLE001  # the process that asked hashes it itself, and reports what went wrong
            answer = None
            continue
        needs_memory = any(isinstance(each, Complaint) and each.needs_memory for each in made)
        answer = None if needs_memory else [outcome_json(each) for each in made]


def _read(requests: BinaryIO, names: "queue.SimpleQueue[str]") -> None:
    """Read names until the input ends, which may be while a file is hashed."""
    for line in requests:
        names.put(json.loads(line))
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
