"""`countermark hash`: content in, signals out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from countermark.cli import deployment as deployments
from countermark.cli import output, preprocess
from countermark.cli.content import (
    ContentCommand,
    InputItem,
    Piece,
    content_type_argument,
    files_argument,
    hash_items,
    jobs_option,
    parse_inputs,
)
from countermark.cli.session import Session
from countermark.domain.signal import ContentType
from countermark.errors import InvalidInput


@click.command(cls=ContentCommand)
@content_type_argument
@files_argument
@click.option("-S", "--signal-type", metavar="TYPE", help="Only make signals of this type.")
@preprocess.options
@click.option("--save-preprocess", is_flag=True, help="Save the pictures that --photo-preprocess makes.")
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, also for what gave no signal.")
@deployments.option
@click.pass_context
def command(
    context: click.Context,
    *,
    content_type: str,
    files: tuple[str, ...],
    signal_type: str | None,
    photo_preprocess: str | None,
    black_threshold: int,
    save_preprocess: bool,
    jobs: int | None,
    as_json: bool,
    deployment: str | None,
) -> None:
    """Turn content into signals: prints a line `type signal` for each.

    FILE is a path, an http(s) URL, - for standard input, or words after --.

    \b
    Examples:
      countermark hash photo upload.jpg
      countermark hash photo -S pdq *.jpg
      countermark hash photo --photo-preprocess rotations upload.jpg
      cat clip.mp4 | countermark hash video -
      countermark hash text -- some words

    With --photo-preprocess, signals are those of the pictures that it makes; of rotations, a line is `ROTATION type
    signal`. Pictures are saved beside their photo, as PNG: upload_ROTATE90.png, upload_unletterboxed.png.

    With --json, an object has `file`, `type` and `signal`, and `variant` for one of rotations. Of a photo that was cut
    late, `partial` says what is missing. Where there is no signal, `signal` is null, `unhashable` is a code
    (low_quality, empty, damaged, unsupported, too_large or missing_extra) and `reason` says more.

    A photo that is too plain to be known again gives no signal, which is noted on standard error and is no
    failure. A file that is not the content that it should be is one.
    """
    session: Session = context.obj
    items = parse_inputs(context, files)
    kind = ContentType(content_type)
    pictures: Iterable[InputItem] = items
    if photo_preprocess is not None:
        preprocess.check_photo(kind, "--photo-preprocess")
        pictures = preprocess.preprocess_items(items, photo_preprocess, black_threshold=black_threshold)
    if save_preprocess:
        _check_savable(items, photo_preprocess)
    saved: set[Path] = set()
    if deployment is None:
        pieces = hash_items(session, pictures, kind, only=signal_type, ratios=session.signal_type_ratios(), jobs=jobs)
    else:
        pieces = deployments.Deployment.at(deployment, session).hash_items(pictures, kind, only=signal_type)
    for piece in pieces:
        for line in _json_lines(piece) if as_json else _lines(piece):
            output.print_result(line)
        if save_preprocess:
            path = _save(piece.item, saved)
            if not as_json:
                output.print_result(f"Processed image saved to: {path}")


def _lines(piece: Piece) -> Iterator[str]:
    prefix = "" if piece.item.variant is None else f"{piece.item.variant} "
    for signal in piece.signals:
        yield f"{prefix}{signal.type} {output.one_line(signal.value)}"


def _json_lines(piece: Piece) -> Iterator[str]:
    variant = {} if piece.item.variant is None else {"variant": piece.item.variant}
    for signal in piece.signals:
        record = {"file": piece.item.name, **variant, "type": signal.type, "signal": signal.value}
        if signal in piece.partial:
            record["partial"] = piece.partial[signal]
        yield output.json_text(record)
    for name, why in piece.unhashable.items():
        missing = {"signal": None, "unhashable": why.code, "reason": why.reason}
        yield output.json_text({"file": piece.item.name, **variant, "type": name, **missing})


def _check_savable(items: Sequence[InputItem], photo_preprocess: str | None) -> None:
    """Check that pictures are made, and that there is a place for them.

    Raises:
        click.UsageError: None are made.
        InvalidInput: They are made of what is no file.
    """
    if photo_preprocess is None:
        raise click.UsageError("--save-preprocess saves what --photo-preprocess makes: give that as well")
    for each in items:
        if each.path is None:
            raise InvalidInput(f"--save-preprocess saves beside a file, and {each.name} is none")


def _save(picture: InputItem, saved: set[Path]) -> Path:
    """Write a picture to its place, unless an earlier run left the same there.

    Raises:
        InvalidInput: This very run has written another picture there, or something else is there: it is kept.
    """
    path = picture.path
    if path is None or path in saved:
        raise InvalidInput(f"two photos would both be saved as {path}")
    saved.add(path)
    with picture.open() as stream:
        data = stream.read()
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
            raise InvalidInput(f"{path} is there already and differs: move it away, or rename the photo") from error
    return path
