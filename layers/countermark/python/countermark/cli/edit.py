"""`countermark config collab edit`: a flag for each field that an exchange says it has."""

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
"""The longest name of a collaboration, in characters; its bank's name is made from it and may have 255."""


def _integers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


_integers.__name__ = "list of integers"  # click names it to the user

_PARSERS: Mapping[str, click.ParamType[Any] | Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "bool": click.BOOL,
    "set[int]": _integers,
}
"""What reads a flag's value, by the type that a field may have."""

FLAG_ALIASES: Mapping[str, tuple[str, ...]] = {"only_esp_ids": ("--only-esp",)}
"""The peer's other spellings of the flags of fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What the user asks for; None leaves as it is."""

    name: str
    is_enabled: bool | None
    writes_back: bool | None
    bank: str | None
    fields: Mapping[str, JSON]


def edit_command(exchange: Exchange) -> click.Command:
    """Return the command that edits collaborations of one kind."""

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
            click.Option(["--create", "-C"], is_flag=True, help="Create it; without this flag it must be there."),
            click.Option(
                ["--enable"],
                is_flag=False,
                flag_value="1",
                type=click.Choice(["0", "1"]),
                help="Fetch it, as is so when it is created; 0 for not.",
            ),
            click.Option(["--disable"], is_flag=True, help="Do not fetch it; what was fetched still matches."),
            click.Option(
                ["--write-back"],
                is_flag=False,
                flag_value="1",
                type=click.Choice(["0", "1"]),
                help="Send it what you think, where you say so: off until it is turned on; 0 turns it off.",
            ),
            click.Option(["--bank"], metavar="BANK", help="With --create: its bank; else named like it."),
            click.Option(["--json", "-J", "is_json"], is_flag=True, help="NAME is JSON with all that is to be set."),
        ],
        help=f"Create or change a collaboration of the exchange {exchange.kind}.\n\n"
        f"\b\nExample:\n  countermark config collab edit {_example(exchange)} --create",
        short_help=f"A collaboration of the exchange {exchange.kind}.",
    )


def as_json(collaboration: Collaboration) -> Mapping[str, JSON]:
    """Return a collaboration as JSON, as the peers' files have it: the kind's own fields beside the common ones."""
    return {
        "name": collaboration.name,
        "api": collaboration.api,
        "enabled": collaboration.enabled,
        "bank": collaboration.bank,
        "writes_back": collaboration.writes_back,
        **collaboration.config,
    }


def bank_name_of(name: str) -> str:
    """Return the name of a collaboration's bank: that of "Sample Signals" is SAMPLE_SIGNALS.

    Letters become upper case, and what is neither letter nor digit of ASCII becomes `_`; a leading digit gets one.
    """
    derived = re.sub(r"[^A-Z0-9]", "_", name.upper())
    return f"_{derived}" if derived[:1].isdigit() else derived


def create(session: Session, state: "LocalState", exchange: Exchange, edit: Edit) -> None:
    """Create a collaboration as the user asks for it, and its bank.

    Raises:
        InvalidInput: A field is missing or wrong.
        AlreadyExists: There is one of that name; or a bank, which was not named on purpose.
    """
    from countermark.flows.curate import create_collaboration

    config = exchange.parse_config(edit.fields)
    names = {each.name for each in state.collaborations.collaborations()}
    if edit.name in names and not is_implicit_sample(session, edit.name):
        raise AlreadyExists(f"there's an existing collaboration named {edit.name!r}")
    end_implicit_sample(session, state)
    bank = bank_name_of(edit.name) if edit.bank is None else edit.bank
    if edit.bank is None and bank in {each.name for each in state.banks.banks()}:
        raise AlreadyExists(f"there is a bank {bank} already: name one with --bank, the same to share it")
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
        raise InvalidInput(f"the bank of {edit.name!r} is {stored.bank}, and stays so")
    if stored.is_confined:  # it stays so: whoever made it named its other fields
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
    """Return what the JSON asks for; it stands alone, so that nothing is said twice.

    Raises:
        InvalidInput: It is no JSON object, is of another kind, or a common field is of another type.
    """
    flags = _from_flags({**values, "name": "-"})
    if flags.fields or any(each is not None for each in (flags.is_enabled, flags.writes_back, flags.bank)):
        raise click.UsageError("with --json everything is said in the JSON")
    try:
        parsed = json.loads(values["name"])
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"--json takes a JSON object: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidInput("--json takes a JSON object")
    kind = parsed.pop("api", exchange.kind)
    if kind != exchange.kind:
        raise InvalidInput(f"the JSON is of a collaboration of {kind!r}, not of {exchange.kind}")
    name, bank = parsed.pop("name", None), parsed.pop("bank", None)
    is_enabled, writes_back = parsed.pop("enabled", None), parsed.pop("writes_back", None)
    for field, value in (("enabled", is_enabled), ("writes_back", writes_back)):
        if not (value is None or isinstance(value, bool)):
            raise InvalidInput(f"{field} is true or false, not {value!r}")
    if not (bank is None or isinstance(bank, str)):
        raise InvalidInput(f"bank is a name, not {bank!r}")
    return Edit(
        name=_checked_name(name), is_enabled=is_enabled, writes_back=writes_back, bank=bank, fields=_absolute(parsed)
    )


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
        raise InvalidInput(f"a collaboration's name has 1 to {MAX_NAME_LENGTH} printable characters, not {name!r}")
    return name


def _absolute(fields: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return the fields with a path made absolute: the next fetch may run in another directory."""
    filename = fields.get("filename")
    if not isinstance(filename, str) or not filename or "://" in filename:
        return fields
    return {**fields, "filename": str(Path(filename).expanduser().absolute())}


def _option(field: Field) -> click.Option:
    """Return the flag of a field. Whether a required one is missing is told by the exchange."""
    names = [_flag(field), *FLAG_ALIASES.get(field.name, ()), f"field_{field.name}"]
    if field.choices is not None:
        return click.Option(names, type=click.Choice(field.choices), help=field.help)
    return click.Option(names, type=_PARSERS[field.type], metavar=field.type.upper(), help=field.help)


def _flag(field: Field) -> str:
    return f"--{field.name.replace('_', '-')}"


def _example(exchange: Exchange) -> str:
    flags = [f"{_flag(field)} …" for field in exchange.config_fields if field.required]
    return " ".join([exchange.kind, *flags, "'My Signals'"])
