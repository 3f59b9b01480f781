"""Bands: multi-index hashing of variable radius, planned for the number of hashes.

Cut a key into bands, and give band i a radius r_i such that the sum of (r_i + 1) is larger than the reach
of a search. Two keys within reach then differ in at most r_i bits of some band i: were it r_i + 1 or more
in every one, they would differ in more bits than the reach. So it is enough to look up, band by band, the
keys up to r_i bits from the query's, and to compare what is found there.

Source: M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
2012, with a radius for each band in place of one for all.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from countermark.errors import IndexDamaged
from countermark.indexes.codec import Band
from countermark.indexes.keys import Keys, Sections
from countermark.indexes.slices import blocks, over_slices, threads

MAX_BANDS = 16
"""The most bands of a plan: each costs 4 bytes a hash, and more of them never pay within `MAX_BAND_BITS`."""

MIN_BAND_BITS, MAX_BAND_BITS = 8, 24
"""The narrowest and widest band of a plan: a table of 24 bits has 64 MiB of offsets, whatever it holds."""

MAX_OFFSET_BYTES_EACH, MAX_OFFSET_BYTES_OF_FEW = 20, 6 * 2**20
"""How large the offsets of a plan may be: so many bytes for each hash, and that many in all where hashes are few.

Three times as many would save a query a tenth of its time.
"""

QUERY_NS, PROBE_NS, CANDIDATE_NS, SCAN_NS = 45_000, 18, 30, 1.2
"""What a query costs at least, each key that it probes, each row that it compares, and each row of a scan.

Nanoseconds, measured on one core of a Xeon of 2023 at 1 and 10 million hashes; only their ratios count.
"""

SCAN_SHARE = 100
"""A query with more candidates than one in so many of the hashes scans them all: that takes no longer."""

MAX_GATHERED = 2**16
"""How many candidates of several queries are compared at once: a megabyte, which stays in the processor's cache."""

_ROW_BITS = np.uint64(32)
"""A row fits 32 bits, as the format has it; so the band's key goes above it."""

_COUNTED = 2**14
"""How many keys of a band are counted at once: so few that their counters stay in the processor's cache."""

MAX_PROBED = 2**14
"""How many keys of several queries are looked up at once, for the same reason."""


def plan_bands(hashes: int, *, key_bits: int, reach: int) -> tuple[Band, ...]:
    """Return the bands with which a search for keys up to `reach` bits away costs least; none where a scan does.

    A plan must halve the cost of a scan: it takes three times its memory.
    """
    plans = list(_plans(key_bits, reach, max_offset_bytes=max_offset_bytes(hashes)))
    best = min(plans, key=lambda bands: cost_ns(bands, hashes), default=())
    is_worth_it = best and 2 * cost_ns(best, hashes) <= QUERY_NS + SCAN_NS * hashes
    return best if is_worth_it else ()


def max_offset_bytes(hashes: int) -> int:
    """Return how large the offsets of bands for so many hashes may be."""
    return max(MAX_OFFSET_BYTES_EACH * hashes, MAX_OFFSET_BYTES_OF_FEW)


def cost_ns(bands: Sequence[Band], hashes: int) -> float:
    """Return what a query of uniform keys costs by these bands, in nanoseconds."""
    probes = [_probes(band.bits, band.radius) for band in bands]
    candidates = hashes * sum(math.ldexp(count, -band.bits) for count, band in zip(probes, bands, strict=True))
    return QUERY_NS + PROBE_NS * sum(probes) + CANDIDATE_NS * candidates


def reach_of(bands: Sequence[Band]) -> int:
    """Return up to how many differing bits the bands find every key; -1 where they overlap or are none."""
    ends = sorted((band.start_bit, band.start_bit + band.bits) for band in bands)
    if any(start < end for (_, end), (start, _) in itertools.pairwise(ends)):
        return -1
    return sum(band.radius + 1 for band in bands) - 1


def build_bands(keys: Keys, bands: Sequence[Band]) -> dict[str, memoryview]:
    """Return the sections of the bands' tables, of distinct keys, uint8 of shape (n, key_bytes)."""
    lengths = {"OFFS": 4 * sum((1 << band.bits) + 1 for band in bands), "IDS": 4 * len(keys) * len(bands)}
    sections = {name: np.empty(length, np.uint8).data for name, length in lengths.items()}
    write_bands(keys, bands, sections)
    return sections


def write_bands(keys: Keys, bands: Sequence[Band], sections: Mapping[str, memoryview]) -> None:
    """Write the bands' tables of distinct keys into the memory of their sections.

    Besides the tables themselves it takes 8 bytes of memory for each key and thread.
    """
    words = _words(keys)
    ends = np.cumsum([0, *((1 << band.bits) + 1 for band in bands)]).tolist()
    offsets = np.frombuffer(sections["OFFS"], "<u4")
    rows = np.frombuffer(sections["IDS"], "<u4").reshape(len(bands), len(keys))

    def build(numbers: range) -> None:
        # Memory that is new costs more than what is done in it: all bands of a thread are sorted in the same.
        tagged = np.empty(len(keys), np.uint64)
        for number in numbers:
            # Band key above, row below: one sort of numbers is faster than a sort that carries the rows along.
            for some in blocks(len(keys)):
                part = tagged[some]
                _cut(words[some], bands[number], out=part)
                part <<= _ROW_BITS
                part |= np.arange(some.start, some.stop, dtype=np.uint64)
            tagged.sort()
            rows[number] = tagged
            _count(tagged, offsets[ends[number] : ends[number + 1]])

    over_slices(build, [range(first, len(bands), threads()) for first in range(min(threads(), len(bands)))])


def _cut(words: NDArray[np.uint64], band: Band, *, out: NDArray[np.uint64]) -> None:
    """Write the bits of one band of some keys."""
    word, shift = divmod(band.start_bit, 64)
    np.right_shift(words[:, word], np.uint64(shift), out=out)
    if shift + band.bits > 64:
        out |= words[:, word + 1] << np.uint64(64 - shift)
    out &= np.uint64((1 << band.bits) - 1)


def _count(tagged: NDArray[np.uint64], offsets: NDArray[np.uint32]) -> None:
    """Write how many band keys, in ascending numbers above their rows, are below each from 0 on, some at a time."""
    firsts = range(0, len(offsets), _COUNTED)
    edges = [*tagged.searchsorted(np.array(firsts, np.uint64) << _ROW_BITS).tolist(), len(tagged)]
    for first, (low, high) in zip(firsts, itertools.pairwise(edges), strict=True):
        some = offsets[first : first + _COUNTED]
        counts = np.bincount((tagged[low:high] >> _ROW_BITS).view(np.int64) - first, minlength=len(some))
        some[0] = low
        np.cumsum(counts[: len(some) - 1], out=some[1:])
        some[1:] += np.uint32(low)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Rows that some queries have to be compared with.

    `counts`, int64, tells how many are of each query, from the one at the place `first` on; `row`, uint32,
    holds them in the queries' order, not all of one's distinct. `too_many`, int64, are places of queries
    that have more than anybody wants to compare.
    """

    first: int
    counts: NDArray[np.int64]
    row: NDArray[np.uint32]
    too_many: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cut:
    """How bands are cut out of keys, all at once: each lies in one number, or runs on into the next."""

    word: NDArray[np.int64]
    next_word: NDArray[np.int64]
    shift: NDArray[np.uint64]
    next_shift: NDArray[np.uint64]
    next_mask: NDArray[np.uint64]
    mask: NDArray[np.uint64]

    @classmethod
    def of(cls, bands: Sequence[Band]) -> "_Cut":
        start = np.array([band.start_bit for band in bands], np.int64)
        mask = np.array([(1 << band.bits) - 1 for band in bands], np.uint64)
        word, shift = start // 64, (start % 64).astype(np.uint64)
        runs_on = np.array([band.start_bit % 64 + band.bits > 64 for band in bands], bool)
        return cls(
            word=word,
            next_word=np.where(runs_on, word + 1, word),
            shift=shift,
            next_shift=np.where(runs_on, np.uint64(64) - shift, np.uint64(0)),
            next_mask=np.where(runs_on, mask, np.uint64(0)),
            mask=mask,
        )

    def keys(self, words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the bits of each band of each key, of shape (keys, bands)."""
        bits = words.take(self.word, axis=1)
        bits >>= self.shift
        rest = words.take(self.next_word, axis=1)
        rest <<= self.next_shift
        rest &= self.next_mask
        bits |= rest
        bits &= self.mask
        return bits.view(np.int64)


class BandTables:
    """The tables of a segment's bands. Immutable, and safe for threads."""

    def __init__(self, bands: Sequence[Band], sections: Sections, *, hashes: int) -> None:
        """Take the sections OFFS and IDS, after a look at every number in them.

        Raises:
            IndexDamaged: They point beyond each other, or beyond the keys.
        """
        self._offsets = np.frombuffer(sections["OFFS"], "<u4")
        sizes = [(1 << band.bits) + 1 for band in bands]
        bases = np.cumsum([0, *sizes])
        for start, end in itertools.pairwise(bases.tolist()):
            table = self._offsets[start:end]
            if table[0] != 0 or table[-1] != hashes or not _ascends(table):
                raise IndexDamaged("the offsets of a segment's bands make no sense")
        self._rows = np.frombuffer(sections["IDS"], "<u4")
        if max(over_slices(_largest, np.array_split(self._rows, len(bands))), default=0) >= max(1, hashes):
            raise IndexDamaged("the bands of a segment name keys that it does not hold")
        masks = [_masks(band.bits, band.radius) for band in bands]
        band = np.repeat(np.arange(len(bands)), [len(each) for each in masks])
        self._band = band
        self._mask = np.concatenate(masks)
        self._offsets_base = bases[band]
        self._rows_base = band * hashes
        self._cut = _Cut.of(bands)

    def candidates(self, keys: Keys, most: int) -> Iterator[Candidates]:
        """Yield the candidates of some queries after the other, but of those that have more than `most`.

        How many there are is known from the offsets: of a query with too many, none are gathered.
        """
        words = _words(keys)
        step = max(1, MAX_PROBED // len(self._mask))
        for first in range(0, len(words), step):
            yield from self._some(words[first : first + step], first, most)

    def _some(self, words: NDArray[np.uint64], first: int, most: int) -> Iterator[Candidates]:
        place = self._cut.keys(words).take(self._band, axis=1)
        place ^= self._mask
        place += self._offsets_base
        begin = self._offsets.take(place)
        place += 1
        many = np.subtract(self._offsets.take(place), begin, dtype=np.int64)
        # The rows of probe i run from begin[i] on, many[i] of them.
        begin = np.add(begin, self._rows_base, out=place)
        counts = many.sum(axis=1)
        (too_many,) = (counts > most).nonzero()
        if len(too_many):
            many[too_many] = counts[too_many] = 0
        for low, high in _parts(counts):
            yield Candidates(
                first=first + low,
                counts=counts[low:high],
                row=self._gather(begin[low:high].ravel(), many[low:high].ravel()),
                too_many=too_many + first,
            )
            too_many = too_many[:0]

    def _gather(self, begin: NDArray[np.int64], many: NDArray[np.int64]) -> NDArray[np.uint32]:
        begin[1:] -= many.cumsum()[:-1]
        at = begin.repeat(many)
        at += np.arange(len(at))
        return self._rows.take(at)


def _parts(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of queries that together have few of so many candidates."""
    ends = counts.cumsum()
    if ends[-1] <= MAX_GATHERED:
        yield 0, len(counts)
        return
    low = gathered = 0
    while low < len(ends):
        high = max(low + 1, int(ends.searchsorted(gathered + MAX_GATHERED, side="right")))
        yield low, high
        low, gathered = high, int(ends[high - 1])


def _ascends(table: NDArray[np.uint32]) -> bool:
    return all(np.all(table[some] <= table[1:][some]) for some in blocks(len(table) - 1))


def _largest(rows: NDArray[np.uint32]) -> int:
    return int(rows.max(initial=0))


def _plans(key_bits: int, reach: int, *, max_offset_bytes: int) -> Iterator[tuple[Band, ...]]:
    """Yield the plans to choose from: radii as equal as can be, and more bits where the radius is larger."""
    for count in range(1, min(MAX_BANDS, reach + 1) + 1):
        radius, larger = divmod(reach + 1, count)
        radii = [radius] * larger + [radius - 1] * (count - larger)
        for wide in range(MIN_BAND_BITS, MAX_BAND_BITS + 1):
            widths = _widths(key_bits, larger, count - larger, wide)
            if widths is None or sum(4 * ((1 << bits) + 1) for bits in widths) > max_offset_bytes:
                continue
            starts = [0, *itertools.accumulate(widths)][:-1]
            yield tuple(
                Band(start_bit=start, bits=bits, radius=radius)
                for start, bits, radius in zip(starts, widths, radii, strict=True)
            )


def _widths(key_bits: int, wide_bands: int, narrow_bands: int, wide: int) -> list[int] | None:
    """Return the bits of each band, of which the first have `wide`; None where the key is too short or long."""
    rest = key_bits - wide_bands * wide
    width, wider = divmod(rest, narrow_bands)
    if rest < 0 or width < MIN_BAND_BITS or width + bool(wider) > MAX_BAND_BITS:
        return None
    return [wide] * wide_bands + [width + 1] * wider + [width] * (narrow_bands - wider)


def _probes(bits: int, radius: int) -> int:
    return sum(math.comb(bits, flipped) for flipped in range(radius + 1))


@cache
def _masks(bits: int, radius: int) -> NDArray[np.int64]:
    """Return all numbers of `bits` bits of which at most `radius` are set, ascending."""
    flips = (places for flipped in range(radius + 1) for places in itertools.combinations(range(bits), flipped))
    return np.array(sorted(sum(1 << place for place in places) for places in flips), np.int64)


def _words(keys: Keys) -> NDArray[np.uint64]:
    """Return keys as numbers, of shape (n, key_bytes / 8): bit i of a key is bit i % 64 of its number i // 64."""
    return np.ascontiguousarray(keys).view("<u8")
