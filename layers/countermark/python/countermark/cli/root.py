"""The command `countermark`: its global flags, its sub-commands and its exit codes.

Exit codes: 0 success, 1 internal error, 2 invalid input or usage, 3 failure outside of countermark, 130 interrupted.
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
"""The exit codes, except 0 for success and `INTERRUPTED`."""

COMMANDS: Mapping[str, str] = {
    "config": "Configure collaborations, credentials and extensions.",
    "fetch": "Download signals from the exchanges of your collaborations.",
    "index": "Update the index, rebuild it, or show its status.",
    "match": "Match content against the signals in your banks.",
    "upload": "Hash and match files as uploads, and publish the events.",
    "hash": "Compute the signals of content.",
    "label": "Send your opinion of content to an exchange.",
    "bank": "Create, fill, show, disable and delete banks and their contents.",
    "dataset": "Count, print and export the signals in your banks.",
    "vacuum": "Free disk space that the database does not use.",
    "serve": "Serve the HTTP API, and run fetch and index on a schedule.",
    "backup": "Copy the database to a file, also while it is in use.",
    "restore": "Replace the database by a backup.",
    "key": "Create, list and delete the API keys of `serve --keys`.",
}
"""The sub-commands with their short help texts, so that `--help` does not import the sub-commands."""

HIDDEN: Mapping[str, tuple[str, str]] = {"collab": ("config", "collab")}
"""Aliases: `collab edit`, from python-threatexchange's README, runs `config collab edit`."""


class LazyGroup(click.Group):
    """A group whose sub-commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which a new user needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a sub-command. Its module has the same name."""
        name, sub_name = HIDDEN.get(cmd_name, (cmd_name, None))
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"countermark.cli.{name}").command
        if sub_name is not None and isinstance(command, click.Group):
            return command.get_command(ctx, sub_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the short help texts of the sub-commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--factory-reset",
    is_flag=True,
    help="Delete all data in the state directory, after a confirmation. Other files stay.",
)
@click.option("--yes", is_flag=True, help="With --factory-reset: skip the confirmation.")
@click.version_option(countermark.__version__, prog_name="countermark", message="%(prog)s %(version)s")
@click.option("-v", "--verbose", count=True, help="Print details to standard error, and tracebacks of internal errors.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors to standard error.")
@click.pass_context
def command(context: click.Context, *, factory_reset: bool, yes: bool, verbose: int, quiet: bool) -> None:
    """Store signals of known harmful content in banks, share them with exchanges, and match content against them.

    A signal is a value by which content is recognised, such as a hash. To see how a command is used:
    countermark COMMAND --help.

    \b
    The first steps, with harmless sample data:
      countermark fetch
      countermark match text -- 'bball now?'

    \b
    And with your own content:
      countermark config collab edit local_file --filename signals.txt 'My Signals' --create
      countermark bank create KNOWN_SPAM
      countermark bank add KNOWN_SPAM photo spam.jpg
      countermark match photo upload.jpg

    All data is stored in the directory in COUNTERMARK_STATEDIR (or TX_STATEDIR), by default ~/.countermark. The
    directory must be for countermark only: a directory with other files, such as python-threatexchange's state, is
    refused.

    Collaborations that are created over the HTTP API can only use files in the directories in COUNTERMARK_FILES_DIR,
    which are separated by colons. If it is not set, these collaborations cannot use files.

    Results go to standard output, everything else to standard error.

    \b
    Exit codes:
      0    success, even if nothing matches
      1    internal error of countermark
      2    invalid input or usage
      3    a failure outside of countermark: an exchange, the network, the disk
      130  interrupted
    """
    session = Session(
        directory=state_directory(), verbosity=verbose, is_quiet=quiet, files_directories=files_directories()
    )
    context.obj = session
    if factory_reset:
        if context.invoked_subcommand is not None:
            raise click.UsageError("--factory-reset cannot be combined with a command")
        reset(session, is_sure=yes)
    elif context.invoked_subcommand is None:
        output.print_results(context.get_help())


def state_directory() -> Path:
    """Return the state directory: from COUNTERMARK_STATEDIR, TX_STATEDIR or the home directory."""
    named = os.environ.get("COUNTERMARK_STATEDIR") or os.environ.get("TX_STATEDIR")
    try:
        return Path(named).expanduser() if named else Path.home() / ".countermark"
    except RuntimeError as error:
        raise InvalidInput(
            "this user has no home directory: set COUNTERMARK_STATEDIR to a directory for the state"
        ) from error


def files_directories() -> list[Path]:
    """Return the directories in COUNTERMARK_FILES_DIR, whose files collaborations of the HTTP API can use."""
    named = os.environ.get("COUNTERMARK_FILES_DIR", "").split(os.pathsep)
    return [Path(each) for each in named if each]


def reset(session: Session, *, is_sure: bool) -> None:
    """Delete all state, after the user confirms.

    Raises:
        InvalidInput: The user declines, no terminal is available to ask the user, or the directory is not
            countermark's.
        Conflict: Another process has the state open.
    """
    if not session.directory.exists():
        session.note(f"no state at {session.directory}: nothing to remove")
        return
    if not is_sure:
        try:
            is_sure = click.confirm(output.printable(f"Remove all state in {session.directory}?"), err=True)
        except click.Abort:
            raise InvalidInput("nothing was removed: without a terminal, confirm with --yes") from None
    if not is_sure:
        raise InvalidInput("nothing was removed")
    remaining = session.remove_state()
    session.note(f"removed the state in {session.directory}")
    if remaining:
        session.note(
            f"these files are not countermark's and were not removed: {', '.join(repr(name) for name in remaining)}"
        )


def run(arguments: Sequence[str]) -> int:
    """Run one command line, and return its exit code. Every error becomes a message and an exit code here."""
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
        # No adapter or command has its own message for this error, such as a full disk or a missing permission.
        output.print_note(f"countermark: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        code = OUTSIDE_FAILURE
    except Exception as error:  # noqa: BLE001  # the outermost handler: print one line, or the traceback with -v
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
    """Print click's message about a usage error. The message can contain a value from the command line."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        output.print_notes(error.ctx.get_usage())
        option = max(error.ctx.command.get_help_option_names(error.ctx), key=len)
        output.print_note(f"Try '{error.ctx.command_path} {option}' for help.")
        output.print_note("")
    message = error.format_message()
    # Only the message about a missing parameter has several lines: it lists the choices, and no value of the user.
    (output.print_notes if isinstance(error, click.MissingParameter) else output.print_note)(f"Error: {message}")


def _print_internal_error(error: Exception, *, is_verbose: bool) -> None:
    if is_verbose:
        import traceback

        output.print_notes("".join(traceback.format_exception(error)).rstrip())
    else:
        output.print_note(f"countermark: internal error: {type(error).__name__}; for a traceback: countermark -v …")
