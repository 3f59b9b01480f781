"""Extensions of python-threatexchange itself: added, fetched, banked, indexed and matched by the command line."""

import json
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.extensions.peer import PDFMINER, PEER, TLSH, Unavailable, compiled_vpdq, environment, installed
from tests.signals.photos import photo, saved
from tests.signals.videos import MP4, avi, gif, scenes

LONG = "The quick brown fox jumps over the lazy dog and then some more words to make it long enough for a hash"
STAND_IN = Path(__file__).parent / "stand_in"
"""What the compiled part of vpdq offers to those who only compare: its modules need it to be there."""


class Peer:
    """Runs `countermark` in the environment of the peer."""

    def __init__(self, python: Path, home: Path, paths: Sequence[Path]) -> None:
        self._python = python
        self.home = home
        self._environ = dict(environment(home / "state", *paths))

    def __call__(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(self._python), "-m", "countermark", *arguments]
        environ = self._environ | ({"PEER_LIST_TOKEN": token} if token else {})
        done = subprocess.run(command, cwd=self.home, env=environ, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *arguments: str, token: str = "") -> list[str]:
        """Run what must succeed, and return its lines."""
        done = self(*arguments, token=token)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


def peer(home: Path, *packages: str, paths: Sequence[Path] = ()) -> Peer:
    """Return the peer, with packages more; skips where they cannot be had."""
    for package in packages:
        if isinstance(added := installed(package), Unavailable):
            pytest.skip(added.reason)
    python = installed(*PEER)
    if isinstance(python, Unavailable):
        pytest.skip(python.reason)
    return Peer(python, home, paths)


def test_text_tlsh_is_hashed_fetched_indexed_and_matched(tmp_path: Path) -> None:
    run = peer(tmp_path, TLSH)
    assert run.ok("config", "extensions", "add", "threatexchange.extensions.tlsh") == [
        "Signal:",
        "  text_tlsh - TextTLSHSignal",
    ]
    assert "text_tlsh threatexchange.extensions.tlsh.text_tlsh.TextTLSHSignal" in run.ok("config", "signal")
    [hashed] = run.ok("hash", "text", "-S", "text_tlsh", "--", LONG)
    assert hashed.startswith("text_tlsh T1")
    (tmp_path / "signals.txt").write_text(f"{hashed}\ntext_tlsh T1nonsense\n")
    run.ok("config", "collab", "edit", "local_file", "--filename", "signals.txt", "Listed", "--create")
    assert "1 changed, 1 malformed" in run("fetch").stderr
    assert run.ok("match", "text", "--", LONG) == ["text_tlsh 0 (Listed) INVESTIGATION_SEED"]
    [near] = run.ok("match", "text", "--", f"{LONG} indeed")
    assert 0 < int(near.split()[1]) <= 30
    assert (
        run.ok("match", "text", "--", "Something else altogether, of about the same length, says nothing of foxes.")
        == []
    )
    # Too short a text has no hash, which is no failure.
    assert "makes no signal of this content" in run("hash", "text", "-S", "text_tlsh", "--", "short").stderr
    # Its examples are shared by the sample exchange, but for the one that is empty.
    run.ok("config", "collab", "edit", "sample", "Samples", "--create")
    run.ok("fetch")
    assert "text_tlsh: 2" in run.ok("dataset")


def test_an_exchange_of_the_peer_is_fetched_resumed_and_told_with_its_opinions(tmp_path: Path) -> None:
    run = peer(tmp_path)
    updates = tmp_path / "updates"
    updates.mkdir()

    def update(number: int, *changes: object) -> None:
        (updates / f"{number}.json").write_text(json.dumps(changes))

    assert run.ok("config", "extensions", "add", "peer_list") == [
        "Exchange:",
        "  peer_list - PeerListSignalExchangeAPI",
    ]
    run.ok("config", "collab", "edit", "peer_list", "--directory", str(updates), "Peers", "--create")
    update(1, ["raw_text", "known words", [[2, ["spam", "bot"], False]]], ["raw_text", "other words", [[0, [], True]]])
    update(2, ["nonsense", "x", []], ["pdq", "no hash", []])

    refused = run("fetch")
    assert (refused.returncode, "peer_list needs credentials" in refused.stderr) == (3, True)
    refused = run("fetch", token="wrong")
    assert refused.returncode == 3
    assert "wrong" not in refused.stderr.replace("in the wrong", "")
    run.ok("fetch", token="token-1")
    assert run.ok("match", "text", "--", "known words") == ["raw_text 100% (Peers) POSITIVE_CLASS bot,spam"]
    # What is mine and negative is not banked.
    assert run.ok("match", "text", "--", "other words") == []

    update(3, ["raw_text", "known words", None], ["raw_text", "new words", [[2, [], False], [0, [], False]]])
    again = run("fetch", token="token-1")
    assert "1 changed, 1 removed" in again.stderr, again.stderr
    assert run.ok("match", "text", "--", "known words") == []
    assert run.ok("match", "text", "--", "new words") == ["raw_text 100% (Peers) DISPUTED"]
    assert "Up to date\n" in run("fetch", token="token-1").stderr


def vpdq_signal(*hashes: str) -> str:
    """Return frames as vpdq writes them: hash, quality, second."""
    return json.dumps([f"{digits},100,{second}.0" for second, digits in enumerate(hashes)])


FRAMES = [f"{number:04x}" * 16 for number in (1, 0x0F0F, 0x3333, 0x5555, 0x9999)]


def test_vpdq_signals_are_fetched_indexed_and_matched(tmp_path: Path) -> None:
    run = peer(tmp_path, paths=[STAND_IN])
    assert run.ok("config", "extensions", "add", "threatexchange.extensions.vpdq.manifest") == [
        "Signal:",
        "  vpdq - VPDQSignal",
    ]
    (tmp_path / "signals.txt").write_text(f"vpdq {vpdq_signal(*FRAMES)}\nvpdq []\nvpdq {{\n")
    run.ok("config", "collab", "edit", "local_file", "--filename", "signals.txt", "Videos", "--create")
    # One without frames cannot be compared: it is no signal, or each lookup would fail on it.
    assert "1 changed, 2 malformed" in run("fetch").stderr
    for frames, expected in (
        (FRAMES, ["vpdq 100%[100%] (Videos) INVESTIGATION_SEED"]),
        (FRAMES[:2], ["vpdq 100%[40%] (Videos) INVESTIGATION_SEED"]),  # a part of the video is known
        ([*FRAMES[:2], "f00f" * 16], []),  # a third of the query is not
    ):
        (tmp_path / "asked.txt").write_text(vpdq_signal(*frames))
        assert run.ok("match", "video", "-H", "-S", "vpdq", "asked.txt") == expected


def peer_with_vpdq(home: Path) -> Peer:
    """Return the peer with the compiled package vpdq; skips where it cannot be had."""
    directory = compiled_vpdq()
    if isinstance(directory, Unavailable):
        pytest.skip(directory.reason)
    return peer(home, paths=[directory])


def test_a_video_is_hashed_banked_and_found_again_in_other_formats(tmp_path: Path) -> None:
    run = peer_with_vpdq(tmp_path)
    run.ok("config", "extensions", "add", "threatexchange.extensions.vpdq.manifest")
    shown = ("coffee.png", "astronaut.png", "rocket.jpg")
    (tmp_path / "banked.avi").write_bytes(avi(scenes(*shown)))
    (tmp_path / "copy.gif").write_bytes(gif(scenes(*shown, size=(160, 120))))
    (tmp_path / "part.avi").write_bytes(avi(scenes(*shown[:2]), quality=30))
    (tmp_path / "other.avi").write_bytes(avi(scenes("coffee.png", "cell.png")))
    [hashed] = run.ok("hash", "video", "-S", "vpdq", "banked.avi")
    frames = json.loads(hashed.removeprefix("vpdq "))
    assert [frame.split(",")[1:] for frame in frames] == [["100", "0.0"], ["100", "1.0"], ["100", "2.0"]]
    run.ok("bank", "create", "VIDEOS")
    run.ok("bank", "add", "VIDEOS", "video", "banked.avi")
    for name, shares in ((str(MP4), "100%[100%]"), ("copy.gif", "100%[100%]"), ("part.avi", "100%[67%]")):
        assert run.ok("match", "video", "-S", "vpdq", name) == [f"vpdq {shares} (VIDEOS) POSITIVE_CLASS"]
    assert run.ok("match", "video", "-S", "vpdq", "other.avi") == []


def test_vpdq_says_that_a_video_cannot_be_hashed(tmp_path: Path) -> None:
    run = peer_with_vpdq(tmp_path)
    run.ok("config", "extensions", "add", "threatexchange.extensions.vpdq.manifest")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    done = run("hash", "video", "-S", "vpdq", "broken.mp4")
    assert done.returncode == 2
    assert "no vpdq signal" in done.stderr


def pdf(*pages: str) -> bytes:
    """Return a PDF with a line of text on each page. Source: ISO 32000-1, annex H.3."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, line in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET"
        fonts = f"/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {fonts} >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
        ]
    made = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(made))
        made += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return made + f"{end}startxref\n{len(made)}\n%%EOF\n".encode()


def test_the_peers_extension_that_brings_nothing_but_pdf_finds_the_text_of_pdfs(tmp_path: Path) -> None:
    run = peer(tmp_path, PDFMINER)
    assert run.ok("config", "extensions", "add", "threatexchange.extensions.pdf") == ["Content:", "  pdf - PDFContent"]
    assert "pdf threatexchange.extensions.pdf.content.PDFContent" in run.ok("config", "content")
    (tmp_path / "leaflet.pdf").write_bytes(pdf("buy pills now"))
    (tmp_path / "without_suffix").write_bytes(pdf("buy pills now"))
    assert run.ok("hash", "pdf", "leaflet.pdf", "-S", "raw_text") == ["raw_text buy pills now"]
    run.ok("bank", "create", "SPAM")
    run.ok("bank", "add", "SPAM", "pdf", "leaflet.pdf", "-S", "raw_text")
    assert run.ok("match", "text", "--", "Buy pills, now!") == ["raw_text 100% (SPAM) POSITIVE_CLASS"]
    for kind, name in (("pdf", "leaflet.pdf"), ("pdf", "without_suffix"), ("file", "leaflet.pdf")):
        assert run.ok("match", kind, name) == ["raw_text 100% (SPAM) POSITIVE_CLASS"]
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing of it")
    done = run("hash", "pdf", "broken.pdf")
    assert (done.returncode, "broken.pdf: not opened in full: the parts of pdf cannot be read" in done.stderr) == (
        2,
        True,
    )


def test_an_extension_of_the_peer_brings_content_types_and_signal_types_of_them(tmp_path: Path) -> None:
    run = peer(tmp_path)
    assert run.ok("config", "extensions", "add", "peer_album") == [
        "Signal:",
        "  album_digest - AlbumDigestSignal",
        "Content:",
        "  album - AlbumContent",
    ]
    with zipfile.ZipFile(tmp_path / "inner.album", "w") as archive:
        archive.writestr("a.txt", "words of the inner album")
    with zipfile.ZipFile(tmp_path / "outer.album", "w") as archive:
        archive.write(tmp_path / "inner.album", "inner.album")
        archive.writestr("a.png", saved(photo("coffee.png").resize((256, 256)), "PNG"))
        archive.writestr("b.txt", "words of the outer album")
    assert [line.split(" ", 1)[0] for line in run.ok("hash", "album", "outer.album")] == [
        "album_digest",
        "album_digest",
        "raw_text",
        "pdq",
        "photo_md5",
        "photo_sha256",
        "raw_text",
    ]
    assert run.ok("hash", "album", "outer.album", "-S", "raw_text") == [
        "raw_text words of the inner album",
        "raw_text words of the outer album",
    ]
    run.ok("bank", "create", "ALBUMS")
    run.ok("bank", "add", "ALBUMS", "album", "inner.album", "-S", "album_digest")
    assert run.ok("match", "album", "outer.album") == ["album_digest - (ALBUMS) POSITIVE_CLASS"]
