"""`--photo-preprocess` of `hash` and `match`: turned and mirrored photos, and photos without black borders."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from countermark.signals import decode
from countermark.signals.photo import variants
from tests.cli.conftest import CommandLine
from tests.extensions.peer import PEER, Unavailable, environment, installed
from tests.signals.photos import hash_of_pixels

ROTATIONS = ("ORIGINAL", "ROTATE90", "ROTATE180", "ROTATE270", "FLIPX", "FLIPY", "FLIPPLUS1", "FLIPMINUS1")

# Not the peer's command: it hashes files before all of them is written, and fails on small ones.
PEER_PROGRAM = """
import sys
from pathlib import Path
from threatexchange.content_type.photo import PhotoContent
from threatexchange.signal_type.pdq.signal import PdqSignal
threshold, *names = sys.argv[1:]
for path in map(Path, names):
    for rotation, content in PhotoContent.all_simple_rotations(path.read_bytes()).items():
        print(rotation.name, "pdq", PdqSignal.hash_from_bytes(content))
    print("pdq", PdqSignal.hash_from_bytes(PhotoContent.unletterbox(path, int(threshold))))
"""


@pytest.fixture
def boxed(photo: Callable[[str], Path], home: Path) -> Path:
    """A photo with black bars, which are not quite black."""
    with Image.open(photo("rocket.jpg")) as image:
        bars = Image.new("RGB", (image.width + 60, image.height + 140), (3, 15, 9))
        bars.paste(image, (20, 60))
    bars.save(home / "boxed.png")
    return home / "boxed.png"


def rotated_pdqs(path: Path) -> list[str]:
    """Return what is printed of a photo: the hash of the pixels of each variant, not the quick one of all."""
    pictures = variants(decode.pixels(path.read_bytes()))
    return [f"{name} pdq {hash_of_pixels(np.ascontiguousarray(pixels))[0]}" for name, pixels in pictures.items()]


@pytest.mark.parametrize("threshold", [0, 15, 60])
def test_the_hashes_are_the_peer_s(
    countermark: CommandLine, photo: Callable[[str], Path], boxed: Path, tmp_path: Path, threshold: int
) -> None:
    python = installed(*PEER)
    if isinstance(python, Unavailable):
        pytest.skip(python.reason)
    names = ["boxed.png", "small.bmp", "grey.png"]
    with Image.open(boxed) as image:
        image.resize((90, 70)).save("small.bmp")
        image.convert("L").resize((200, 210)).save("grey.png")
    peer = subprocess.run(
        [str(python), "-c", PEER_PROGRAM, str(threshold), *names],
        env=environment(tmp_path / "state"),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ours: list[str] = []
    for name in names:
        ours += countermark.ok("hash", "photo", "-S", "pdq", "--photo-preprocess", "rotations", name).lines
        ours += countermark.ok(
            "hash", "photo", "-S", "pdq", "--photo-preprocess=unletterbox", "--black-threshold", str(threshold), name
        ).lines
    assert ours == peer.stdout.splitlines()


def test_rotations_are_eight_lines_for_each_photo(countermark: CommandLine, photo: Callable[[str], Path]) -> None:
    rocket, cup = photo("rocket.jpg"), photo("coffee.png")
    ran = countermark.ok("hash", "photo", "-S", "pdq", "--photo-preprocess", "rotations", rocket, cup)
    assert ran.lines == rotated_pdqs(rocket) + rotated_pdqs(cup)
    assert [line.split()[0] for line in ran.lines] == [*ROTATIONS, *ROTATIONS]


def test_the_original_has_the_digests_of_its_file_and_the_others_those_that_are_saved(
    countermark: CommandLine, photo: Callable[[str], Path], home: Path
) -> None:
    rocket = photo("rocket.jpg")
    ran = countermark.ok(
        "hash", "photo", "-S", "photo_md5", "--photo-preprocess", "rotations", "--save-preprocess", "rocket.jpg"
    )
    assert ran.lines[:4] == [
        f"ORIGINAL photo_md5 {hashlib.md5(rocket.read_bytes()).hexdigest()}",
        "Processed image saved to: rocket_ORIGINAL.jpg",
        f"ROTATE90 photo_md5 {hashlib.md5((home / 'rocket_ROTATE90.png').read_bytes()).hexdigest()}",
        "Processed image saved to: rocket_ROTATE90.png",
    ]
    assert (home / "rocket_ORIGINAL.jpg").read_bytes() == rocket.read_bytes()
    with Image.open(rocket) as image, Image.open("rocket_FLIPX.png") as flipped:
        assert np.array_equal(np.asarray(image)[::-1], np.asarray(flipped))
    assert {path.name for path in home.iterdir()} == {
        "rocket.jpg",
        "rocket_ORIGINAL.jpg",
        *(f"rocket_{name}.png" for name in ROTATIONS[1:]),
    }


def test_a_photo_without_its_borders_is_the_photo(
    countermark: CommandLine, photo: Callable[[str], Path], boxed: Path
) -> None:
    plain = countermark.ok("hash", "photo", "-S", "pdq", photo("rocket.jpg")).lines
    arguments = ("hash", "photo", "-S", "pdq", "--photo-preprocess", "unletterbox")
    assert countermark.ok(*arguments, "boxed.png").lines == plain
    assert countermark.ok(*arguments, "--black-threshold", "15", "boxed.png").lines == plain
    assert countermark.ok(*arguments, "--black-threshold", "14", "boxed.png").lines != plain
    assert countermark.ok(*arguments, "-", stdin=boxed.read_bytes()).lines == plain


def test_a_photo_is_saved_without_its_borders_again_and_again(
    countermark: CommandLine, photo: Callable[[str], Path], boxed: Path, home: Path
) -> None:
    arguments = ("hash", "photo", "-S", "pdq", "--photo-preprocess", "unletterbox", "--save-preprocess", boxed)
    for _ in range(2):
        assert countermark.ok(*arguments).lines[1:] == [f"Processed image saved to: {home}/boxed_unletterboxed.png"]
    with Image.open(photo("rocket.jpg")) as image, Image.open("boxed_unletterboxed.png") as saved:
        assert np.array_equal(np.asarray(image), np.asarray(saved))


def test_a_picture_too_plain_to_be_hashed_is_saved_all_the_same(countermark: CommandLine, home: Path) -> None:
    Image.new("RGB", (100, 80), "white").save(home / "plain.png")
    ran = countermark.ok("hash", "photo", "-S", "pdq", "--photo-preprocess=rotations", "--save-preprocess", "plain.png")
    assert ran.lines[1] == "Processed image saved to: plain_ROTATE90.png"
    assert "plain.png ROTATE90: no pdq signal: a quality of 0" in ran.err
    assert (home / "plain_ROTATE90.png").exists()


@pytest.mark.parametrize("how", ["rotations", "unletterbox"])
def test_a_file_that_is_no_photo_is_told_once_and_the_others_are_done(
    countermark: CommandLine, photo: Callable[[str], Path], home: Path, how: str
) -> None:
    (home / "broken.jpg").write_bytes(photo("rocket.jpg").read_bytes()[:5_000])
    ran = countermark(
        "hash", "photo", "--save-preprocess", "--photo-preprocess", how, "broken.jpg", photo("coffee.png")
    )
    assert ran.code == 2
    assert ran.err.count("broken.jpg: a damaged photo") == 1
    assert "coffee_" in ran.out
    assert not list(home.glob("broken_*"))


def test_two_photos_are_never_saved_as_one(countermark: CommandLine, photo: Callable[[str], Path], home: Path) -> None:
    with Image.open(photo("rocket.jpg")) as image:
        image.save(home / "rocket.png")
    ran = countermark(
        "hash", "photo", "--photo-preprocess", "unletterbox", "--save-preprocess", "rocket.jpg", "rocket.png"
    )
    assert ran.code == 2
    assert "two photos would both be saved as rocket_unletterboxed.png" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["video", "--photo-preprocess", "rotations", "a.png"], "--photo-preprocess is for photos, not for video"),
        (["file", "--photo-preprocess", "unletterbox", "a.png"], "--photo-preprocess is for photos, not for file"),
        (["photo", "--photo-preprocess", "sharpen", "a.png"], "is not one of 'unletterbox', 'rotations'"),
        (["photo", "--photo-preprocess", "unletterbox", "--black-threshold", "256", "a.png"], "0<=x<=255"),
        (["photo", "--photo-preprocess", "unletterbox", "--black-threshold", "-1", "a.png"], "0<=x<=255"),
        (["photo", "--save-preprocess", "a.png"], "--save-preprocess needs --photo-preprocess"),
        (["photo", "--save-preprocess", "--photo-preprocess", "rotations", "-"], "standard input is not a file"),
        (["photo", "--save-preprocess", "--photo-preprocess", "rotations", "--", "words"], "after -- is not a file"),
    ],
)
def test_what_cannot_be_preprocessed_is_the_user_s_mistake(
    countermark: CommandLine, photo: Callable[[str], Path], home: Path, arguments: list[str], message: str
) -> None:
    photo("coffee.png").rename(home / "a.png")
    ran = countermark("hash", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_photo_matches_without_the_borders_that_it_was_given(
    countermark: CommandLine, photo: Callable[[str], Path], boxed: Path
) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", photo("rocket.jpg"))
    assert countermark.ok("match", "photo", boxed).out == ""
    assert countermark.ok("match", "photo", "--photo-preprocess", "unletterbox", boxed).lines == [
        "pdq 0 (MINE) POSITIVE_CLASS"
    ]
    arguments = ("match", "photo", "--photo-preprocess", "unletterbox", "--black-threshold", "14", boxed)
    assert countermark.ok(*arguments).out == ""


def test_a_photo_matches_turned_and_without_borders(
    countermark: CommandLine, photo: Callable[[str], Path], boxed: Path
) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", photo("rocket.jpg"))
    with Image.open(boxed) as image:
        image.rotate(90, expand=True).save("turned.png")
    found = countermark.ok("match", "photo", "-R", "--photo-preprocess", "unletterbox", "turned.png").lines
    assert found == ["pdq ROTATE270 0 (MINE) POSITIVE_CLASS"]


def test_rotations_of_match_are_the_same_by_either_option(
    countermark: CommandLine, photo: Callable[[str], Path], home: Path
) -> None:
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", photo("rocket.jpg"))
    with Image.open("rocket.jpg") as image:
        image.rotate(90, expand=True).save("turned.png")
    by_preprocess = countermark.ok("match", "photo", "--photo-preprocess", "rotations", "turned.png").out
    assert by_preprocess == countermark.ok("match", "photo", "-R", "turned.png").out != ""


def test_a_damaged_photo_fails_a_match_after_the_others(
    countermark: CommandLine, photo: Callable[[str], Path], boxed: Path, home: Path
) -> None:
    (home / "broken.jpg").write_bytes(b"no photo")
    countermark.ok("bank", "create", "MINE")
    countermark.ok("bank", "add", "MINE", "photo", "-S", "pdq", photo("rocket.jpg"))
    ran = countermark("match", "photo", "--photo-preprocess", "unletterbox", "broken.jpg", boxed)
    assert (ran.code, ran.lines) == (2, ["pdq 0 (MINE) POSITIVE_CLASS"])
    assert "broken.jpg: not a photo that can be read" in ran.err


def test_signals_cannot_be_turned(countermark: CommandLine, home: Path) -> None:
    (home / "hashes.txt").write_text("0" * 64)
    ran = countermark("match", "photo", "-S", "pdq", "-H", "--photo-preprocess", "unletterbox", "hashes.txt")
    assert ran.code == 2
    assert "--hashes: the files then contain signals" in ran.err


@pytest.mark.parametrize("option", [["-R"], ["--photo-preprocess", "rotations"]])
@pytest.mark.parametrize("content_type", ["text", "video", "url"])
def test_only_photos_are_turned(countermark: CommandLine, content_type: str, option: list[str]) -> None:
    ran = countermark("match", content_type, *option, "--", "words")
    assert ran.code == 2
    assert f"is for photos, not for {content_type}" in ran.err


@pytest.mark.parametrize("is_link", [False, True])
def test_a_picture_is_never_saved_over_a_file_of_the_users(
    countermark: CommandLine, photo: Callable[[str], Path], home: Path, is_link: bool
) -> None:
    photo("rocket.jpg")
    own = home / "own.png"
    own.write_bytes(b"years of work")
    saved = home / "rocket_unletterboxed.png"
    saved.symlink_to(own) if is_link else saved.write_bytes(b"years of work")
    ran = countermark("hash", "photo", "--photo-preprocess", "unletterbox", "--save-preprocess", "rocket.jpg")
    assert (ran.code, "rocket_unletterboxed.png exists already" in ran.err) == (2, True)
    assert own.read_bytes() == saved.read_bytes() == b"years of work"
