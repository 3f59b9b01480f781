"""Videos as AVI files of JPEG pictures, made without an encoder of videos."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.signals.photos import photo

MP4 = Path(__file__).parent / "golden" / "scenes.mp4"
"""The frames of `scenes("coffee.png", "astronaut.png", "rocket.jpg")` at five a second, in H.264: made by libx264."""

SIZE = (256, 192)


def scenes(*names: str, size: tuple[int, int] = SIZE) -> list[Image.Image]:
    """Return photos, of one size."""
    return [photo(name).resize(size) for name in names]


def avi(pictures: Sequence[Image.Image], *, seconds_each: int = 1, frame_rate: int = 5, quality: int = 90) -> bytes:
    """Return a video that shows each picture for some seconds; all have the size of the first, unless damage is wanted.

    Source: "AVI RIFF File Reference", Microsoft.
    """
    frames = [_jpeg(picture, quality) for picture in pictures for _ in range(seconds_each * frame_rate)]
    width, height = pictures[0].size
    main = struct.pack("<14I", 1_000_000 // frame_rate, 0, 0, 0x10, len(frames), 0, 1, 0, width, height, 0, 0, 0, 0)
    numbers = (0, 0, 0, 1, frame_rate, 0, len(frames), 0, 0, 0, 0, 0, 0, width, height)
    stream = struct.pack("<4s4s11I4H", b"vids", b"MJPG", *numbers)
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", 3 * width * height, 0, 0, 0, 0)
    header = _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", form))
    pieces = b"".join(_chunk(b"00dc", frame) for frame in frames)
    return _chunk(b"RIFF", b"AVI " + _list(b"hdrl", header) + _list(b"movi", pieces))


def gif(pictures: Sequence[Image.Image], *, seconds_each: int = 1) -> bytes:
    """Return an animation that shows each picture for some seconds."""
    file = io.BytesIO()
    first, *others = [picture.quantize(64) for picture in pictures]
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 * seconds_each, loop=0)
    return file.getvalue()


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _list(name: bytes, content: bytes) -> bytes:
    return _chunk(b"LIST", name + content)
