"""Pictures that are made from photos: turned and mirrored, or without black borders."""

import functools
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar

import click

from countermark.cli.content import InputItem
from countermark.domain.signal import ContentType
from countermark.errors import CountermarkError, InvalidContent, MissingExtra

ROTATIONS, UNLETTERBOX = "rotations", "unletterbox"

_Command = TypeVar("_Command", bound=Callable[..., object])


def options(command: _Command) -> _Command:
    """Add the options of photo processing to a command."""
    threshold = click.option(
        "--black-threshold",
        type=click.IntRange(0, 255),
        default=15,
        show_default=True,
        help="With unletterbox: a pixel is black if no colour exceeds this value.",
    )
    method = click.option(
        "--photo-preprocess",
        type=click.Choice([UNLETTERBOX, ROTATIONS]),
        help="unletterbox: remove the black borders. rotations: use all eight turned and mirrored variants.",
    )
    return method(threshold(command))


def check_photo(content_type: ContentType, option: str) -> None:
    """Check that an option for photos is used with photos.

    Raises:
        click.UsageError: The content type is not photo.
    """
    if content_type != ContentType.PHOTO:
        raise click.UsageError(f"{option} is for photos, not for {content_type}")


def preprocess_items(items: Iterable[InputItem], method: str, *, black_threshold: int) -> Iterator[InputItem]:
    """Yield the pictures that are made from each photo, with one photo in memory at a time.

    For a photo that cannot be decoded, one item is yielded. Opening this item raises the error.
    """
    for each in items:
        yield from _rotate(each) if method == ROTATIONS else [_unletterbox(each, black_threshold)]


def _rotate(item: InputItem) -> Iterator[InputItem]:
    from countermark.signals import decode, photo

    try:
        content = _read(item)
        pictures = photo.variants(decode.pixels(content))
    except CountermarkError as error:
        yield replace(item, open=partial(_raise_error, error), argument=None)
        return
    for name, pixels in pictures.items():
        # Hash the original's own bytes, so that its digests equal the digests that other tools compute.
        is_original = name == "ORIGINAL"
        make = partial(bytes, content) if is_original else partial(photo.as_png, pixels)
        named = replace(item, name=f"{item.name} {name}", variant=name, argument=None)
        yield _in_memory(named, make, suffix=f"_{name}", keeps_extension=is_original)


def _unletterbox(item: InputItem, threshold: int) -> InputItem:
    def make() -> bytes:
        from countermark.signals import decode, photo

        try:
            return photo.as_png(photo.unletterbox(decode.pixels(_read(item)), threshold=threshold))
        except MissingExtra as error:
            raise InvalidContent(str(error)) from error

    return _in_memory(item, make, suffix="_unletterboxed", keeps_extension=False)


def _in_memory(item: InputItem, make: Callable[[], bytes], *, suffix: str, keeps_extension: bool) -> InputItem:
    content = functools.cache(make)
    path = item.path
    return replace(
        item,
        open=lambda: nullcontext(io.BytesIO(content())),
        argument=None,
        path=path and path.with_name(f"{path.stem}{suffix}{path.suffix if keeps_extension else '.png'}"),
    )


def _read(item: InputItem) -> bytes:
    """Return the bytes of a photo. If the photo is too large, return its first bytes, one more than the limit."""
    from countermark.signals.decode import MAX_PHOTO_BYTES

    with item.open() as stream:
        return stream.read(MAX_PHOTO_BYTES + 1)


def _raise_error(error: CountermarkError) -> NoReturn:
    raise error
