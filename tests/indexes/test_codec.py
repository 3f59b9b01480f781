import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from countermark.domain.decision import Candidate
from countermark.domain.signal import IndexKind, SignalType
from countermark.errors import IndexDamaged
from countermark.indexes.codec import (
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    Band,
    Buffer,
    SegmentInfo,
    decode_segment,
    encode_segment,
    read_info,
)
from countermark.indexes.segments import Searcher, open_segment
from tests.indexes.built import build_segment
from tests.indexes.small_types import CLIPS, MD5, NUMBERS, ODD_BITS, ONE_OF_EACH_KIND, PDQ, TEXT, vector

GOLDEN = Path(__file__).parent / "golden"
ENTRIES = {
    "pdq": [("f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22", 1), ("0" * 64, 3), ("0" * 64, 2)],
    "video_md5": [("d41d8cd98f00b204e9800998ecf8427e", 2**53 - 1), ("ff" * 16, 4), ("00" * 16, 5)],
    "raw_text": [("naïve", 6), ("a", 7), ("", 8)],
    "clips": [(".".join([f"{1:032x}", "0f" * 16]), 1), ("0f" * 16, 2), (".".join([f"{1:032x}", "f0" * 16]), 3)],
    "numbers": [(vector(0, 0, 1), 1), (vector(0.5, -2, 3), 2), (vector(0, 0, 1), 3)],
}
of_each_kind = pytest.mark.parametrize("signal_type", ONE_OF_EACH_KIND, ids=lambda signal_type: signal_type.name)


def small(signal_type: SignalType) -> bytes:
    return build_segment(signal_type, ENTRIES[signal_type.name], removed=[9, 10], build_id="golden-1")


def sections(data: bytes) -> dict[str, Buffer]:
    return dict(decode_segment(data).sections)


@of_each_kind
def test_what_is_written_is_what_is_read(signal_type: SignalType) -> None:
    data = small(signal_type)
    file = decode_segment(data)
    assert file.info == read_info(data)
    assert (file.info.signal_type, file.info.build_id, file.info.removed) == (signal_type.name, "golden-1", 2)
    assert encode_segment(file.info, file.sections) == data
    assert all(section.readonly for section in file.sections.values())


@of_each_kind
def test_sections_lie_at_multiples_of_a_cache_line(signal_type: SignalType) -> None:
    data = np.frombuffer(small(signal_type), np.uint8)
    file = decode_segment(data.data)
    starts = [np.frombuffer(part, np.uint8).ctypes.data - data.ctypes.data for part in file.sections.values()]
    assert all(start % 64 == 0 for start in starts)
    assert len(data) % 64 == 0


@of_each_kind
def test_every_flipped_byte_is_an_error(signal_type: SignalType) -> None:
    data = small(signal_type)
    for place in range(len(data)):
        for bits in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= bits
            with pytest.raises(IndexDamaged):
                open_segment(damaged, signal_type)


@of_each_kind
def test_every_truncation_and_anything_appended_is_an_error(signal_type: SignalType) -> None:
    data = small(signal_type)
    for end in range(len(data)):
        with pytest.raises(IndexDamaged):
            open_segment(data[:end], signal_type)
    for more in (b"\0", b"\0" * 64, data):
        with pytest.raises(IndexDamaged):
            open_segment(data + more, signal_type)


@of_each_kind
def test_a_digest_of_the_whole_proves_every_byte(signal_type: SignalType) -> None:
    data = small(signal_type)
    sha256 = hashlib.sha256(data).hexdigest()
    assert decode_segment(data, sha256=sha256).sections.keys() == decode_segment(data).sections.keys()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(IndexDamaged, match="SHA-256 that its manifest names"):
            open_segment(damaged, signal_type, sha256=sha256)


@of_each_kind
def test_segments_of_format_version_1_still_read(signal_type: SignalType) -> None:
    data = (GOLDEN / f"{signal_type.name}-1.segment").read_bytes()
    index = Searcher([open_segment(data, signal_type)])
    for value, content_id in ENTRIES[signal_type.name]:
        assert content_id in {candidate.content_id for candidate in index.query(value)}
    assert index.segments[0].removed.tolist() == [9, 10]
    assert small(signal_type) == data


def sealed(header: bytes, rest: bytes) -> bytes:
    """Return a segment whose header was tampered with, and its checksum made to fit."""
    return header[:-32] + hashlib.sha256(header[:-32]).digest() + rest


def header_bytes(data: bytes) -> int:
    size: int = struct.unpack_from("<I", data, 12)[0]
    return size


@pytest.mark.parametrize(
    ("offset", "field", "value", "message"),
    [
        (8, "<I", 0, "format version 0"),
        (8, "<I", 2, "format version 2"),
        (12, "<I", 0, "header cannot have 0 bytes"),
        (12, "<I", 64, "header cannot have 64 bytes"),
        (12, "<I", 2**32 - 1, "header cannot have"),
        (16, "<Q", 64, "sections are not where"),
        (16, "<Q", 2**64 - 1, "sections are not where"),
        (24, "<I", 0, "malformed"),
        (24, "<I", 2, "malformed|not where"),
        (24, "<I", 4, "malformed"),
        (24, "<I", 5, "malformed"),
        (24, "<I", 6, "malformed"),
        (28, "<I", 0, "keys of 0 bytes"),
        (28, "<I", 24, "keys of 24 bytes"),
        (28, "<I", 48, "not where"),
        (32, "<Q", 1, "not where"),
        (32, "<Q", 2**63, "impossible"),
        (40, "<Q", 2, "not where"),
        (40, "<Q", 1, "impossible"),
        (40, "<Q", 2**32, "impossible"),
        (48, "<Q", 3, "not where"),
        (48, "<Q", 2**32, "impossible"),
        (56, "<I", 1, "malformed"),
        (60, "<I", 4, "header cannot have"),
        (64, "<B", 0, "malformed"),
        (64, "<B", 0xC3, "malformed"),
        (64, "<B", 7, "malformed"),
        (127, "<B", 65, "malformed"),
        (192, "<B", 67, "malformed"),
        (208, "<Q", 2**63, "not where"),
        (216, "<Q", 2**63, "not where"),
    ],
)
def test_a_header_that_is_malformed_is_refused_though_its_checksum_fits(
    offset: int, field: str, value: int, message: str
) -> None:
    data = small(PDQ)
    end = header_bytes(data)
    header = bytearray(data[:end])
    struct.pack_into(field, header, offset, value)
    with pytest.raises(IndexDamaged, match=message):
        decode_segment(sealed(bytes(header), data[end:]))


def test_bytes_between_the_tables_and_the_checksum_of_a_header_are_zero() -> None:
    data = small(MD5)
    end = header_bytes(data)
    header = bytearray(data[:end])
    assert not any(header[-40:-32])
    header[-40] = 1
    with pytest.raises(IndexDamaged, match="does not define"):
        decode_segment(sealed(bytes(header), data[end:]))


def test_a_header_larger_than_any_is_not_read() -> None:
    bands = tuple(Band(start_bit=0, bits=1, radius=0) for _ in range(MAX_HEADER_BYTES // 16))
    info = replace(read_info(build_segment(PDQ, [], build_id="b")), bands=bands)
    empty: dict[str, Buffer] = dict.fromkeys(("A", "B", "IDS", "ENTRY", "REMOVED"), b"")
    data = encode_segment(info, empty | {"OFFS": bytes(4 * 3 * len(bands)), "ENTRYAT": bytes(4)})
    with pytest.raises(IndexDamaged, match="header cannot have"):
        decode_segment(data)


Change = Callable[[dict[str, Buffer]], dict[str, Buffer]]


def with_numbers(name: str, kind: str, *numbers: int) -> Change:
    return lambda parts: parts | {name: np.array(numbers, kind).tobytes()}


@pytest.mark.parametrize(
    ("signal_type", "change", "message"),
    [
        (PDQ, with_numbers("ENTRYAT", "<u4", 1, 2, 3), "entries of a segment"),
        (PDQ, with_numbers("ENTRYAT", "<u4", 0, 0, 3), "entries of a segment"),
        (PDQ, with_numbers("ENTRYAT", "<u4", 0, 4, 3), "entries of a segment"),
        (PDQ, with_numbers("ENTRYAT", "<u4", 0, 1, 2), "entries of a segment"),
        (PDQ, with_numbers("REMOVED", "<u8", 10, 9), "removed ids"),
        (PDQ, with_numbers("REMOVED", "<u8", 9, 9), "removed ids"),
        (PDQ, with_numbers("ENTRY", "<u8", 1, 2, 2**53), "id that no content has"),
        (MD5, with_numbers("HEAD", "<u8", 2, 1, 3), "digests of a segment are not in order"),
        (TEXT, with_numbers("TEXTAT", "<u8", 1, 1, 2, 7), "texts of a segment"),
        (TEXT, with_numbers("TEXTAT", "<u8", 0, 3, 2, 7), "texts of a segment"),
        (TEXT, with_numbers("TEXTAT", "<u8", 0, 1, 2, 6), "texts of a segment"),
        (TEXT, with_numbers("TEXTAT", "<u8", 0, 0, 4, 7), "not a signal of its type"),
        # Three frames: in the signals 1 and 2, 0 and 1, and 2 of the order that the keys have.
        (CLIPS, with_numbers("FRAMEAT", "<u4", 1, 2, 4, 5), "frames of a segment are not where"),
        (CLIPS, with_numbers("FRAMEAT", "<u4", 0, 2, 2, 5), "frames of a segment are not where"),
        (CLIPS, with_numbers("FRAMEAT", "<u4", 0, 2, 4, 6), "frames of a segment are not where"),
        (CLIPS, with_numbers("FRAMEAT", "<u4", 0, 2, 5), "frames of a segment are not where"),
        (CLIPS, with_numbers("FRAMEIN", "<u4", 0, 1, 1, 2, 3), "frames of a segment are not where"),
        (CLIPS, with_numbers("FRAMEIN", "<u4", 0, 1, 0, 1, 1), "a signal without frames"),
        (CLIPS, with_numbers("A", "<u4", 1, 2, 3), "ends within a frame"),
        (CLIPS, with_numbers("B", "<u8", 1, 2), "different lengths"),
    ],
)
def test_arrays_that_are_malformed_are_refused_though_their_checksums_fit(
    signal_type: SignalType, change: Change, message: str
) -> None:
    data = small(signal_type)
    with pytest.raises(IndexDamaged, match=message):
        open_segment(encode_segment(read_info(data), change(sections(data))), signal_type)


def test_padding_after_a_section_is_zero() -> None:
    data = bytearray(small(PDQ))
    data[-1] = 1
    with pytest.raises(IndexDamaged, match="padding after section REMOVED"):
        decode_segment(data)


def test_bands_for_multi_index_hashing_fit_the_format_and_change_no_answer() -> None:
    data = small(PDQ)
    info = replace(read_info(data), bands=(Band(start_bit=0, bits=8, radius=8), Band(start_bit=248, bits=8, radius=8)))
    offsets = np.concatenate([[0], np.full(256, 2), [0], np.full(256, 2)]).astype("<u4")
    bands: dict[str, Buffer] = {"OFFS": offsets.tobytes(), "IDS": np.array([0, 1, 0, 1], "<u4").tobytes()}
    with_bands = encode_segment(info, sections(data) | bands)
    assert decode_segment(with_bands).info.bands == info.bands
    index = Searcher([open_segment(with_bands, PDQ)])
    assert index.query("0" * 64) == [Candidate(content_id=2, distance=0), Candidate(content_id=3, distance=0)]
    with pytest.raises(ValueError, match="section OFFS"):
        encode_segment(info, sections(data))


@pytest.mark.parametrize(
    "band",
    [Band(start_bit=250, bits=8, radius=1), Band(start_bit=0, bits=0, radius=0), Band(start_bit=0, bits=33, radius=1)],
)
def test_a_band_outside_the_key_is_refused(band: Band) -> None:
    data = small(PDQ)
    with pytest.raises(ValueError, match="does not fit keys of 32 bytes"):
        encode_segment(replace(read_info(data), bands=(band,)), sections(data))


def test_bands_are_for_hamming_only() -> None:
    data = small(MD5)
    info = replace(read_info(data), bands=(Band(start_bit=0, bits=8, radius=1),))
    with pytest.raises(ValueError, match="the exact index has no bands"):
        encode_segment(info, sections(data))


@pytest.mark.parametrize("name", ["", "é", "a\n", "x" * (MAX_NAME_BYTES + 1)])
def test_a_name_that_does_not_fit_the_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a name|can't encode"):
        build_segment(MD5, [], build_id=name)
    assert read_info(build_segment(MD5, [], build_id="x" * MAX_NAME_BYTES)).build_id == "x" * MAX_NAME_BYTES


def test_sections_that_do_not_fit_the_counts_are_refused() -> None:
    data = small(MD5)
    parts = sections(data)
    info = read_info(data)
    with pytest.raises(ValueError, match="section ENTRY "):
        encode_segment(info, parts | {"ENTRY": b""})
    with pytest.raises(ValueError, match="has the sections"):
        encode_segment(info, parts | {"MORE": b""})
    with pytest.raises(ValueError, match="keys of 0 bytes"):
        encode_segment(replace(info, kind=IndexKind.HAMMING, key_bytes=0), parts)
    del parts["TAIL"]
    with pytest.raises(ValueError, match="section TAIL "):
        encode_segment(info, parts)


@of_each_kind
def test_sections_that_are_written_where_they_lie_make_the_same_segment(signal_type: SignalType) -> None:
    data = small(signal_type)
    parts = sections(data)
    # How long the others are, the counts do not tell.
    left = [name for name in parts if name in {"HEAD", "TAIL", "VECTORS", "ENTRYAT", "ENTRY", "REMOVED"}]

    def write(memory: Mapping[str, memoryview]) -> None:
        assert list(memory) == left
        for name, part in memory.items():
            part[:] = parts[name]

    given = {name: part for name, part in parts.items() if name not in left}
    assert encode_segment(read_info(data), given, write=write) == data


def test_a_section_of_unknown_length_cannot_be_left_to_be_written() -> None:
    data = small(TEXT)
    given = {name: part for name, part in sections(data).items() if name != "TEXT"}
    with pytest.raises(ValueError, match="section TEXT "):
        encode_segment(read_info(data), given, write=lambda _: None)


@pytest.mark.parametrize("key_bytes", [0, 8, 24])
def test_frames_have_two_halves_of_whole_words(key_bytes: int) -> None:
    data = small(CLIPS)
    with pytest.raises(ValueError, match=f"keys of {key_bytes} bytes do not fit the frames index"):
        encode_segment(replace(read_info(data), key_bytes=key_bytes), sections(data))


def test_vectors_are_opened_only_as_the_type_that_they_are_of() -> None:
    data = small(NUMBERS)
    for other in (replace(NUMBERS, dimension=4), replace(ODD_BITS, name="numbers"), replace(CLIPS, name="numbers")):
        with pytest.raises(IndexDamaged, match=r"does not fit|cannot hold"):
            open_segment(data, other)


def test_a_header_alone_tells_what_a_segment_is() -> None:
    data = small(TEXT)
    assert read_info(data[: header_bytes(data)]) == SegmentInfo(
        signal_type="raw_text", kind=IndexKind.LINEAR, key_bytes=0, hashes=3, entries=3, removed=2, build_id="golden-1"
    )
