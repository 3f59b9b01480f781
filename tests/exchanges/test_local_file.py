"""The local_file exchange: lines in, deltas out, resumed anywhere."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.domain.exchange import Delta, Fetch
from countermark.domain.json import JSON
from countermark.domain.signal import Signal
from countermark.errors import ExchangeFailed, InvalidInput, NotFound
from countermark.exchanges import exchanges, local_file
from countermark.exchanges.local_file import LINES_PER_DELTA, MAX_LINE_BYTES, LocalFileExchange
from countermark.flows.fetch import LEASE_S
from countermark.signals import SIGNAL_TYPES
from tests.exchanges.house import Mishap, house_of
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.server import Answer, serving

MD5 = "8232159d785739e0ffcf06977f1eda5f"


def exchange_over(data: bytes) -> tuple[LocalFileExchange, MemoryReader]:
    reader = MemoryReader({"f.txt": data})
    return LocalFileExchange(reader, SIGNAL_TYPES), reader


def begin(exchange: LocalFileExchange, checkpoint: Mapping[str, JSON] | None = None, **config: JSON) -> Fetch:
    parsed = exchange.parse_config({"filename": "f.txt", **config})
    return exchange.joined(parsed).fetch(checkpoint, credentials=None, now_s=0)


def signals_of(deltas: list[Delta]) -> list[tuple[Any, Any]]:
    return [
        (data["signal_type"], data["signal"]) for delta in deltas for data in delta.changes.values() if data is not None
    ]


def test_each_line_names_its_type() -> None:
    exchange, _ = exchange_over(f"# a comment\n\nvideo_md5 {MD5}\r\n  raw_text two words \n".encode())
    fetch = begin(exchange)
    assert fetch.restarts
    [delta] = fetch.deltas
    assert signals_of([delta]) == [("video_md5", MD5), ("raw_text", "two words")]
    assert delta.malformed_items == 0


def test_the_configuration_may_name_the_type_of_every_line() -> None:
    exchange, _ = exchange_over(b"bball now?\n# passed over\nraw_text is part of it")
    deltas = list(begin(exchange, signal_type="raw_text").deltas)
    assert signals_of(deltas) == [("raw_text", "bball now?"), ("raw_text", "raw_text is part of it")]


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it() -> None:
    mark = b"\xef\xbb\xbf"
    exchange, _ = exchange_over(mark + f"video_md5 {MD5}\n".encode())
    [delta] = begin(exchange).deltas
    assert (signals_of([delta]), delta.malformed_items) == ([("video_md5", MD5)], 0)
    exchange, _ = exchange_over(mark + b"first\n" + mark + b"second\n")
    [delta] = begin(exchange, signal_type="raw_text").deltas
    assert signals_of([delta]) == [("raw_text", "first"), ("raw_text", "\ufeffsecond")]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_may_end_in_cr_lf_or_crlf_in_any_marked_encoding(end: str, encoding: str) -> None:
    signals = ["buy our pills now", "two\u2028lines\x85in\x0bone", "win a prize today"]
    text = "".join(f"raw_text {signal}{end}" for signal in ["# passed over", *signals])
    exchange, _ = exchange_over(text.replace("raw_text #", "#").encode(encoding))
    deltas = list(begin(exchange).deltas)
    assert signals_of(deltas) == [("raw_text", signal) for signal in signals]
    assert sum(delta.malformed_items for delta in deltas) == 0


def test_a_file_that_an_earlier_version_read_is_read_again_as_its_lines_may_be_others() -> None:
    data = b"raw_text a\rraw_text b\r"
    exchange, _ = exchange_over(data)
    before = hashlib.sha256(b"f.txt\0None\0" + data).hexdigest()
    fetch = begin(exchange, {"digest": before, "lines": None})
    assert fetch.restarts
    assert signals_of(list(fetch.deltas)) == [("raw_text", "a"), ("raw_text", "b")]


@pytest.mark.parametrize(
    "line",
    [
        "raw_text \U0001f44d",
        "video_md5 d41d8cd98f00b204e9800998ecf8427e",
        "url http://",
        "url_md5 D41D8CD98F00B204E9800998ECF8427E",
    ],
)
def test_a_signal_of_nothing_is_kept_as_a_record_counted_and_not_banked(line: str) -> None:
    exchange, _ = exchange_over(f"{line}\nraw_text other words\n".encode())
    with house_of(exchange, {"filename": "f.txt"}, None) as house:
        report = house.fetch()
        assert (report.changed_items, report.malformed_items) == (1, 1)
        assert house.signals() == {("raw_text", "other words")}


def test_a_line_that_goes_takes_its_content_along_where_the_peer_keeps_it() -> None:
    exchange, reader = exchange_over(b"raw_text stays\nraw_text goes\n")
    with house_of(exchange, {"filename": "f.txt"}, None) as house:
        house.fetch()
        assert house.signals() == {("raw_text", "stays"), ("raw_text", "goes")}
        reader.files["f.txt"] = b"raw_text stays\nraw_text comes\n"
        seen = []
        report = house.fetch(on_progress=lambda _: seen.append(house.signals()))
        assert all(("raw_text", "stays") in signals for signals in seen)
        assert (report.changed_items, report.removed_items) == (1, 1)
        assert house.signals() == {("raw_text", "stays"), ("raw_text", "comes")}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 6), max_size=8),
            st.builds(Mishap, is_cut=st.booleans(), is_doubled=st.booleans()),
            st.builds(Mishap, dies_at=st.integers(0, 12), dies_after=st.booleans()),
            st.just(Mishap(is_overtaken=True)),
        ),
        min_size=1,
        max_size=10,
    )
)
def test_whatever_befalls_the_runs_the_bank_ends_equal_to_the_file(history: list[list[int] | Mishap]) -> None:
    exchange, reader = exchange_over(b"")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(lambda _: Answer()) as nowhere,
        house_of(exchange, {"filename": "f.txt"}, None) as house,
    ):
        patch.setattr(local_file, "LINES_PER_DELTA", 2)
        for event in history:
            if isinstance(event, Mishap):
                house.suffer(event, nowhere)
            else:
                reader.files["f.txt"] = b"".join(f"raw_text {number}\n".encode() for number in event)
        house.now_s += LEASE_S
        assert house.fetch().outcome == "complete"
        lines = reader.files["f.txt"].decode().splitlines()
        assert house.signals() == {("raw_text", line.removeprefix("raw_text ")) for line in lines}
        assert house.fetch().changed_items == 0


def test_a_record_gives_its_signal_and_no_opinion() -> None:
    exchange, _ = exchange_over(f"video_md5 {MD5}".encode())
    config = exchange.parse_config({"filename": "f.txt"})
    [delta] = exchange.joined(config).fetch(None, credentials=None, now_s=0).deltas
    [data] = delta.changes.values()
    assert data is not None
    assert list(exchange.joined(config).signals(data)) == [Signal(type="video_md5", value=MD5)]
    assert list(exchange.joined(config).opinions(data)) == []


@pytest.mark.parametrize(
    "line",
    [b"video_md5", b"video_md5  ", b"nosuch " + MD5.encode(), MD5.encode(), b"raw_text \xff\xfe"],
)
def test_a_malformed_line_is_counted_and_passed_over(line: bytes) -> None:
    exchange, _ = exchange_over(line + f"\nvideo_md5 {MD5}\n".encode())
    [delta] = begin(exchange).deltas
    assert delta.malformed_items == 1
    assert signals_of([delta]) == [("video_md5", MD5)]


@pytest.mark.parametrize(("length", "malformed"), [(MAX_LINE_BYTES, 0), (MAX_LINE_BYTES + 1, 1), (200_000, 1)])
def test_a_line_has_a_limit(length: int, malformed: int) -> None:
    line = b"raw_text " + b"x" * (length - 10)
    exchange, _ = exchange_over(line + b"\n" + f"video_md5 {MD5}\n".encode())
    [delta] = begin(exchange).deltas
    assert delta.malformed_items == malformed
    assert len(delta.changes) == 2 - malformed


def test_equal_lines_are_one_record() -> None:
    exchange, _ = exchange_over(f"video_md5 {MD5}\n".encode() * 3)
    [delta] = begin(exchange).deltas
    assert len(delta.changes) == 1


def test_a_file_that_has_not_changed_yields_nothing() -> None:
    exchange, _ = exchange_over(f"video_md5 {MD5}\n".encode())
    [delta] = begin(exchange).deltas
    again = begin(exchange, delta.checkpoint)
    assert not again.restarts
    assert list(again.deltas) == []


def test_a_changed_file_or_configuration_is_read_again_from_the_start() -> None:
    exchange, reader = exchange_over(b"raw_text a\n")
    [delta] = begin(exchange).deltas
    assert begin(exchange, delta.checkpoint, signal_type="raw_text").restarts
    reader.files["f.txt"] = b"raw_text b\n"
    assert begin(exchange, delta.checkpoint).restarts


def test_an_empty_file_is_a_fetch_without_records() -> None:
    exchange, _ = exchange_over(b"")
    fetch = begin(exchange)
    assert fetch.restarts
    [delta] = fetch.deltas
    assert not delta.changes


@given(count=st.integers(min_value=0, max_value=3 * LINES_PER_DELTA + 1), data=st.data())
def test_a_fetch_is_resumed_after_any_delta(count: int, data: st.DataObject) -> None:
    exchange, _ = exchange_over(b"".join(f"raw_text {n}\n".encode() for n in range(count)))
    deltas = list(begin(exchange).deltas)
    assert [signal for _, signal in signals_of(deltas)] == [str(n) for n in range(count)]
    stop = data.draw(st.integers(min_value=0, max_value=len(deltas) - 1))
    resumed = begin(exchange, deltas[stop].checkpoint)
    assert not resumed.restarts
    assert list(resumed.deltas) == deltas[stop + 1 :]


def test_a_file_that_changes_while_it_is_read_is_an_error() -> None:
    exchange, reader = exchange_over(b"raw_text a\n")
    fetch = begin(exchange)
    reader.files["f.txt"] = b"raw_text b\n"
    with pytest.raises(ExchangeFailed, match=r"f\.txt changed"):
        list(fetch.deltas)


def test_a_missing_file_is_an_error_that_names_it() -> None:
    exchange, reader = exchange_over(b"")
    reader.files.clear()
    with pytest.raises(NotFound, match=r"f\.txt"):
        begin(exchange)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs the field 'filename'"),
        ({"filename": ""}, "needs the field 'filename'"),
        ({"filename": 3}, "of type str, not 3"),
        ({"filename": "f", "signal_type": "nosuch"}, "one of .*pdq.*not 'nosuch'"),
        ({"filename": "f", "colour": "red"}, "no field 'colour'"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_field(config: Mapping[str, JSON], message: str) -> None:
    exchange, _ = exchange_over(b"")
    with pytest.raises(InvalidInput, match=message):
        exchange.parse_config(config)


def test_the_registry_holds_each_exchange_by_its_kind() -> None:
    kinds = exchanges(reader=MemoryReader({}), signal_types=SIGNAL_TYPES)
    assert {kind: exchange.kind for kind, exchange in kinds.items()} == {
        "sample": "sample",
        "local_file": "local_file",
    }
