"""The command `countermark`: its global flags, its sub-commands, and how it ends.

Exit codes: 0 fine, 1 our fault, 2 the user's, 3 something outside, 130 interrupted.
"""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

import countermark
from countermark.cli import INTERRUPTED, output
from countermark.cli.session import Session
from countermark.errors import CountermarkError, IndexDamaged, InvalidInput

INTERNAL_ERROR, USER_ERROR, OUTSIDE_FAILURE = 1, 2, 3
"""The exit codes but 0 and that of an interrupt."""

COMMANDS: Mapping[str, str] = {
    "config": "Configure collaborations, and list what is installed.",
    "fetch": "Download signals from the exchanges of your collaborations.",
    "index": "Bring the index up to date, or build it anew.",
    "match": "Match content against the signals in your banks.",
    "upload": "Hash and match files as uploads, and publish what matches.",
    "hash": "Turn content into signals.",
    "label": "Tell an exchange what you think of content.",
    "bank": "Create, fill, show, disable and delete banks and their contents.",
    "dataset": "Count, print and export the signals in your banks.",
    "vacuum": "Give back disk space that a database of an older version holds.",
    "serve": "Serve the HTTP API over this state, with fetch and index on a schedule.",
    "backup": "Copy all banks to a file, while they are in use.",
    "restore": "Put a backup in the place of the banks.",
    "key": "Create, list and delete the API keys of `serve --keys`.",
}
"""The sub-commands with their help in short, so that `--help` imports none of them."""

HIDDEN: Mapping[str, tuple[str, str]] = {"collab": ("config", "collab")}
"""Other spellings: `collab edit`, of the peer's README, for `config collab edit`."""


class LazyGroup(click.Group):
    """A group whose sub-commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a newcomer's first steps."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command; its module is named like it."""
        name, sub_name = HIDDEN.get(cmd_name, (cmd_name, None))
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"countermark.cli.{name}").command
        if sub_name is not None and isinstance(command, click.Group):
            return command.get_command(ctx, sub_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sub-commands' help in short."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--factory-reset", is_flag=True, help="Remove all that countermark keeps, and nothing else. Asks first.")
@click.option("--yes", is_flag=True, help="With --factory-reset: do not ask.")
@click.version_option(countermark.__version__, prog_name="countermark", message="%(prog)s %(version)s")
@click.option("-v", "--verbose", count=True, help="Tell more on standard error, and show where our own faults are.")
@click.option("-q", "--quiet", is_flag=True, help="Tell nothing on standard error but errors.")
@click.pass_context
def command(context: click.Context, *, factory_reset: bool, yes: bool, verbose: int, quiet: bool) -> None:
    """Bank signals of known harmful content, exchange them with others, and match content against them.

    \b
    The first steps, with harmless sample data:
      countermark fetch
      countermark match text -- 'bball now?'

    \b
    And with your own:
      countermark config collab edit local_file --filename signals.txt 'My Signals' --create
      countermark bank create KNOWN_SPAM
      countermark bank add KNOWN_SPAM photo spam.jpg
      countermark match photo upload.jpg

    State is kept in the directory that COUNTERMARK_STATEDIR (or TX_STATEDIR) names, else in ~/.countermark. It is a
    directory of its own: one that holds something else, such as python-threatexchange's state, is refused.
    COUNTERMARK_FILES_DIR names directories (with : between) whose files collaborations made over the API may use.
    Results go to standard output, everything else to standard error. Exit codes: 0 fine, 1 our fault, 2 yours,
    3 something outside, 130 interrupted.
    """
    session = Session(
        directory=state_directory(), verbosity=verbose, is_quiet=quiet, files_directories=files_directories()
    )
    context.obj = session
    if factory_reset:
        if context.invoked_subcommand is not None:
            raise click.UsageError("--factory-reset stands alone")
        reset(session, is_sure=yes)
    elif context.invoked_subcommand is None:
        output.print_results(context.get_help())


def state_directory() -> Path:
    """Return where this user's state lives: our variable, else the peer's, else the home directory."""
    named = os.environ.get("COUNTERMARK_STATEDIR") or os.environ.get("TX_STATEDIR")
    try:
        return Path(named).expanduser() if named else Path.home() / ".countermark"
    except RuntimeError as error:
        raise InvalidInput("there is no home directory: name one for the state in COUNTERMARK_STATEDIR") from error


def files_directories() -> list[Path]:
    """Return the directories that collaborations made over the API may use, as the environment names them."""
    named = os.environ.get("COUNTERMARK_FILES_DIR", "").split(os.pathsep)
    return [Path(each) for each in named if each]


def reset(session: Session, *, is_sure: bool) -> None:
    """Remove all state, once the user is sure.

    Raises:
        InvalidInput: The user is not, or cannot be asked, or the directory holds no state of ours.
        Conflict: Another process has the state open.
    """
    if not session.directory.exists():
        session.note(f"there is no state at {session.directory}")
        return
    if not is_sure:
        try:
            is_sure = click.confirm(output.printable(f"Remove all state in {session.directory}?"), err=True)
        except click.Abort:
            raise InvalidInput("nothing was removed: without a terminal to ask at, say --yes") from None
    if not is_sure:
        raise InvalidInput("nothing was removed")
    remaining = session.remove_state()
    session.note(f"removed the state in {session.directory}")
    if remaining:
        session.note(f"left what countermark did not make: {', '.join(repr(name) for name in remaining)}")


def run(arguments: Sequence[str]) -> int:
    """Run one command line, and return its exit code: the one place where errors become words and codes."""
    output.configure_streams()
    is_verbose = False
    try:
        with command.make_context("countermark", list(arguments)) as context:
            is_verbose = bool(context.params["verbose"])
            command.invoke(context)
    except click.exceptions.Exit as stopped:
        code = stopped.exit_code
    except click.ClickException as error:
        _print_usage_error(error)
        code = USER_ERROR
    except CountermarkError as error:
        output.print_note(f"countermark: {error}")
        for more in getattr(error, "__notes__", ()):
            output.print_note(more)
        if isinstance(error, IndexDamaged):
            output.print_note("repair it with: countermark index --full")
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.print_note("countermark: interrupted")
        code = INTERRUPTED
    except OSError as error:
        # What adapters and commands have not told in their own words: a full disk, a directory that is not ours.
        output.print_note(f"countermark: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        code = OUTSIDE_FAILURE
    except Exception as error:  # noqa: BLE001  # the edge: the user sees one line, and the trace when asked for
        _print_internal_error(error, is_verbose=is_verbose)
        code = INTERNAL_ERROR
    else:
        code = 0
    write_error = output.flush()
    if write_error is not None:
        output.print_note(f"countermark: the results could not be written: {write_error.strerror}")
        code = code or OUTSIDE_FAILURE
    return code


def _print_usage_error(error: click.ClickException) -> None:
    """Tell of a mistake on the command line in click's own words; a value that was given stands in them."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        output.print_notes(error.ctx.get_usage())
        option = max(error.ctx.command.get_help_option_names(error.ctx), key=len)
        output.print_note(f"Try '{error.ctx.command_path} {option}' for help.")
        output.print_note("")
    message = error.format_message()
    # Only the list of what may be given is click's own lines; no value is in it.
    (output.print_notes if isinstance(error, click.MissingParameter) else output.print_note)(f"Error: {message}")


def _print_internal_error(error: Exception, *, is_verbose: bool) -> None:
    if is_verbose:
        import traceback

        output.print_notes("".join(traceback.format_exception(error)).rstrip())
    else:
        output.print_note(f"countermark: a fault of ours: {type(error).__name__}; see more with: countermark -v …")
