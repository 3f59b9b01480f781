"""The whole job on real photos, through the command line, as a user would do it: `make demo`.

Everything happens in one directory, `build/demo` in the checkout or the one that is given, and nothing
outside it. Each step says what must come of it; whatever does not ends the demo with exit code 1.
"""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
"""What no command takes, on the slowest machine that we care for."""

EQUAL_LOOKUPS = 20
DIFFERENT_LOOKUPS = 200
HALF = range(72, 129)
"""What counts as half of 200 coins: within 4 sigma, sigma being 7.1."""


class Unexpected(Exception):
    """Something came out otherwise than it must."""


class Terminal:
    """Runs `countermark` in a directory with a state of its own, and shows each command with what came of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._command = Path(sys.executable).with_name("countermark")
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT") if name in os.environ}
        self._environment = {**kept, "COUNTERMARK_STATEDIR": str(directory / "state"), "HOME": str(directory)}

    def title(self, text: str) -> None:
        """Show what the next commands are for."""
        print(f"\n{text}", flush=True)

    def say(self, text: str) -> None:
        """Show what came of a step."""
        print(f"    {text}", flush=True)

    def run(self, *arguments: str, expect: str | None = None, shows_notes: bool = False) -> str:
        """Run a command that must succeed, and return its results; `expect` is what they must be."""
        print(f"  $ countermark {shlex.join(arguments)}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [self._command, *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        took_s = time.monotonic() - started
        notes = done.stderr.splitlines() if shows_notes or done.returncode else []
        for line in [*done.stdout.splitlines(), *notes] or ["(nothing)"]:
            self.say(line if len(line) <= 110 else f"{line[:107]}...")
        print(f"    [{took_s:.2f} s]", flush=True)
        if done.returncode:
            raise Unexpected(f"exit code {done.returncode}, not 0")
        results = done.stdout.rstrip("\n")
        if expect is not None and results != expect:
            raise Unexpected(f"the result must be {expect!r}, not {results!r}")
        return results

    @contextmanager
    def server(self) -> Iterator[str]:
        """Run `countermark serve` on a free port, and give its address."""
        arguments = ("serve", "--port", "0")
        print(f"  $ countermark {shlex.join(arguments)} &", flush=True)
        started = time.monotonic()
        log = self.directory / "serve.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [self._command, *arguments],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                address = process.stdout.readline().strip()
                if not address.startswith("http://127.0.0.1:"):
                    raise Unexpected(f"the server did not start: {log.read_text()}")
                self.say(address)
                print(f"    [{time.monotonic() - started:.2f} s]", flush=True)
                yield address
            finally:
                process.terminate()
                code = process.wait(TIMEOUT_S)
            check(code == 0, f"the server must end with exit code 0, not {code}")


def check(is_so: bool, text: str) -> None:
    """Fail with the text, unless it is so."""
    if not is_so:
        raise Unexpected(text)


def place_photos(directory: Path) -> None:
    """Place the photos of scikit-image's wheel, and copies as uploaders make them."""
    specification = importlib.util.find_spec("skimage")
    if specification is None or specification.origin is None:
        raise Unexpected("scikit-image is not installed: run `make demo`")
    photos = Path(specification.origin).parent / "data"
    for name in ("chelsea.png", "rocket.jpg", "astronaut.png", "coffee.png"):
        shutil.copy(photos / name, directory / name)
    shutil.copy(directory / "chelsea.png", directory / "exact-copy.png")
    with Image.open(directory / "chelsea.png") as cat:
        cat.convert("RGB").resize((cat.width * 2 // 3, cat.height * 2 // 3)).save(
            directory / "smaller-copy.jpg", quality=60
        )
    with Image.open(directory / "astronaut.png") as astronaut:
        astronaut.convert("RGB").save(directory / "astronaut-again.webp", quality=80)


def fetch_from_others(terminal: Terminal) -> None:
    """Configure two collaborations, fetch them, and match what they share."""
    terminal.title("1. Two collaborations: harmless sample signals, and a file that somebody shares")
    terminal.run("config", "collab", "edit", "sample", "Sample Signals", "--create")
    signal = terminal.run("hash", "photo", "-S", "pdq", "astronaut.png")
    (terminal.directory / "shared.txt").write_text(f"# from a friend\n{signal}\n")
    terminal.run("config", "collab", "edit", "local_file", "--filename", "shared.txt", "Shared Signals", "--create")
    terminal.run("config", "collab", "list", expect="sample Sample Signals\nlocal_file Shared Signals")

    terminal.title("2. Fetch them, and match")
    terminal.run("fetch", shows_notes=True)
    terminal.run(
        "match", "text", "--", "bball now?",
        expect="raw_text 100% (Sample Signals) INVESTIGATION_SEED\ntrend_query - (Sample Signals) INVESTIGATION_SEED",
    )  # fmt: skip
    matched = terminal.run("match", "photo", "-S", "pdq", "astronaut-again.webp")
    check("(Shared Signals) INVESTIGATION_SEED" in matched, "the shared photo must match")


def bank_photos(terminal: Terminal) -> str:
    """Bank two photos of the platform's own, build the index, and return the id of the first."""
    terminal.title("3. Bank two photos, and build the index")
    terminal.run("bank", "create", "DEMO_PHOTOS")
    banked = terminal.run("bank", "add", "DEMO_PHOTOS", "photo", "chelsea.png", "rocket.jpg", "--skip-index-rebuild")
    terminal.run("index", shows_notes=True)
    content_ids = list(dict.fromkeys(line.split()[0] for line in banked.splitlines()))
    check(len(content_ids) == 2, "two photos must make two contents")
    return content_ids[0]


def match_uploads(terminal: Terminal) -> None:
    """Hash and match an exact copy, a smaller one of worse quality, and a photo that is not banked."""
    terminal.title("4. Uploads come in: an exact copy, a smaller one of another format, an unrelated photo")
    original = terminal.run("hash", "photo", "chelsea.png")
    terminal.run("hash", "photo", "exact-copy.png", expect=original)
    terminal.run(
        "match", "photo", "exact-copy.png",
        expect="pdq 0 (DEMO_PHOTOS) POSITIVE_CLASS\n"
        "photo_md5 - (DEMO_PHOTOS) POSITIVE_CLASS\nphoto_sha256 - (DEMO_PHOTOS) POSITIVE_CLASS",
    )  # fmt: skip
    near = terminal.run("match", "photo", "smaller-copy.jpg").split()
    check(near[:1] == ["pdq"] and 0 <= int(near[1]) <= 31 and len(near) == 4, "the smaller copy must match by pdq")
    terminal.run("match", "photo", "coffee.png", expect="")


def disable_and_enable(terminal: Terminal, content_id: str) -> None:
    """Disable the content: it matches no more, at once. Enable it: it matches again."""
    terminal.title("5. It was a mistake: disable the content, and enable it again")
    terminal.run("bank", "disable", "DEMO_PHOTOS", content_id)
    terminal.run("match", "photo", "-S", "pdq", "exact-copy.png", expect="")
    terminal.run("bank", "enable", "DEMO_PHOTOS", content_id)
    terminal.run("match", "photo", "-S", "pdq", "exact-copy.png", expect="pdq 0 (DEMO_PHOTOS) POSITIVE_CLASS")


def ramp(terminal: Terminal) -> None:
    """Let the bank match half of all content: always the same half. Ask over HTTP, as a platform would."""
    terminal.title("6. Ramp the bank to 50 %, and ask over HTTP: the same content always gets the same answer")
    signal = terminal.run("hash", "photo", "-S", "pdq", "exact-copy.png").split()[1]
    terminal.run("bank", "enable", "DEMO_PHOTOS", "--ratio", "0.5")
    with terminal.server() as address:

        def is_matched(content_id: str) -> bool:
            query = urllib.parse.urlencode({"signal_type": "pdq", "signal": signal, "content_id": content_id})
            with urllib.request.urlopen(f"{address}/m/lookup?{query}", timeout=TIMEOUT_S) as answer:
                return "DEMO_PHOTOS" in json.load(answer)

        started = time.monotonic()
        for content_id in ("upload-1", "upload-2", "upload-3"):
            answers = {is_matched(content_id) for _ in range(EQUAL_LOOKUPS)}
            check(len(answers) == 1, f"{EQUAL_LOOKUPS} equal lookups must give one answer")
            terminal.say(f"{content_id}: asked {EQUAL_LOOKUPS} times, {'always' if answers.pop() else 'never'} a match")
        matched = sum(is_matched(f"upload-{number}") for number in range(DIFFERENT_LOOKUPS))
        terminal.say(f"{DIFFERENT_LOOKUPS} different uploads: {matched} match")
        terminal.say(f"[{time.monotonic() - started:.2f} s]")
        check(matched in HALF, f"about half of {DIFFERENT_LOOKUPS} must match, not {matched}")


def demo(directory: Path) -> None:
    """Do it all in a directory, which is emptied first."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    terminal = Terminal(directory)
    place_photos(directory)
    fetch_from_others(terminal)
    content_id = bank_photos(terminal)
    match_uploads(terminal)
    disable_and_enable(terminal, content_id)
    ramp(terminal)


def main(arguments: list[str]) -> int:
    """Run the demo, and return the exit code."""
    directory = Path(arguments[0]).resolve() if arguments else ROOT / "build" / "demo"
    started = time.monotonic()
    try:
        demo(directory)
    except Unexpected as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nAll as it should be, in {time.monotonic() - started:.1f} s. The state is in {directory}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
