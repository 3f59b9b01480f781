"""`countermark config extensions`: install, list and remove extensions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from countermark.cli import output
from countermark.cli.session import Session
from countermark.errors import InvalidInput

if TYPE_CHECKING:
    from countermark.extensions.registries import Extension


@click.group()
def extensions() -> None:
    """Install, list and remove extensions.

    An extension is a Python module with more signal types, content types or exchanges.

    \b
    Examples:
      countermark config extensions add my_platform.countermark
      countermark config extensions list
      countermark config extensions remove my_platform.countermark
    """


@extensions.command(name="list")
@click.argument("module", required=False)
@click.pass_obj
def list_extensions(session: Session, module: str | None) -> None:
    """Print the contents of extensions.

    Without MODULE, all installed extensions are printed. With MODULE, only this one is printed, even if it is not
    installed.

    \b
    Example:
      countermark config extensions list
    """
    from countermark.extensions.registries import load

    if module is not None:
        _print(session, load(module), indent="")
        return
    is_broken = False
    for name in session.extension_list().modules():
        output.print_result(name)
        try:
            _print(session, load(name), indent="  ")
        except InvalidInput as error:
            session.complain(str(error))
            is_broken = True
    if is_broken:
        raise InvalidInput(
            "an extension cannot be loaded: repair it, or remove it with countermark config extensions remove MODULE"
        )


@extensions.command()
@click.argument("module")
@click.pass_obj
def add(session: Session, module: str) -> None:
    """Install an extension.

    MODULE is the name of a Python module. Its code runs in every later command. Before the extension is installed, its
    signal types are tested with their own examples.

    \b
    Example:
      countermark config extensions add my_platform.countermark
    """
    from countermark.extensions.registries import load, registries, verify_extension
    from countermark.local.content import FileContentReader

    names = session.extension_list().modules()
    extension = load(module)
    if module not in names:
        verify_extension(extension)
        # Check the extension together with the installed ones, because two extensions cannot use the same name.
        registries([*names, module]).exchanges(reader=FileContentReader(), transport=session.transport())
        session.extension_list().add(module)
        session.note(
            "records that were already fetched lack signals of its types: "
            "run `countermark fetch --clear`, then `countermark fetch`"
        )
    _print(session, extension, indent="")


@extensions.command()
@click.argument("module")
@click.pass_obj
def remove(session: Session, module: str) -> None:
    """Remove an extension, even if it cannot be loaded.

    Its signals stop matching after the next build of the index.

    \b
    Example:
      countermark config extensions remove my_platform.countermark
    """
    if module not in session.extension_list().modules():
        raise InvalidInput(f"You haven't added {module}")
    session.extension_list().remove(module)


def _print(session: Session, extension: "Extension", *, indent: str) -> None:
    for title, lines in _sections(session, extension):
        output.print_result(f"{indent}{title}:")
        for line in lines:
            output.print_result(f"{indent}  {line}")


def _sections(session: Session, extension: "Extension") -> Iterator[tuple[str, list[str]]]:
    """Yield the contents of an extension under python-threatexchange's titles. Empty sections are left out."""
    from countermark.extensions import Means
    from countermark.extensions.registries import exchanges_of, implementation_class
    from countermark.local.content import FileContentReader
    from countermark.signals import SIGNAL_TYPES

    signal_types = extension.manifest.signal_types
    means = Means(reader=FileContentReader(), transport=session.transport(), signal_types=SIGNAL_TYPES)
    sections = {
        "Signal": [f"{each.name} - {implementation_class(each).__name__}" for each in signal_types],
        "Content": [
            f"{each.name} - {implementation_class(each).__name__}" for each in extension.manifest.content_types
        ],
        "Exchange": [f"{each.kind} - {implementation_class(each).__name__}" for each in exchanges_of(extension, means)],
    }
    yield from ((title, lines) for title, lines in sections.items() if lines)
