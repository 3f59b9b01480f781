"""An adapter for unchanged exchanges of python-threatexchange: a `SignalExchangeAPI` as a countermark exchange.

Fetched records are immediately converted to signals and opinions, with the peer's conversion. The signals and opinions
are stored. The checkpoint is stored as JSON, according to its type annotations. Nothing is pickled. The exchange
connects to its servers without countermark's transport, so the time-outs and limits of the exchange apply.

Limits: the exchange does not receive the name of the collaboration. No opinions are sent to the exchange, because the
exchange cannot show its requests before it sends them. An exchange that overrides the merge of records
(`fetch_value_merge`) is refused, because a merge needs the complete earlier record.

Source: python-threatexchange 1.2.16, exchanges/signal_exchange_api.py, fetch_state.py, collab_config.py and auth.py.
"""

import dataclasses
import itertools
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

from countermark.domain.exchange import CredentialSource, Delta, Fetch, Field
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.errors import CountermarkError, ExchangeFailed, InvalidInput
from countermark.exchanges.config import parse_fields, refuse_credentials
from countermark.exchanges.pages import is_storable
from countermark.extensions.plain import from_json, is_optional, to_json, without_none

_METHODS = (
    "get_name",
    "get_config_cls",
    "get_checkpoint_cls",
    "for_collab",
    "fetch_iter",
    "naive_convert_to_signal_type",
)
# Every configuration of the peer has these fields. Countermark stores them elsewhere.
_COMMON_FIELDS = frozenset({"name", "api", "enabled"})


class PeerExchange:
    """One kind of exchange of python-threatexchange. Create it with `of`, which checks the peer's class."""

    def __init__(
        self,
        peer: Any,
        fields: Sequence[Field],
        signal_types: Sequence[Any],
        *,
        config: Mapping[str, JSON] | None = None,
    ) -> None:
        """Create the adapter of a class that `of` has checked. `signal_types` has classes in the peer's form."""
        self.peer = peer
        self._signal_types = signal_types
        self._config = config or {}
        self._takes_credentials = hasattr(peer, "get_credential_cls")
        self.kind: str = peer.get_name()
        self.config_fields = fields

    @classmethod
    def of(cls, peer: Any, signal_types: Sequence[Any]) -> "PeerExchange":
        """Check an exchange class of the peer, and return the adapter for it.

        Raises:
            InvalidInput: The class lacks a method, merges records by itself, or needs a field that cannot be
                configured.
        """
        if missing := [name for name in _METHODS if not callable(getattr(peer, name, None))]:
            raise InvalidInput(f"{peer.__name__} lacks {', '.join(missing)}")
        # The merge of the base class replaces the complete record. Countermark's stores do the same.
        merging = [each.__name__ for each in peer.__mro__ if "fetch_value_merge" in vars(each)]
        if merging and merging[0] != "SignalExchangeAPI":
            raise InvalidInput(f"{peer.__name__} merges records by itself (fetch_value_merge), which is not supported")
        return cls(peer, tuple(_config_fields(peer.get_config_cls())), signal_types)

    @property
    def credential_fields(self) -> Sequence[Field] | None:
        """One field for a line of text in the extension's format; None if the exchange needs no credentials."""
        if not self._takes_credentials:
            return None
        return (Field(name=_CREDENTIALS, type="str", required=True, help="one line, in the extension's format"),)

    @property
    def credential_source(self) -> CredentialSource | None:
        """The environment variable and the file in which the peer looks for credentials; None if it needs none."""
        if not self._takes_credentials:
            return None
        credentials = self.peer.get_credential_cls()
        return CredentialSource(
            environment_variable=credentials.ENV_VARIABLE,
            dot_file=credentials.FILE_NAME.removeprefix("~/"),
            form="that the extension accepts",
        )

    def parse_config(self, config: Mapping[str, JSON]) -> Mapping[str, JSON]:
        return parse_fields(self.kind, self.config_fields, config)

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        if not self._takes_credentials:
            refuse_credentials(self.kind)
        credentials = {_CREDENTIALS: text.strip()}
        self._read_credentials(credentials)
        return credentials

    def joined(self, config: Mapping[str, JSON]) -> "PeerExchange":
        """Check a configuration, and return this exchange with it.

        Raises:
            InvalidInput: A field is missing, unknown or invalid.
        """
        return PeerExchange(self.peer, self.config_fields, self._signal_types, config=self.parse_config(config))

    def fetch(
        self,
        checkpoint: Mapping[str, JSON] | None,
        *,
        credentials: Mapping[str, str] | None,
        now_s: int,
    ) -> Fetch:
        """Begin a fetch.

        If the peer's checkpoint class has no fields, a checkpoint stores no progress, so each fetch restarts.
        """
        with _isolated(self.kind):
            after = self._read_checkpoint(checkpoint)
            collaboration = _collaboration(self.peer.get_config_cls(), self.kind, self._config)
            api = self._connected(collaboration, credentials)
        return Fetch(restarts=after is None, deltas=self._deltas(api, collaboration, after))

    def signals(self, data: Mapping[str, JSON]) -> Sequence[Signal]:
        """Return the signals of a record, as the peer converted them."""
        pairs: Any = data["signals"]
        return [Signal(type=name, value=value) for name, value in pairs]

    def opinions(self, data: Mapping[str, JSON]) -> Sequence[Opinion]:
        """Return the opinions of a record."""
        stored: Any = data["opinions"]
        return [
            Opinion(category=Category(each["category"]), tags=frozenset(each["tags"]), is_mine=each["is_mine"])
            for each in stored
        ]

    def _read_checkpoint(self, checkpoint: Mapping[str, JSON] | None) -> Any:
        """Return the peer's checkpoint if a fetch can continue from it, else None."""
        kind = self.peer.get_checkpoint_cls()
        if checkpoint is None or not dataclasses.fields(kind):
            return None
        after = from_json(kind, checkpoint["checkpoint"])
        return None if after.is_stale() else after

    def _read_credentials(self, credentials: Mapping[str, str]) -> Any:
        """Return the peer's credentials.

        Raises:
            InvalidInput: The format of the credentials is invalid. The error does not show the credentials.
        """
        try:
            read = self.peer.get_credential_cls()._from_str(credentials[_CREDENTIALS])  # noqa: SLF001  # the peer's hook
            is_valid = read is not None and read._are_valid()  # noqa: SLF001  # as above
        except Exception:  # noqa: BLE001  # third-party code; a cause would put the text into a traceback
            is_valid, read = False, None
        if not is_valid:
            raise InvalidInput(f"{self.kind} does not accept these credentials: their format is invalid")
        return read

    def _connected(self, collaboration: Any, credentials: Mapping[str, str] | None) -> Any:
        if credentials is None or not self._takes_credentials:
            return self.peer.for_collab(collaboration)
        return self.peer.for_collab(collaboration, self._read_credentials(credentials))

    def _deltas(self, api: Any, collaboration: Any, after: Any) -> Iterator[Delta]:
        restarts = after is None
        with _isolated(self.kind):
            for delta in api.fetch_iter(self._signal_types, after):
                if _is_earlier(delta.checkpoint, after):
                    raise ExchangeFailed(f"{self.kind}: its checkpoint went back in time")
                after = delta.checkpoint
                changes: dict[str, Mapping[str, JSON] | None] = {}
                malformed_items = 0
                for key, value in delta.updates.items():
                    records, malformed = self._records(collaboration, key, value, may_split=restarts)
                    changes |= records
                    malformed_items += malformed
                yield Delta(changes=changes, checkpoint={"checkpoint": to_json(after)}, malformed_items=malformed_items)

    def _records(
        self, collaboration: Any, key: Any, value: Any, *, may_split: bool
    ) -> tuple[dict[str, Mapping[str, JSON] | None], int]:
        """Convert one of the peer's records. Return countermark's records, and the number of malformed ones left out.

        A countermark record has at most one signal per signal type, but a record of the peer can have many. If
        `may_split` is True, a record of the peer becomes several countermark records. This is possible only if the
        fetch restarts, because a restart removes records that no longer exist. In other fetches, old countermark
        records would be left behind when the peer's record changes. In these fetches, only the first countermark record
        is used, and the others count as malformed.
        """
        name = json.dumps(to_json(key), ensure_ascii=False)
        if value is None:
            return {name: None}, 0
        try:
            found = self.peer.naive_convert_to_signal_type(self._signal_types, collaboration, {key: value})
            rows = _rows({str(peer.get_name()): signals for peer, signals in found.items()})
        except Exception:  # noqa: BLE001  # third-party code converts third-party data: count the failure
            return {}, 1
        used = rows if may_split else rows[:1]
        records = {name if place == 0 else f"{name} {place + 1}": row for place, row in enumerate(used)}
        storable = {each: row for each, row in records.items() if is_storable(row)}
        return dict(storable), len(rows) - len(storable)


_CREDENTIALS = "credentials"
_NO_CREDENTIALS = frozenset({"SignalExchangeAPIMissingAuthException", "SignalExchangeAPIInvalidAuthException"})


@contextmanager
def _isolated(kind: str) -> Iterator[None]:
    """Turn any exception of the peer's code into a countermark error.

    The error does not contain the exception's text, because the text can contain a token.
    """
    try:
        yield
    except CountermarkError:
        raise
    except Exception as error:  # noqa: BLE001  # third-party code: only one collaboration fails
        name = type(error).__name__
        if name in _NO_CREDENTIALS:
            raise InvalidInput(f"{kind} needs credentials: they are missing or not accepted") from None
        raise ExchangeFailed(f"{kind}: its extension failed with {name}") from None


def _rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, JSON]]:
    """Return records that together contain all signals. Each record has at most one signal per signal type.

    `found` has the metadata of each signal, by signal type and signal value. If it has no signals, return one empty
    record.
    """
    columns = [[(name, value, metadata) for value, metadata in signals.items()] for name, signals in found.items()]
    rows = [[each for each in row if each is not None] for row in itertools.zip_longest(*columns)] or [[]]
    return [
        {
            "signals": [[name, str(value)] for name, value, _ in row],
            "opinions": _opinions([metadata for _, _, metadata in row]),
        }
        for row in rows
    ]


def _opinions(metadata: Sequence[Any]) -> list[JSON]:
    """Return the distinct opinions in the peer's metadata of signals."""
    found: list[JSON] = []
    for each in (opinion for item in metadata for opinion in item.get_as_opinions()):
        opinion: JSON = {
            "category": int(Category(each.category)),
            "tags": sorted(map(str, each.tags)),
            "is_mine": bool(each.is_mine),
        }
        if opinion not in found:
            found.append(opinion)
    return found


def _is_earlier(checkpoint: Any, before: Any) -> bool:
    """Return whether a checkpoint is earlier than the previous checkpoint; False if one of them has no time."""
    at_s = checkpoint.get_progress_timestamp()
    before_s = None if before is None else before.get_progress_timestamp()
    return at_s is not None and before_s is not None and bool(at_s < before_s)


def _config_fields(config: Any) -> Iterator[Field]:
    """Yield the fields of the peer's configuration class. Fields of unsupported types are left out.

    Raises:
        InvalidInput: A field of an unsupported type has no default, so it must be configurable. The error names the
            field.
    """
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name in _COMMON_FIELDS or not field.init:
            continue
        wanted = without_none(hints[field.name])
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        is_required = not has_default and not is_optional(hints[field.name])
        is_choice = isinstance(wanted, type) and issubclass(wanted, Enum)
        if (name := _field_type(wanted)) is not None:
            yield Field(
                name=field.name,
                type=name,
                required=is_required,
                help=str(field.metadata.get("help", field.name.replace("_", " "))),
                default=to_json(field.default) if field.default is not dataclasses.MISSING else None,
                choices=tuple(str(each.value) for each in wanted) if is_choice else None,
            )
        elif is_required:
            raise InvalidInput(f"the field {field.name!r} of {config.__name__} is of a type that cannot be configured")


def _field_type(wanted: Any) -> str | None:
    """Return the `Field.type` for a type annotation; None if the type is not supported."""
    if typing.get_origin(wanted) is set and typing.get_args(wanted) == (int,):
        return "set[int]"
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return "str"
    return {str: "str", int: "int", bool: "bool"}.get(wanted)


def _collaboration(kind: Any, api: str, config: Mapping[str, JSON]) -> Any:
    """Return the peer's configuration of a collaboration. Fields that are not in `config` get the peer's defaults."""
    hints = typing.get_type_hints(kind)
    values = {name: from_json(hints[name], value) for name, value in config.items() if value is not None}
    optional = {
        field.name: None
        for field in dataclasses.fields(kind)
        if field.init
        and field.name not in values.keys() | _COMMON_FIELDS
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    return kind(name=api, api=api, enabled=True, **optional, **values)
