"""Runs the commands that a page of the documentation shows, in order, and compares what they print.

A `console` block holds commands after `$ `, each followed by exactly what it prints to standard output. In an `sh`
block only `countermark serve` runs: in the background, on a free port, until the page ends. A `python` or `text` block
is a file where the line before it is a comment: `<!-- file: NAME -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "docs" / "samples"
TIMEOUT_S = 120

_BLOCK = re.compile(
    r"(?:^<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code on a page: its language, its text, and the name of the file that it shows, if any."""

    language: str
    text: str
    file: str | None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of code of a page, in order."""
    return [
        Block(language=found["language"], text=found["text"], file=found["file"])
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a `console` block, each with the output that the page shows; `\\` continues a command."""
    steps: list[list[str]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append([line.removeprefix("$ "), ""])
        elif steps and not steps[-1][1] and steps[-1][0].endswith("\\\n"):
            steps[-1][0] += line
        else:
            steps[-1][1] += line
    for command, output in steps:
        yield command.strip(), output


class Desk:
    """A directory as a reader has it: the sample files, a state of its own, and the servers that the page starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(SAMPLES, directory / "docs" / "samples")
        (directory / "build").mkdir()
        self._environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COUNTERMARK_STATEDIR": str(directory / "state"),
            "HOME": str(directory),
            "PYTHONPATH": str(directory),
        }
        self._ports: dict[str, str] = {}
        self._servers = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def follow(self, page: Path) -> int:
        """Do what the page says; returns how many commands ran."""
        count = 0
        for block in blocks(page):
            if block.file is not None:
                (self.directory / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "console":
                for command, expected in commands(block):
                    self.run(command, expected)
                    count += 1
            elif block.language == "sh":
                for line in block.text.splitlines():
                    if served := re.fullmatch(r"countermark serve --port (\d+)(.*)", line):
                        self._serve(*served.groups())
                        count += 1
        return count

    def run(self, command: str, expected: str) -> None:
        """Run a command; it must succeed, and print what is expected."""
        for shown, port in self._ports.items():
            command = command.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        # curl ends no line, and a page can only show whole ones.
        printed = done.stdout + "\n" if done.stdout and not done.stdout.endswith("\n") else done.stdout
        assert (done.returncode, printed) == (0, expected), f"{command}\n{printed}{done.stderr}"

    def _serve(self, port: str, flags: str) -> None:
        log = self._servers.enter_context((self.directory / "serve.log").open("w"))
        process = self._servers.enter_context(
            subprocess.Popen(
                ["bash", "-c", f"exec countermark serve --port 0{flags}"],
                cwd=self.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        )
        self._servers.callback(process.kill)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (self.directory / "serve.log").read_text()
        self._ports[port] = address.rpartition(":")[2]


def first_words(page: Path) -> Mapping[str, str]:
    """Return the first words of the lines of a page's `sh` blocks, which do not run here, each with such a line."""
    lines = (line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines())
    return {line.split()[0]: line for line in lines if line and not line.startswith((" ", "#"))}
