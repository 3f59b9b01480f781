"""`countermark hash`: content in, signals out."""

import click

from countermark.cli import output
from countermark.cli.content import ContentCommand, content_type_argument, files_argument, given_content, hashed
from countermark.cli.session import Session
from countermark.domain.signal import ContentType


@click.command(cls=ContentCommand)
@content_type_argument
@files_argument
@click.option("-S", "--signal-type", metavar="TYPE", help="Only make signals of this type.")
@click.pass_context
def command(context: click.Context, content_type: str, files: tuple[str, ...], signal_type: str | None) -> None:
    """Turn content into signals: prints a line `type signal` for each.

    FILE is a path, an http(s) URL, - for standard input, or words after --.

    \b
    Examples:
      countermark hash photo upload.jpg
      countermark hash photo -S pdq *.jpg
      cat clip.mp4 | countermark hash video -
      countermark hash text -- some words

    A photo that is too plain to be known again gives no signal, which is told on standard error and is no
    failure. A file that is not the content that it should be is one.
    """
    session: Session = context.obj
    given = given_content(context, files)
    for _, signals in hashed(
        session, given, ContentType(content_type), only=signal_type, ratios=session.signal_type_ratios()
    ):
        for signal in signals:
            output.result(f"{signal.type} {output.one_line(signal.value)}")
