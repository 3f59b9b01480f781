"""What every signal type keeps, whatever it is of."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import countermark
from countermark.domain.signal import Hasher, IndexKind, MakesQueries, SignalType, Unhashable
from countermark.errors import InvalidInput, InvalidSignal
from countermark.signals import SIGNAL_TYPES, signal_type
from countermark.signals.vpdq import VPDQ

# Those that are installed without being asked for, and those that are an extension of ours.
ALL = {**SIGNAL_TYPES, VPDQ.name: VPDQ}
EVERY_TYPE = pytest.mark.parametrize("kind", ALL.values(), ids=ALL)

# Texts that are not signals, by type; a canonical value shows what is wrong with each.
MD5 = "cab08b36195edb1a1231d2d09fa450e0"
PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"
SHA256 = "ba7816bf8f01cfe414134e77ca982da31a7b0e4a9e5a7a3a2a2a2a2a2a2a2a2a"
NO_SHA256 = ("", " ", SHA256[1:], SHA256 + "0", SHA256 + "\n0", SHA256[:-1] + "g", SHA256[:-1] + "\u0661", MD5)
NO_MD5 = ("", " ", MD5[1:], MD5 + "0", MD5 + "\n0", MD5[:-1] + "g", MD5[:-1] + "\u0661", PDQ)
REFUSED = {
    "pdq": ("", PDQ + "\n", " " + PDQ, PDQ.upper(), PDQ[1:], PDQ + "0", PDQ[:-1] + "g", PDQ[:-1] + "\u0661", MD5),
    "video_md5": NO_MD5,
    "photo_md5": NO_MD5,
    "video_sha256": NO_SHA256,
    "photo_sha256": NO_SHA256,
    "url_md5": NO_MD5,
    "url": ("", " \n", "half a pair: \ud83d", "x" * (64 * 1024 + 1), "\u00e4" * (32 * 1024 + 1)),
    "trend_query": (
        "",
        "null",
        "[]",
        "{}",
        "{" * 100_000,
        '{"and": [], "not": []}',
        '{"and": [{"or": ["a"]}]}',
        '{"not": ["a"]}',
        '{"and": ["a"], "not": []}',
        '{"and": [{"or": "a"}], "not": []}',
        '{"and": [{"or": [1]}], "not": []}',
        '{"and": [{"or": [""]}], "not": []}',
        '{"and": [{"or": ["a"]}], "not": " "}',
        '{"and": [{"or": ["a"]}], "not": [" "]}',
        '{"and": [{"or": ["regex-"]}], "not": []}',
        '{"and": [{"or": ["regex-XX"]}], "not": []}',
        '{"and": [{"or": ["regex-X(X"]}], "not": []}',
        '{"and": [{"or": ["regex-X\\\\L<x>X"]}], "not": []}',
        '{"and": [{"or": ["regex-X' + "(" * 101 + "a" + ")" * 101 + 'X"]}], "not": []}',
        '{"and": [{"or": ["' + "x" * 1001 + '"]}], "not": []}',
        '{"and": [{"or": ["\ud83d"]}], "not": []}',
        '{"and": [{"or": ["a"]}], "not": [' + '"word",' * 9500 + '"word"]}',
    ),
    "vpdq": (
        "",
        "null",
        "{}",
        "[]",
        "[1]",
        "[[]]",
        "[" * 100_000,
        PDQ,
        f'"{PDQ},100,0.0"',
        f'["{PDQ},100"]',
        f'["{PDQ},100,0.0,0"]',
        f'["{PDQ},101,0.0"]',
        f'["{PDQ},-1,0.0"]',
        f'["{PDQ},1_0,0.0"]',
        f'["{PDQ},\u0661,0.0"]',
        f'["{PDQ},49,0.0"]',
        f'["{PDQ},100,-0.1"]',
        f'["{PDQ},100,nan"]',
        f'["{PDQ[1:]},100,0.0"]',
        f'["0x{PDQ[2:]},100,0.0"]',
        f'["{PDQ} ,100,0.0"]',
        f'["{PDQ},100,0.0\\n"]',
        f'["{PDQ},100,0.0", null]',
    ),
    "raw_text": ("", " \n", "half a pair: \ud83d", "x" * (32 * 1024 + 1), "\u00e4" * (16 * 1024 + 1)),
}

# Other ways to write a canonical value, by type.
SAME = {
    "pdq": {},
    "video_md5": {f" {MD5.upper()}\n": MD5},
    "photo_md5": {f"\t{MD5.upper()} ": MD5},
    "video_sha256": {f" {SHA256.upper()}\n": SHA256},
    "photo_sha256": {f"\t{SHA256.upper()} ": SHA256},
    "url": {" HTTPS://Example.com/A?b#c \n": "HTTPS://Example.com/A?b#c", "x" * 64 * 1024: "x" * 64 * 1024},
    "url_md5": {f" {MD5.upper()}\n": MD5},
    "trend_query": {
        ' {"and": [{"or": ["a"]}], "not": []}\n': '{"and": [{"or": ["a"]}], "not": []}',
        '{"and": [{"or": ["' + "x" * 1000 + '"]}], "not": []}': '{"and": [{"or": ["' + "x" * 1000 + '"]}], "not": []}',
    },
    "vpdq": {f'\n["{PDQ.upper()},99,0.0","{PDQ},07,12.345"] ': f'["{PDQ},99,0.0", "{PDQ},7,12.345"]'},
    "raw_text": {"\ufeff A text \n": "A text", " A text \n": "A text", "x" * 32 * 1024: "x" * 32 * 1024},
}


def test_types_are_known_by_their_names_in_order() -> None:
    assert list(SIGNAL_TYPES) == [
        "pdq",
        "video_md5",
        "video_sha256",
        "photo_md5",
        "photo_sha256",
        "raw_text",
        "url",
        "url_md5",
        "trend_query",
    ]
    assert all(signal_type(name) is kind and kind.name == name for name, kind in SIGNAL_TYPES.items())


def test_a_name_that_is_none_is_refused_in_hma_s_words() -> None:
    with pytest.raises(InvalidInput, match=r"^No such SignalType 'zzz'$"):
        signal_type("zzz")


def test_parsing_and_comparing_pdq_loads_no_library() -> None:
    script = (
        "import sys; from countermark.signals import signal_type; kind = signal_type('pdq'); "
        "[kind.compare(kind.parse(each), each) for each in kind.examples]; kind.hasher().update(b'x'); "
        "assert not {'numpy', 'PIL', 'rapidfuzz', 'pdqhash'} & sys.modules.keys()"
    )
    source = str(Path(countermark.__file__).parents[1])
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": source}, timeout=60)


@EVERY_TYPE
def test_examples_are_canonical_distinct_and_match_themselves(kind: SignalType) -> None:
    assert kind.examples
    assert len(set(kind.examples)) == len(kind.examples)
    for example in kind.examples:
        assert kind.parse(example) == example
        comparison = kind.compare(example, example)
        assert comparison.matches
        assert comparison.distance in (None, 0)


@EVERY_TYPE
def test_what_is_not_a_signal_is_refused_and_named(kind: SignalType) -> None:
    for text in REFUSED[kind.name]:
        with pytest.raises(InvalidSignal, match="signal"):
            kind.parse(text)


@EVERY_TYPE
def test_a_refusal_stays_short_however_long_the_text(kind: SignalType) -> None:
    with pytest.raises(InvalidSignal) as refusal:
        kind.parse("z" * 1_000_000)
    assert len(str(refusal.value)) < 250


@EVERY_TYPE
def test_parsing_gives_the_canonical_form_and_keeps_it(kind: SignalType) -> None:
    for text, value in SAME[kind.name].items():
        assert kind.parse(text) == value
        assert kind.parse(value) == value


@EVERY_TYPE
@given(text=st.one_of(st.text(), st.text("0123456789abcdef", min_size=31, max_size=65)))
def test_any_text_is_a_signal_or_refused(kind: SignalType, text: str) -> None:
    try:
        value = kind.parse(text)
    except InvalidSignal:
        return
    assert kind.parse(value) == value
    assert kind.value(kind.key(value)) in (value, None)
    assert kind.compare(value, value).matches


@EVERY_TYPE
def test_keys_bring_values_back_and_are_as_long_as_their_index_needs(kind: SignalType) -> None:
    keys = [kind.key(example) for example in kind.examples]
    for key, example in zip(keys, kind.examples, strict=True):
        assert kind.value(key) == (None if kind.name in {"url", "vpdq"} else example)
    if kind.index_kind not in {IndexKind.LINEAR, IndexKind.FRAMES}:
        assert len({len(key) for key in keys}) == 1


@EVERY_TYPE
def test_comparing_examples_is_symmetric_and_within_the_match_distance(kind: SignalType) -> None:
    for one, other in itertools.product(kind.examples, repeat=2):
        comparison = kind.compare(one, other)
        assert comparison == kind.compare(other, one)
        if kind.index_kind is IndexKind.HAMMING:
            assert comparison.distance is not None
            assert comparison.matches is (comparison.distance <= kind.match_distance)
        elif kind.index_kind is IndexKind.EXACT:
            assert comparison.distance is None
            assert comparison.matches is (one == other)


def hasher_of(kind: SignalType) -> Hasher:
    """Return what makes a signal of content, or what asks the type about it."""
    hasher = kind.hasher()
    if hasher is None:
        assert isinstance(kind, MakesQueries)
        hasher = kind.reader()
    return hasher


@EVERY_TYPE
def test_a_hasher_gives_a_canonical_value_or_says_why_not_however_content_is_cut(kind: SignalType) -> None:
    content = b"some content that is a text and no photo"
    results = []
    for size in (1, 7, len(content)):
        hasher = hasher_of(kind)
        for start in range(0, len(content), size):
            hasher.update(content[start : start + size])
        results.append(hasher.finish())
    assert results[0] == results[1] == results[2]
    if isinstance(results[0], Unhashable):
        assert results[0].reason
    elif kind.hasher() is not None:
        assert isinstance(results[0], str)
        assert kind.parse(results[0]) == results[0]


@EVERY_TYPE
def test_content_of_no_bytes_never_hashes_to_an_empty_text(kind: SignalType) -> None:
    assert hasher_of(kind).finish()


@pytest.mark.parametrize(
    ("name", "query", "banked", "shown"),
    [
        ("pdq", PDQ, PDQ, "0"),
        ("pdq", PDQ[:-1] + "1", PDQ, "2"),
        ("video_md5", MD5, MD5, "-"),
        ("photo_md5", MD5, MD5, "-"),
        ("video_sha256", SHA256, SHA256, "-"),
        ("photo_sha256", SHA256, SHA256, "-"),
        ("url", "https://example.com/", "https://example.com/", "-"),
        ("url_md5", MD5, MD5, "-"),
        ("trend_query", "a b c", '{"and": [{"or": ["b"]}], "not": []}', "-"),
        ("raw_text", "bball now?", "bball now?", "100%"),
        ("raw_text", "abcdefghijklmnopqrstuvwxY", "abcdefghijklmnopqrstuvwxyz", "96%"),
    ],
)
def test_distances_are_shown_as_the_peer_shows_them(name: str, query: str, banked: str, shown: str) -> None:
    kind = signal_type(name)
    comparison = kind.compare(query, banked)
    assert comparison.matches
    assert kind.wire_distance(query, banked, comparison.distance) == shown


@given(st.integers(0, 2**256 - 1), st.sets(st.integers(0, 255), max_size=64))
def test_pdq_matches_up_to_31_bits_apart(value: int, flipped: set[int]) -> None:
    kind = signal_type("pdq")
    other = value ^ sum(1 << bit for bit in flipped)
    comparison = kind.compare(f"{value:064x}", f"{other:064x}")
    assert comparison.distance == len(flipped)
    assert comparison.matches is (len(flipped) <= 31)
