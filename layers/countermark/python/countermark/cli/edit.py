"""`countermark config collab edit`: create and change collaborations, with a flag for each field of the exchange."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.sample import end_implicit_sample, is_implicit_sample
from countermark.cli.session import Session
from countermark.domain.collaboration import Collaboration
from countermark.domain.exchange import Exchange, Field
from countermark.domain.json import JSON
from countermark.errors import AlreadyExists, InvalidInput, NotFound

if TYPE_CHECKING:
    from countermark.local.state import LocalState

MAX_NAME_LENGTH = 200
"""The maximum length of a collaboration's name, in characters. The bank's derived name can have 255 characters."""


def _integers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


_integers.__name__ = "list of integers"  # click shows it in messages

_PARSERS: Mapping[str, click.ParamType[Any] | Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "bool": click.BOOL,
    "set[int]": _integers,
}
"""The parsers of flags, by the type of the field."""

FLAG_ALIASES: Mapping[str, tuple[str, ...]] = {"only_esp_ids": ("--only-esp",)}
"""Other names of the flags in python-threatexchange, by field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The changes that the user requests. None leaves a setting unchanged."""

    name: str
    is_enabled: bool | None
    writes_back: bool | None
    bank: str | None
    fields: Mapping[str, JSON]


def edit_command(exchange: Exchange) -> click.Command:
    """Return the command that edits the collaborations of one kind of exchange."""

    def callback(**values: Any) -> None:
        context = click.get_current_context()
        session: Session = context.find_root().obj
        if values["enable"] is not None and values["disable"]:
            raise click.UsageError("--enable or --disable, not both")
        edit = _from_json(exchange, values) if values["is_json"] else _from_flags(values)
        with session.state() as state:
            if values["create"]:
                create(session, state, exchange, edit)
            else:
                _change(session, state, exchange, edit)

    return click.Command(
        exchange.kind,
        callback=callback,
        params=[
            click.Argument(["name"]),
            *(_option(field) for field in exchange.config_fields),
            click.Option(
                ["--create", "-C"], is_flag=True, help="Create the collaboration; without this flag it must exist."
            ),
            click.Option(
                ["--enable"],
                is_flag=False,
                flag_value="1",
                type=click.Choice(["0", "1"]),
                help="Fetch this collaboration (the default); 0 disables it.",
            ),
            click.Option(
                ["--disable"],
                is_flag=True,
                help="Do not fetch this collaboration. Signals that were fetched before still match.",
            ),
            click.Option(
                ["--write-back"],
                is_flag=False,
                flag_value="1",
                type=click.Choice(["0", "1"]),
                help="Allow sending your opinions to the exchange (the default is not to); 0 forbids it.",
            ),
            click.Option(
                ["--bank"],
                metavar="BANK",
                help="With --create: the bank to use; default: a new bank named after the collaboration.",
            ),
            click.Option(
                ["--json", "-J", "is_json"],
                is_flag=True,
                help="NAME is a JSON object with all settings: see `config collab print`.",
            ),
        ],
        help=f"Create or change a collaboration of the exchange {exchange.kind}. Settings that you leave out stay.\n\n"
        f"\b\nExample:\n  countermark config collab edit {_example(exchange)} --create",
        short_help=f"Edit a collaboration of the exchange {exchange.kind}.",
    )


def as_json(collaboration: Collaboration) -> Mapping[str, JSON]:
    """Return a collaboration as JSON in the form of python-threatexchange's files: all fields in one object."""
    return {
        "name": collaboration.name,
        "api": collaboration.api,
        "enabled": collaboration.enabled,
        "bank": collaboration.bank,
        "writes_back": collaboration.writes_back,
        **collaboration.config,
    }


def bank_name_of(name: str) -> str:
    """Return the name of a collaboration's bank. For "Sample Signals" it is SAMPLE_SIGNALS.

    Letters become upper case. Each character that is not an ASCII letter or digit becomes `_`. If the name starts with
    a digit, `_` is added at the start.
    """
    derived = re.sub(r"[^A-Z0-9]", "_", name.upper())
    return f"_{derived}" if derived[:1].isdigit() else derived


def create(session: Session, state: "LocalState", exchange: Exchange, edit: Edit) -> None:
    """Create a collaboration with the requested settings, and its bank.

    Raises:
        InvalidInput: A field is missing or invalid.
        AlreadyExists: A collaboration with this name or a bank with the derived name exists.
    """
    from countermark.flows.curate import create_collaboration

    config = exchange.parse_config(edit.fields)
    names = {each.name for each in state.collaborations.collaborations()}
    if edit.name in names and not is_implicit_sample(session, edit.name):
        raise AlreadyExists(f"there's an existing collaboration named {edit.name!r}")
    end_implicit_sample(session, state)
    bank = bank_name_of(edit.name) if edit.bank is None else edit.bank
    if edit.bank is None and bank in {each.name for each in state.banks.banks()}:
        raise AlreadyExists(f"a bank {bank} exists already: name it with --bank to share it, or name another one")
    create_collaboration(
        session.curator(state),
        Collaboration(
            name=edit.name,
            api=exchange.kind,
            bank=bank,
            enabled=edit.is_enabled is not False,
            writes_back=edit.writes_back is True,
            config=config,
        ),
        shares_bank=edit.bank is not None,
    )


def _change(session: Session, state: "LocalState", exchange: Exchange, edit: Edit) -> None:
    from countermark.flows.curate import update_collaboration

    stored = {each.name: each for each in state.collaborations.collaborations()}.get(edit.name)
    if stored is None:
        raise NotFound(f"no such config {edit.name!r}! Did you mean to use --create?")
    if stored.api != exchange.kind:
        raise InvalidInput(f"{edit.name!r} is a collaboration of {stored.api}, not of {exchange.kind}")
    if edit.bank not in {None, stored.bank}:
        raise InvalidInput(f"the bank of {edit.name!r} is {stored.bank} and cannot be changed")
    if stored.is_confined:  # the collaboration stays confined, because its other fields came over the HTTP API
        exchange = session.exchanges(is_confined=True)[exchange.kind]
    update_collaboration(
        session.curator(state),
        stored,
        enabled=edit.is_enabled,
        writes_back=edit.writes_back,
        config=exchange.parse_config({**stored.config, **edit.fields}),
    )


def _from_flags(values: Mapping[str, Any]) -> Edit:
    is_enabled = None if values["enable"] is None else values["enable"] == "1"
    fields = {
        name.removeprefix("field_"): value
        for name, value in values.items()
        if name.startswith("field_") and value is not None
    }
    return Edit(
        name=_checked_name(values["name"]),
        is_enabled=False if values["disable"] else is_enabled,
        writes_back=None if values["write_back"] is None else values["write_back"] == "1",
        bank=values["bank"],
        fields=_absolute(fields),
    )


def _from_json(exchange: Exchange, values: Mapping[str, Any]) -> Edit:
    """Return the changes that the JSON requests. Other flags are refused, so that no setting is given twice.

    Raises:
        click.UsageError: A flag gives a setting too.
        InvalidInput: The text is not a JSON object or is for another kind, or a common field has the wrong type.
    """
    flags = _from_flags({**values, "name": "-"})
    if flags.fields or any(each is not None for each in (flags.is_enabled, flags.writes_back, flags.bank)):
        raise click.UsageError("with --json, all settings are in the JSON: leave out the other flags")
    try:
        parsed = json.loads(values["name"])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"NAME must be a JSON object with --json: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidInput("NAME must be a JSON object with --json")
    kind = parsed.pop("api", exchange.kind)
    if kind != exchange.kind:
        raise InvalidInput(f"the JSON is for the exchange {kind!r}, not for {exchange.kind}")
    name, bank = parsed.pop("name", None), parsed.pop("bank", None)
    is_enabled, writes_back = parsed.pop("enabled", None), parsed.pop("writes_back", None)
    for field, value in (("enabled", is_enabled), ("writes_back", writes_back)):
        if not (value is None or isinstance(value, bool)):
            raise InvalidInput(f"{field} must be true or false, not {value!r}")
    if not (bank is None or isinstance(bank, str)):
        raise InvalidInput(f"bank must be a name, not {bank!r}")
    return Edit(
        name=_checked_name(name), is_enabled=is_enabled, writes_back=writes_back, bank=bank, fields=_absolute(parsed)
    )


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
        raise InvalidInput(
            f"a collaboration's name must have 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}"
        )
    return name


def _absolute(fields: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return the fields with an absolute path, because the next fetch can run in another directory."""
    filename = fields.get("filename")
    if not isinstance(filename, str) or not filename or "://" in filename:
        return fields
    return {**fields, "filename": str(Path(filename).expanduser().absolute())}


def _option(field: Field) -> click.Option:
    """Return the flag of a field. Every flag is optional, because the exchange reports a missing required field."""
    names = [_flag(field), *FLAG_ALIASES.get(field.name, ()), f"field_{field.name}"]
    if field.choices is not None:
        return click.Option(names, type=click.Choice(field.choices), help=field.help)
    return click.Option(names, type=_PARSERS[field.type], metavar=field.type.upper(), help=field.help)


def _flag(field: Field) -> str:
    return f"--{field.name.replace('_', '-')}"


def _example(exchange: Exchange) -> str:
    flags = [f"{_flag(field)} …" for field in exchange.config_fields if field.required]
    return " ".join([exchange.kind, *flags, "'My Signals'"])
