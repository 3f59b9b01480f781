"""The budget of memory that all decoding of a process shares."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from countermark.errors import Busy, ContentTooLarge, InvalidContent, InvalidInput
from countermark.signals import decode, memory, pdq
from tests.signals.photos import photo, saved

PHOTO = saved(photo("coffee.png"), "JPEG")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[memory.Budget]:
    """A budget that holds one of our photos at a time, and does not wait."""
    budget = memory.Budget(4 << 20, max_wait_s=0.05)
    monkeypatch.setattr(decode, "process_budget", lambda: budget)
    yield budget
    assert budget.taken_bytes == 0


def test_what_fits_is_taken_at_once_and_what_does_not_waits_for_it() -> None:
    budget = memory.Budget(100, max_wait_s=60)
    first = budget.take(70)
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(budget.take(50)))
    waiting.start()
    assert budget.taken_bytes == 70
    first.shrink(50)
    waiting.join(60)
    assert budget.taken_bytes == 100
    first.release()
    first.release()
    assert budget.taken_bytes == 50
    taken.clear()
    assert budget.taken_bytes == 0


def test_small_content_does_not_overtake_large_content_for_ever() -> None:
    budget = memory.Budget(100, max_wait_s=60)
    first = budget.take(60)
    order: list[str] = []
    started = threading.Event()

    def take(name: str, size: int) -> None:
        started.set()
        lease = budget.take(size)
        order.append(name)
        lease.release()

    large = threading.Thread(target=take, args=("large", 90))
    large.start()
    started.wait(60)
    while not budget._waiting:
        pass
    small = threading.Thread(target=take, args=("small", 30))
    small.start()
    while len(budget._waiting) < 2:
        pass
    assert order == []
    first.release()
    large.join(60)
    small.join(60)
    assert order == ["large", "small"]


def test_what_never_fits_is_too_large_and_what_does_not_fit_in_time_is_busy() -> None:
    budget = memory.Budget(3 << 20, max_wait_s=0.01)
    with pytest.raises(ContentTooLarge, match="4 MiB of memory, more than the 3 MiB"):
        budget.take((3 << 20) + 1)
    lease = budget.take(3 << 20)
    with pytest.raises(Busy, match=r"no memory was free for 0\.01 seconds"):
        budget.take(1)
    lease.release()
    assert budget.taken_bytes == 0


def test_many_threads_never_take_more_than_there_is() -> None:
    budget = memory.Budget(1000, max_wait_s=60)
    most = []

    def work(size: int) -> None:
        for _ in range(50):
            lease = budget.take(size)
            most.append(budget.taken_bytes)
            lease.release()

    threads = [threading.Thread(target=work, args=(size,)) for size in (1000, 700, 300, 300, 10, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 300
    assert max(most) <= 1000
    assert budget.taken_bytes == 0


def test_decoding_takes_memory_and_the_picture_keeps_that_of_its_pixels(small: memory.Budget) -> None:
    picture = decode.picture(PHOTO)
    assert small.taken_bytes == 4 * picture.rows * picture.columns
    del picture
    assert small.taken_bytes == 0


def test_decoding_that_fails_gives_its_memory_back(small: memory.Budget) -> None:
    for damaged in (PHOTO[: len(PHOTO) // 5], PHOTO[:-2000][:400], saved(Image.new("L", (9, 9)), "PNG")[:-30]):
        with pytest.raises(InvalidContent):
            decode.picture(damaged)
        assert small.taken_bytes == 0


def test_a_photo_waits_for_memory_and_then_there_is_none(small: memory.Budget) -> None:
    held = small.take(3 << 20)
    hasher = pdq.PDQ.hasher()
    hasher.update(PHOTO)
    with pytest.raises(Busy):
        hasher.finish()
    held.release()
    assert isinstance(pdq.from_content(PHOTO), str)


def test_a_photo_that_needs_more_than_the_whole_budget_is_too_large(small: memory.Budget) -> None:
    with pytest.raises(ContentTooLarge, match=memory.VARIABLE):
        decode.picture(saved(photo("coffee.png").resize((1500, 1500)), "JPEG"))


@pytest.fixture
def fresh() -> Iterator[None]:
    memory.process_budget.cache_clear()
    yield
    memory.process_budget.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_the_budget_is_half_of_the_least_memory_or_what_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    assert memory.process_budget().limit_bytes == 64 << 20
    memory.process_budget.cache_clear()
    monkeypatch.setenv(memory.VARIABLE, "900")
    assert memory.process_budget().limit_bytes == 900 << 20
    for wrong in ("", "0", "-3", "1.5", "2 GB"):
        memory.process_budget.cache_clear()
        monkeypatch.setenv(memory.VARIABLE, wrong)
        with pytest.raises(InvalidInput, match=memory.VARIABLE):
            memory.process_budget()


def webp(width: int, height: int) -> bytes:
    """Return a WebP of 34 bytes and of one colour, as large as its header says."""
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + bits.to_bytes(4, "little") + b"\x88\x88\x08"
    data += b"\x00" * (14 - len(data))
    return b"RIFF" + (12 + len(data)).to_bytes(4, "little") + b"WEBPVP8L" + len(data).to_bytes(4, "little") + data


def test_a_webp_of_34_bytes_is_refused_before_it_takes_memory() -> None:
    content = webp(9459, 9459)
    assert len(content) == 34
    with pytest.raises(ContentTooLarge, match=r"WebP of this kind has at most .* pixels, not 9459 x 9459"):
        decode.picture(content)


@pytest.mark.parametrize("kind", ["VP8X", "VP8 "])
def test_a_canvas_of_a_webp_that_lies_is_refused_before_it_takes_memory(kind: str) -> None:
    content = bytearray(
        saved(photo("coffee.png"), "WEBP", save_all=kind == "VP8X", append_images=[photo("coffee.png").rotate(180)])
    )
    if kind == "VP8X":
        content[24:30] = (16_000).to_bytes(3, "little") * 2
    else:
        at = content.index(b"\x9d\x01\x2a") + 3
        content[at : at + 4] = (16_000).to_bytes(2, "little") * 2
    with pytest.raises(ContentTooLarge):
        decode.picture(bytes(content))


DECODES_IN_THREADS = """
import re, sys, threading
from pathlib import Path

from countermark.signals import decode, memory

if sys.argv[1] == "with":
    memory.give_back_freed_memory()
content = sys.stdin.buffer.read()
everybody = threading.Barrier(7)
kept = []

def hash_some():
    for _ in range(3):
        picture = decode.picture(content)
        # As an answer does, something small outlives the pixels, and lies behind them.
        kept.append([bytes(2000) for _ in range(100)])
        del picture
    everybody.wait()
    everybody.wait()

threads = [threading.Thread(target=hash_some) for _ in range(6)]
[thread.start() for thread in threads]
everybody.wait()
print(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
everybody.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_was_freed_does_not_stay_with_each_thread() -> None:
    content = saved(photo("coffee.png").resize((3000, 3000)), "WEBP", quality=50)
    kept_kb = {}
    for how in ("with", "without"):
        command = [sys.executable, "-c", DECODES_IN_THREADS, how]
        ran = subprocess.run(command, input=content, capture_output=True, timeout=120, check=True)
        kept_kb[how] = int(ran.stdout)
    # Pixels take 36 MB in each thread.
    assert kept_kb["with"] < 150_000
    assert kept_kb["with"] <= kept_kb["without"]
