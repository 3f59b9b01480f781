"""`countermark hash`: compute and print the signals of content."""

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
@click.option("-S", "--signal-type", metavar="TYPE", help="Only compute signals of this type.")
@preprocess.options
@click.option(
    "--save-preprocess", is_flag=True, help="With --photo-preprocess: save each processed picture beside its photo."
)
@jobs_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per line, also for a signal type that has no signal."
)
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
    """Compute the signals of content. Prints one line per signal: `type signal`.

    FILE is a path, an http(s) URL, or - for standard input. The words after -- are used as content.

    \b
    Examples:
      countermark hash photo upload.jpg
      countermark hash photo -S pdq *.jpg
      countermark hash photo --photo-preprocess rotations upload.jpg
      cat clip.mp4 | countermark hash video -
      countermark hash text -- some words

    With --photo-preprocess, the processed pictures are hashed instead of the photo. With rotations, a line is
    `ROTATION type signal`. --save-preprocess saves the pictures as PNG, with names such as upload_ROTATE90.png and
    upload_unletterboxed.png.

    With --json, an object has `file`, `type` and `signal`, and `variant` with the name of the rotation. If a part of
    the content is missing, `partial` states which. If a type has no signal, `signal` is null, `unhashable` is a code
    (low_quality, empty, damaged, unsupported, too_large or missing_extra) and `reason` explains it.

    A photo with too little detail, such as a plain colour, has no signal. A note is printed on standard error, and
    the exit code is 0. If a file cannot be hashed for another reason, the other files are still hashed, and the exit
    code is 2. It is 3 if the only failures are URLs that could not be fetched.
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
    """Check that the command makes pictures, and that all inputs are files. A picture is saved beside its file.

    Raises:
        click.UsageError: The command makes no pictures.
        InvalidInput: An input is not a file.
    """
    if photo_preprocess is None:
        raise click.UsageError("--save-preprocess needs --photo-preprocess")
    for each in items:
        if each.path is None:
            raise InvalidInput(f"--save-preprocess saves pictures beside a file, and {each.name} is not a file")


def _save(picture: InputItem, saved: set[Path]) -> Path:
    """Save a picture to its path, and return the path. A file with the same bytes, from an earlier run, is accepted.

    Raises:
        InvalidInput: This run has saved another picture to this path, or a different file exists there.
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
            raise InvalidInput(f"{path} exists already and is different: move it, or rename the photo") from error
    return path
