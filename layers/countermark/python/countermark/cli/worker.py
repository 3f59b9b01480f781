"""A process that hashes files for `workers`. It reads file names and writes the outcomes, one JSON value per line.

The first line that it reads is the setup, and the answer to that line is "ready". The answer null means that the
requesting process must hash the file itself, because that process has more memory or can report the error. When
standard input ends, this process ends immediately, with all processes that it started.
"""

import json
import os
import queue
import signal
import threading
from pathlib import Path
from typing import BinaryIO


def main() -> None:
    """Hash files until the input ends."""
    # Libraries write to the terminal, as they do in the requesting process. Only this module reads standard input.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    setup = json.loads(requests.readline())
    threading.Thread(target=_read, args=(requests, names), daemon=True).start()

    from countermark.cli.content import Complaint, HashOptions, make_hasher, parse_input
    from countermark.cli.session import Session
    from countermark.cli.workers import outcome_json
    from countermark.domain.signal import ContentType
    from countermark.errors import CountermarkError
    from countermark.flows import hash as _  # noqa: F401  # loaded before the first file arrives
    from countermark.signals import memory

    # The processes share the memory for decoding. The requesting process hashes files that need more than a share.
    share_mb = (memory.process_budget().limit_bytes >> 20) // setup["processes"]
    os.environ[memory.VARIABLE] = str(max(1, share_mb))
    memory.process_budget.cache_clear()
    session = Session(directory=Path(setup["directory"]), is_quiet=True, shows_progress=False)
    options = setup["options"]
    hash_file = make_hasher(session, HashOptions(**options | {"content_type": ContentType(options["content_type"])}))
    answer: object = "ready"
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        name = names.get()
        try:
            file_outcomes = list(hash_file(parse_input(name)))
        except CountermarkError as error:
            file_outcomes = [Complaint.of(name, error)]
        except Exception:  # noqa: BLE001  # the requesting process hashes the file itself and reports the error
            answer = None
            continue
        needs_memory = any(isinstance(each, Complaint) and each.needs_memory for each in file_outcomes)
        answer = None if needs_memory else [outcome_json(each) for each in file_outcomes]


def _read(requests: BinaryIO, names: "queue.SimpleQueue[str]") -> None:
    """Read names until the input ends, even while a file is hashed."""
    for line in requests:
        names.put(json.loads(line))
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
