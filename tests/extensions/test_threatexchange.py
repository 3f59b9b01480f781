"""The adapter of python-threatexchange, over classes in its form: what no extension of its own shows."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from countermark.domain.exchange import Delta
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Comparison, ContentType, IndexKind, MakesQueries, Signal, Unhashable
from countermark.errors import ExchangeFailed, InvalidInput, InvalidSignal
from countermark.extensions import Means
from countermark.extensions.threatexchange import (
    MAX_SIGNAL_BYTES,
    FileHasher,
    PeerSignalType,
    adapt_manifest,
)
from countermark.extensions.threatexchange_api import PeerExchange
from countermark.signals import SIGNAL_TYPES
from countermark.signals.text import MAX_CONTENT_BYTES
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.server import quick_transport


class Text:
    """A content type of the peer."""

    @classmethod
    def get_name(cls) -> str:
        return "text"


class Pdf:
    """A content type that countermark has not."""

    @classmethod
    def get_name(cls) -> str:
        return "pdf"


class Apart:
    """How far two signals lie apart, in the peer's form."""

    def __init__(self, distance: Any) -> None:
        self.distance = distance

    def pretty_str(self) -> str:
        return f"~{self.distance}"


class LengthSignal:
    """A signal type whose signals are numbers, and match where they differ by at most 2."""

    @classmethod
    def get_name(cls) -> str:
        return "length"

    @classmethod
    def get_content_types(cls) -> list[type]:
        return [Text, Pdf]

    @classmethod
    def validate_signal_str(cls, signal_str: str) -> str:
        return str(int(signal_str))

    @classmethod
    def compare_hash(cls, hash1: str, hash2: str) -> Any:
        apart = abs(int(hash1) - int(hash2))
        return SimpleNamespace(match=apart <= 2, distance=Apart(apart))

    @classmethod
    def hash_from_bytes(cls, bytes_: bytes) -> str:
        if bytes_ == b"fail":
            raise RuntimeError("the text of this error is not told")
        if bytes_ == b"needs":
            raise ModuleNotFoundError("No module named 'needed'", name="needed")
        return "many" if bytes_ == b"many" else str(len(bytes_) or "")

    @staticmethod
    def get_examples() -> list[str]:
        return ["7", "not a number", "07", "9"]


def signal_type(peer: type = LengthSignal) -> Any:
    [made] = adapt_manifest("ext", SimpleNamespace(signal_types=(peer,), content_types=(), apis=())).signal_types
    return made


def hashed(content: bytes, peer: type = LengthSignal) -> str | Unhashable:
    hasher = signal_type(peer).hasher()
    hasher.update(content[:2])
    hasher.update(content[2:])
    made: str | Unhashable = hasher.finish()
    return made


def test_a_signal_type_is_what_the_peer_says() -> None:
    made = signal_type()
    assert (made.name, made.index_kind, made.match_distance) == ("length", IndexKind.LINEAR, 0)
    assert made.content_types == {ContentType.TEXT, ContentType("pdf")}
    assert made.examples == ("7", "9")
    assert (made.parse(" 007 \n"), made.key("7"), made.value(b"7")) == ("7", b"7", "7")
    assert made.compare("7", "9") == Comparison(matches=True, distance=2)
    assert made.compare("7", "10") == Comparison(matches=False, distance=3)
    assert made.wire_distance("7", "9", 2) == "~2"


@pytest.mark.parametrize(("distance", "expected"), [(3, 3), (0.5, None), (True, None), (None, None), ("3", None)])
def test_only_a_whole_number_is_a_distance_of_ours(distance: Any, expected: int | None) -> None:
    class Other(LengthSignal):
        @classmethod
        def compare_hash(cls, hash1: str, hash2: str) -> Any:
            return SimpleNamespace(match=True, distance=Apart(distance))

    assert signal_type(Other).compare("1", "1").distance == expected


@pytest.mark.parametrize("text", ["", "x", "1.5", "\ud800"])
def test_what_the_peer_refuses_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidSignal, match="not a length signal"):
        signal_type().parse(text)


def test_a_signal_has_a_limit() -> None:
    class Wide(LengthSignal):
        @classmethod
        def validate_signal_str(cls, signal_str: str) -> str:
            return signal_str

        @classmethod
        def compare_hash(cls, hash1: str, hash2: str) -> Any:
            return SimpleNamespace(match=True, distance=Apart(0))

    made = signal_type(Wide)
    assert len(made.parse("x" * MAX_SIGNAL_BYTES)) == MAX_SIGNAL_BYTES
    for text in ("x" * (MAX_SIGNAL_BYTES + 1), ""):
        with pytest.raises(InvalidSignal, match=f"1 to {MAX_SIGNAL_BYTES} bytes"):
            made.parse(text)


def test_a_value_that_cannot_be_compared_is_no_signal() -> None:
    class Fragile(LengthSignal):
        @classmethod
        def compare_hash(cls, hash1: str, hash2: str) -> Any:
            1 // int(hash1)
            return LengthSignal.compare_hash(hash1, hash2)

    with pytest.raises(InvalidSignal, match="cannot be compared: ZeroDivisionError"):
        signal_type(Fragile).parse("0")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"four", "4"),
        (b"", Unhashable(code="low_quality", reason="length makes no signal of this content")),
        (b"fail", Unhashable(code="damaged", reason="length cannot hash this content: RuntimeError")),
        (b"many", Unhashable(code="damaged", reason="length made an invalid signal of this content")),
        (b"needs", Unhashable(code="missing_extra", reason="length needs a package that is not installed: needed")),
    ],
)
def test_bytes_are_hashed_or_it_is_told_why_not(content: bytes, expected: object) -> None:
    assert hashed(content) == expected


def test_a_text_is_hashed_as_a_text_where_that_can_be() -> None:
    class Characters(LengthSignal):
        @classmethod
        def hash_from_str(cls, text: str) -> str:
            return str(len(text))

    assert hashed("über".encode(), Characters) == "4"
    assert hashed(b"\xff\xfe", Characters) == Unhashable(
        code="damaged", reason="not a text in UTF-8: invalid start byte at byte 0"
    )


def test_a_type_of_texts_is_given_the_whole_of_a_long_text() -> None:
    class Characters(LengthSignal):
        @classmethod
        def hash_from_str(cls, text: str) -> str:
            return str(len(text))

    assert hashed(b"a" * MAX_CONTENT_BYTES, Characters) == str(MAX_CONTENT_BYTES)
    too_large = hashed(b"a" * (MAX_CONTENT_BYTES + 1), Characters)
    assert isinstance(too_large, Unhashable)
    assert too_large.code == "too_large"


def test_what_hashes_files_alone_is_given_a_file_that_is_gone_afterwards() -> None:
    seen: list[Path] = []

    def hash_from_file(file: Path) -> str:
        seen.append(file)
        return LengthSignal.hash_from_bytes(file.read_bytes())

    others = {name: value for name, value in vars(LengthSignal).items() if name.startswith(("get", "val", "compare"))}
    bare = type("Bare", (), {**others, "hash_from_file": staticmethod(hash_from_file)})
    assert hashed(b"four", bare) == "4"
    assert hashed(b"fail", bare) == Unhashable(code="damaged", reason="length cannot hash this content: RuntimeError")
    assert hashed(b"needs", bare).code == "missing_extra"  # type: ignore[union-attr]  # it is no signal
    assert not any(path.exists() for path in seen)


def test_a_file_has_a_limit() -> None:
    for size, expected in ((4, "4"), (5, Unhashable(code="too_large", reason="more than 4 bytes"))):
        hasher = FileHasher(lambda path: str(path.stat().st_size), max_bytes=4)
        hasher.update(b"x" * size)
        assert hasher.finish() == expected


def test_what_only_matches_texts_is_asked_and_never_made() -> None:
    class Words:
        get_name = staticmethod(lambda: "words")
        get_content_types = staticmethod(lambda: [Text])
        validate_signal_str = staticmethod(lambda text: text)
        get_examples = staticmethod(lambda: ["bad"])

        @classmethod
        def matches_str(cls, signal: str, haystack: str) -> Any:
            return SimpleNamespace(match=signal in haystack, distance=Apart(None))

    made = signal_type(Words)
    assert made.hasher() is None
    asks: object = made
    assert isinstance(asks, MakesQueries)
    reader = asks.reader()
    reader.update(b"all the bad words")
    query = reader.finish()
    assert isinstance(query, str)
    assert made.compare(query, "bad") == Comparison(matches=True, distance=None)
    assert made.compare("bad", query) == Comparison(matches=False, distance=None)
    assert made.wire_distance(query, "bad", None) == "~None"


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("compare_hash", "the signal type Lacking lacks compare_hash"),
        ("get_name", "the signal type Lacking lacks get_name"),
        ("get_examples", "the signal type Lacking lacks get_examples"),
    ],
)
def test_a_class_that_lacks_a_method_is_named_with_it(removed: str, message: str) -> None:
    members = {
        name: value for name, value in vars(LengthSignal).items() if name not in {removed, "__dict__", "__weakref__"}
    }
    with pytest.raises(InvalidInput, match=message):
        signal_type(type("Lacking", (), members))


def test_a_signal_type_without_an_example_of_its_own_is_refused() -> None:
    class Bare(LengthSignal):
        get_examples = staticmethod(lambda: ["x"])

    with pytest.raises(InvalidInput, match="length has no example that is a valid signal"):
        signal_type(Bare)


class Mode(Enum):
    FAST = "fast"
    FULL = "full"


@dataclass
class Config:
    """A configuration in the peer's form."""

    name: str
    api: str
    enabled: bool
    path: str = field(metadata={"help": "where it is"})
    limit: int | None
    mode: Mode = Mode.FULL
    only: set[int] = field(default_factory=set)
    ratio: float = 0.5


@dataclass
class At:
    """A checkpoint in the peer's form."""

    number: int

    def is_stale(self) -> bool:
        return self.number < 0

    def get_progress_timestamp(self) -> int | None:
        return self.number


@dataclass
class Nothing:
    """A checkpoint that tells of no progress."""

    def is_stale(self) -> bool:
        return False

    def get_progress_timestamp(self) -> int | None:
        return None


@dataclass
class Said:
    """What the peer knows of a signal."""

    category: int

    def get_as_opinions(self) -> list[Any]:
        opinion = SimpleNamespace(category=self.category, tags={"b", "a"}, is_mine=False)
        return [opinion, opinion]


class Api:
    """An exchange in the peer's form: its updates are (checkpoint, {key: {type: [signals]} or None})."""

    updates: tuple[tuple[Any, dict[Any, Any]], ...] = ()
    checkpoint: type = At
    asked: list[Any]

    @classmethod
    def get_name(cls) -> str:
        return "api"

    @staticmethod
    def get_config_cls() -> type:
        return Config

    @classmethod
    def get_checkpoint_cls(cls) -> type:
        return cls.checkpoint

    @classmethod
    def for_collab(cls, collab: Any) -> "Api":
        made = cls()
        cls.asked = [collab]
        return made

    def fetch_iter(self, supported_signal_types: Any, checkpoint: Any) -> Iterator[Any]:
        self.asked.append(checkpoint)
        for after, updates in self.updates:
            if isinstance(after, Exception):
                raise after
            yield SimpleNamespace(updates=updates, checkpoint=after)

    @classmethod
    def naive_convert_to_signal_type(cls, signal_types: Any, collab: Any, fetched: Any) -> Any:
        by_name = {each.get_name(): each for each in signal_types}
        [value] = fetched.values()
        return {by_name[name]: {text: Said(2) for text in texts} for name, texts in value.items() if name in by_name}


CONFIG: Mapping[str, JSON] = {"path": "/x", "limit": None, "mode": "fast", "only": [2, 1]}


def exchange(**members: Any) -> PeerExchange:
    """Return the exchange of a class with other members than `Api`."""
    peer = type("OtherApi", (Api,), members)
    [make] = adapt_manifest("ext", SimpleNamespace(signal_types=(), content_types=(), apis=(peer,))).exchanges
    made = make(Means(reader=MemoryReader({}), transport=quick_transport(), signal_types=SIGNAL_TYPES))
    assert isinstance(made, PeerExchange)
    return made


def deltas(of: PeerExchange, checkpoint: Mapping[str, JSON] | None = None) -> list[Delta]:
    return list(of.joined(CONFIG).fetch(checkpoint, credentials=None, now_s=0).deltas)


def test_the_fields_of_its_configuration_are_ours() -> None:
    made = exchange()
    assert [(each.name, each.type, each.required, each.choices) for each in made.config_fields] == [
        ("path", "str", True, None),
        ("limit", "int", False, None),
        ("mode", "str", False, ("fast", "full")),
        ("only", "set[int]", False, None),
    ]
    assert [each.help for each in made.config_fields][:2] == ["where it is", "limit"]
    deltas(made)
    [collaboration, _] = made.peer.asked
    assert collaboration == Config("api", "api", True, "/x", None, Mode.FAST, {1, 2}, 0.5)


def test_a_field_that_cannot_be_configured_is_refused_where_it_is_needed() -> None:
    @dataclass
    class Odd:
        name: str
        when: complex

    with pytest.raises(InvalidInput, match="the field 'when' of Odd is of a type that cannot be configured"):
        exchange(get_config_cls=staticmethod(lambda: Odd))


def test_each_update_is_a_delta_with_its_checkpoint_as_json() -> None:
    made = exchange(
        updates=(
            (At(1), {("pdq", "x"): {"pdq": ["x"], "raw_text": ["y"], "unknown": ["z"]}, 7: {"raw_text": ["w"]}}),
            (At(2), {"k": None}),
        )
    )
    first, second = deltas(made)
    assert json.loads(json.dumps(first.checkpoint)) == {"checkpoint": {"number": 1}}
    assert list(first.changes) == ['["pdq", "x"]', "7"]
    data = first.changes['["pdq", "x"]']
    assert data is not None
    assert made.joined(CONFIG).signals(data) == [Signal(type="pdq", value="x"), Signal(type="raw_text", value="y")]
    assert made.joined(CONFIG).opinions(data) == [Opinion(category=Category.POSITIVE_CLASS, tags=frozenset({"a", "b"}))]
    assert second.changes == {'"k"': None}


def test_a_fetch_goes_on_from_its_checkpoint_and_begins_anew_where_that_is_stale() -> None:
    made = exchange(updates=())
    for kept, restarts, asked in (
        (None, True, None),
        ({"checkpoint": {"number": 3}}, False, At(3)),
        ({"checkpoint": {"number": -1}}, True, None),
    ):
        fetch = made.joined(CONFIG).fetch(kept, credentials=None, now_s=0)
        assert (fetch.restarts, list(fetch.deltas)) == (restarts, [])
        assert made.peer.asked[1] == asked


def test_a_checkpoint_of_another_form_is_refused() -> None:
    made = exchange()
    with pytest.raises(InvalidInput, match="the stored value is not a valid At"):
        deltas(made, {"checkpoint": {"at": 1}})


def test_a_checkpoint_that_goes_back_is_an_error() -> None:
    made = exchange(updates=((At(2), {}), (At(1), {})))
    with pytest.raises(ExchangeFailed, match="api: its checkpoint went back in time"):
        deltas(made)
    with pytest.raises(ExchangeFailed, match="went back"):
        deltas(made, {"checkpoint": {"number": 5}})


def test_a_checkpoint_without_fields_is_a_fetch_of_everything_each_time() -> None:
    made = exchange(checkpoint=Nothing, updates=((Nothing(), {"k": {"raw_text": ["a"]}}),))
    assert made.joined(CONFIG).fetch({"checkpoint": {}}, credentials=None, now_s=0).restarts


def test_a_record_with_many_signals_of_a_type_is_split_where_all_is_fetched_again() -> None:
    updates = {"k": {"raw_text": ["a", "b", "c"], "pdq": ["p"]}}
    made = exchange(checkpoint=Nothing, updates=((Nothing(), updates),))
    [delta] = deltas(made)
    assert {key: made.joined(CONFIG).signals(data) for key, data in delta.changes.items() if data is not None} == {
        '"k"': [Signal(type="raw_text", value="a"), Signal(type="pdq", value="p")],
        '"k" 2': [Signal(type="raw_text", value="b")],
        '"k" 3': [Signal(type="raw_text", value="c")],
    }
    [delta] = deltas(exchange(updates=((At(1), updates),)), {"checkpoint": {"number": 0}})
    assert (list(delta.changes), delta.malformed_items) == (['"k"'], 2)


def test_a_record_that_cannot_be_converted_or_kept_is_counted() -> None:
    updates = {"bad": 1, "long": {"raw_text": ["x" * 300_000]}, "good": {"raw_text": ["a"]}, "empty": {}}
    [delta] = deltas(exchange(updates=((At(1), updates),)))
    assert (list(delta.changes), delta.malformed_items) == (['"good"', '"empty"'], 2)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError("https://host/?token=secret"), ExchangeFailed, "api: its extension failed with OSError"),
        (type("SignalExchangeAPIMissingAuthException", (Exception,), {})(), InvalidInput, "api needs credentials"),
    ],
)
def test_a_failure_is_told_by_its_kind_alone(error: Exception, expected: type[Exception], message: str) -> None:
    with pytest.raises(expected, match=f"^{message}") as caught:
        deltas(exchange(updates=((error, {}),)))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_lacks_a_method_or_merges_by_itself_is_refused() -> None:
    with pytest.raises(InvalidInput, match="OtherApi lacks for_collab"):
        exchange(for_collab=None)
    with pytest.raises(InvalidInput, match="OtherApi merges records by itself"):
        exchange(fetch_value_merge=classmethod(lambda cls, old, new: new))
    base = type("SignalExchangeAPI", (Api,), {"fetch_value_merge": classmethod(lambda cls, old, new: new)})
    assert PeerExchange.of(type("Other", (base,), {}), []).kind == "api"


class Credentials:
    """Credentials in the peer's form."""

    ENV_VARIABLE = "API_TOKEN"
    FILE_NAME = "~/.api_token"

    def __init__(self, token: str) -> None:
        self.token = token

    @classmethod
    def _from_str(cls, s: str) -> "Credentials | None":
        if s == "none":
            return None
        if s == "fail":
            raise ValueError(s)
        return cls(s)

    def _are_valid(self) -> bool:
        return self.token != "wrong"


def test_credentials_are_one_line_that_the_peer_reads() -> None:
    given: list[Any] = []

    def for_collab(cls: Any, collab: Any, credentials: Any = None) -> Any:
        given.append(credentials)
        cls.asked = []
        return cls()

    made = exchange(get_credential_cls=staticmethod(lambda: Credentials), for_collab=classmethod(for_collab))
    source = made.credential_source
    assert source is not None
    assert (source.environment_variable, source.dot_file) == ("API_TOKEN", ".api_token")
    assert made.credential_fields is not None
    credentials = made.parse_credentials(" t \n")
    list(made.joined(CONFIG).fetch(None, credentials=credentials, now_s=0).deltas)
    assert given[0].token == "t"
    deltas(made)
    assert given[1] is None  # then it looks for them by itself
    for text in ("none", "fail", "wrong"):
        with pytest.raises(InvalidInput, match="api does not accept these credentials") as caught:
            made.parse_credentials(text)
        assert text not in str(caught.value)


def test_an_exchange_without_credentials_takes_none() -> None:
    made = exchange()
    assert (made.credential_fields, made.credential_source) == (None, None)
    with pytest.raises(InvalidInput, match="api takes no credentials"):
        made.parse_credentials("t")


def test_the_peer_knows_our_signal_types_by_name_and_check() -> None:
    known: dict[str, Any] = {}

    def convert(cls: Any, signal_types: Any, collab: Any, fetched: Any) -> Any:
        known.update({each.get_name(): each for each in signal_types})
        return {}

    deltas(exchange(updates=((At(1), {"k": {}}),), naive_convert_to_signal_type=classmethod(convert)))
    assert known.keys() == SIGNAL_TYPES.keys()
    assert known["raw_text"].validate_signal_str(" a ") == "a"
    assert known["pdq"].get_examples()
    with pytest.raises(ValueError, match="a PDQ signal"):
        known["pdq"].validate_signal_str("x")


def test_a_signal_type_of_the_peer_is_handed_back_as_it_came() -> None:
    made = signal_type()
    assert isinstance(made, PeerSignalType)
    seen: list[Any] = []

    def fetch_iter(self: Any, supported_signal_types: Any, checkpoint: Any) -> Iterator[Any]:
        seen.extend(supported_signal_types)
        return iter(())

    peer = type("OtherApi", (Api,), {"fetch_iter": fetch_iter})
    manifest = SimpleNamespace(signal_types=(), content_types=(), apis=(peer,))
    make: Callable[[Means], Any] = adapt_manifest("ext", manifest).exchanges[0]
    deltas(make(Means(reader=MemoryReader({}), transport=quick_transport(), signal_types={"length": made})))
    assert seen == [LengthSignal]
