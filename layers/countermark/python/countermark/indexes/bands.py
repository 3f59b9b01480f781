"""Bands: multi-index hashing of variable radius, planned for the number of hashes.

A key is cut into bands. Band i has a radius r_i, and the sum of all (r_i + 1) is larger than the reach of a
search, the largest number of differing bits that it finds. Two keys within reach differ in at most r_i bits
of some band i. If they differed in r_i + 1 or more bits of every band, they would differ in more bits than
the reach. So a search looks up in each band the keys up to r_i bits from the query's, and compares these.

Source: M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
2012. Here each band has its own radius, instead of one radius for all.
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
"""The most bands of a plan. Each costs 4 bytes per hash, and more are never faster within `MAX_BAND_BITS`."""

MIN_BAND_BITS, MAX_BAND_BITS = 8, 24
"""The narrowest and the widest band of a plan. A table of 24 bits has 64 MiB of offsets, for any number of hashes."""

MAX_OFFSET_BYTES_PER_HASH, MIN_OFFSET_LIMIT_BYTES = 20, 6 * 2**20
"""The limit for the offsets of a plan, in bytes per hash, and the total that is allowed in any case.

Three times as many bytes would save a query a tenth of its time.
"""

QUERY_NS, PROBE_NS, CANDIDATE_NS, SCAN_NS = 45_000, 18, 30, 1.2
"""The costs of a query, of each key that it probes, of each row that it compares, and of each row of a scan.

In nanoseconds, measured on one core of a Xeon of 2023 with 1 and 10 million hashes. Only their ratios matter.
"""

SCAN_SHARE = 100
"""If more than one in this many hashes is a candidate, the query scans all hashes, which takes no longer."""

MAX_GATHERED = 2**16
"""How many candidates of several queries are compared at once. They take a megabyte, so they fit the CPU's cache."""

_ROW_BITS = np.uint64(32)
"""The number of bits for a row in a number that holds a row in its lower bits, and a band key above them."""

_COUNTED = 2**14
"""How many keys of a band are counted at once: few enough that their counters stay in the processor's cache."""

MAX_PROBED = 2**14
"""How many keys of several queries are looked up at once, also for the processor's cache."""


def plan_bands(hashes: int, *, key_bits: int, reach: int) -> tuple[Band, ...]:
    """Return the bands with which a search for keys within `reach` bits is cheapest; none if a scan is better.

    A plan must halve the cost of a scan, because it takes three times the memory.
    """
    plans = list(_plans(key_bits, reach, max_offset_bytes=max_offset_bytes(hashes)))
    best = min(plans, key=lambda bands: cost_ns(bands, hashes), default=())
    is_worth_it = best and 2 * cost_ns(best, hashes) <= QUERY_NS + SCAN_NS * hashes
    return best if is_worth_it else ()


def max_offset_bytes(hashes: int) -> int:
    """Return the largest allowed size of the offsets of bands for this many hashes, in bytes."""
    return max(MAX_OFFSET_BYTES_PER_HASH * hashes, MIN_OFFSET_LIMIT_BYTES)


def cost_ns(bands: Sequence[Band], hashes: int) -> float:
    """Return the cost of a query by these bands, in nanoseconds, if the keys are uniformly distributed."""
    probes = [_probes(band.bits, band.radius) for band in bands]
    candidates = hashes * sum(math.ldexp(count, -band.bits) for count, band in zip(probes, bands, strict=True))
    return QUERY_NS + PROBE_NS * sum(probes) + CANDIDATE_NS * candidates


def reach_of(bands: Sequence[Band]) -> int:
    """Return the largest number of differing bits up to which the bands find every key.

    It is -1 if the bands overlap, or if there are none.
    """
    ends = sorted((band.start_bit, band.start_bit + band.bits) for band in bands)
    if any(start < end for (_, end), (start, _) in itertools.pairwise(ends)):
        return -1
    return sum(band.radius + 1 for band in bands) - 1


def build_bands(keys: Keys, bands: Sequence[Band]) -> dict[str, memoryview]:
    """Return the sections of the bands' tables for distinct keys, uint8 of shape (n, key_bytes)."""
    lengths = {"OFFS": 4 * sum((1 << band.bits) + 1 for band in bands), "IDS": 4 * len(keys) * len(bands)}
    sections = {name: np.empty(length, np.uint8).data for name, length in lengths.items()}
    write_bands(keys, bands, sections)
    return sections


def write_bands(keys: Keys, bands: Sequence[Band], sections: Mapping[str, memoryview]) -> None:
    """Write the bands' tables for distinct keys into the memory of their sections.

    Besides the tables, it uses 8 bytes of memory per key and thread.
    """
    words = _words(keys)
    ends = np.cumsum([0, *((1 << band.bits) + 1 for band in bands)]).tolist()
    offsets = np.frombuffer(sections["OFFS"], "<u4")
    rows = np.frombuffer(sections["IDS"], "<u4").reshape(len(bands), len(keys))

    def build(numbers: range) -> None:
        # Allocating memory takes longer than the sort, so all bands of a thread are sorted in the same memory.
        tagged = np.empty(len(keys), np.uint64)
        for number in numbers:
            # The upper bits are the band key and the lower ones the row. A sort of such numbers is faster than a sort
            # that carries the rows along.
            for block in blocks(len(keys)):
                part = tagged[block]
                _cut(words[block], bands[number], out=part)
                part <<= _ROW_BITS
                part |= np.arange(block.start, block.stop, dtype=np.uint64)
            tagged.sort()
            rows[number] = tagged
            _count(tagged, offsets[ends[number] : ends[number + 1]])

    over_slices(build, [range(first, len(bands), threads()) for first in range(min(threads(), len(bands)))])


def _cut(words: NDArray[np.uint64], band: Band, *, out: NDArray[np.uint64]) -> None:
    """Write the bits of one band of each key to `out`."""
    word, shift = divmod(band.start_bit, 64)
    np.right_shift(words[:, word], np.uint64(shift), out=out)
    if shift + band.bits > 64:
        out |= words[:, word + 1] << np.uint64(64 - shift)
    out &= np.uint64((1 << band.bits) - 1)


def _count(tagged: NDArray[np.uint64], offsets: NDArray[np.uint32]) -> None:
    """Write for each possible band key, from 0 on, how many of the sorted band keys are smaller.

    `tagged` has the band keys above their rows. Keys are counted in blocks.
    """
    firsts = range(0, len(offsets), _COUNTED)
    edges = [*tagged.searchsorted(np.array(firsts, np.uint64) << _ROW_BITS).tolist(), len(tagged)]
    for first, (low, high) in zip(firsts, itertools.pairwise(edges), strict=True):
        block = offsets[first : first + _COUNTED]
        counts = np.bincount((tagged[low:high] >> _ROW_BITS).view(np.int64) - first, minlength=len(block))
        block[0] = low
        np.cumsum(counts[: len(block) - 1], out=block[1:])
        block[1:] += np.uint32(low)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The rows that a batch of queries must be compared with.

    `counts`, int64, is the number of rows per query; the batch starts with the query at place `first`. `row`,
    uint32, holds the rows in the queries' order; a query may have the same row more than once. `too_many`,
    int64, holds the places of queries with more rows than the caller's limit.
    """

    first: int
    counts: NDArray[np.int64]
    row: NDArray[np.uint32]
    too_many: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cut:
    """The shifts and masks that cut all bands out of keys. A band is in one number, or continues in the next."""

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
        continues = np.array([band.start_bit % 64 + band.bits > 64 for band in bands], bool)
        return cls(
            word=word,
            next_word=np.where(continues, word + 1, word),
            shift=shift,
            next_shift=np.where(continues, np.uint64(64) - shift, np.uint64(0)),
            next_mask=np.where(continues, mask, np.uint64(0)),
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
    """The tables of a segment's bands. Immutable and thread-safe."""

    def __init__(self, bands: Sequence[Band], sections: Sections, *, hashes: int) -> None:
        """Check every number in the sections OFFS and IDS.

        Raises:
            IndexDamaged: A number refers to a row or key that does not exist.
        """
        self._offsets = np.frombuffer(sections["OFFS"], "<u4")
        sizes = [(1 << band.bits) + 1 for band in bands]
        bases = np.cumsum([0, *sizes])
        for start, end in itertools.pairwise(bases.tolist()):
            table = self._offsets[start:end]
            if table[0] != 0 or table[-1] != hashes or not _ascends(table):
                raise IndexDamaged("the offsets of a segment's bands are malformed: they do not ascend to its hashes")
        self._rows = np.frombuffer(sections["IDS"], "<u4")
        if max(over_slices(_largest, np.array_split(self._rows, len(bands))), default=0) >= max(1, hashes):
            raise IndexDamaged("the bands of a segment refer to keys that it does not contain")
        masks = [_masks(band.bits, band.radius) for band in bands]
        band = np.repeat(np.arange(len(bands)), [len(each) for each in masks])
        self._band = band
        self._mask = np.concatenate(masks)
        self._offsets_base = bases[band]
        self._rows_base = band * hashes
        self._cut = _Cut.of(bands)

    def candidates(self, keys: Keys, most: int) -> Iterator[Candidates]:
        """Yield the candidates of each query, in batches. A query with more than `most` is in `too_many` instead.

        The offsets show how many candidates a query has, so those of a query with too many are not collected.
        """
        words = _words(keys)
        step = max(1, MAX_PROBED // len(self._mask))
        for first in range(0, len(words), step):
            yield from self._batch_candidates(words[first : first + step], first, most)

    def _batch_candidates(self, words: NDArray[np.uint64], first: int, most: int) -> Iterator[Candidates]:
        place = self._cut.keys(words).take(self._band, axis=1)
        place ^= self._mask
        place += self._offsets_base
        begin = self._offsets.take(place)
        place += 1
        probe_counts = np.subtract(self._offsets.take(place), begin, dtype=np.int64)
        # Probe i has the rows begin[i] to begin[i] + probe_counts[i] - 1.
        begin = np.add(begin, self._rows_base, out=place)
        counts = probe_counts.sum(axis=1)
        (too_many,) = (counts > most).nonzero()
        if len(too_many):
            probe_counts[too_many] = counts[too_many] = 0
        for low, high in _parts(counts):
            yield Candidates(
                first=first + low,
                counts=counts[low:high],
                row=self._gather(begin[low:high].ravel(), probe_counts[low:high].ravel()),
                too_many=too_many + first,
            )
            too_many = too_many[:0]

    def _gather(self, begin: NDArray[np.int64], probe_counts: NDArray[np.int64]) -> NDArray[np.uint32]:
        begin[1:] -= probe_counts.cumsum()[:-1]
        places = begin.repeat(probe_counts)
        places += np.arange(len(places))
        return self._rows.take(places)


def _parts(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of queries that together have at most `MAX_GATHERED` candidates, or of a single query.

    `counts` is the number of candidates per query.
    """
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
    return all(np.all(table[block] <= table[1:][block]) for block in blocks(len(table) - 1))


def _largest(rows: NDArray[np.uint32]) -> int:
    return int(rows.max(initial=0))


def _plans(key_bits: int, reach: int, *, max_offset_bytes: int) -> Iterator[tuple[Band, ...]]:
    """Yield the plans to choose from. Their radii are as equal as possible, and a larger radius has more bits."""
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
    """Return the number of bits of each band. The first have `wide` bits. None if the key is too short or long."""
    rest = key_bits - wide_bands * wide
    width, wider = divmod(rest, narrow_bands)
    if rest < 0 or width < MIN_BAND_BITS or width + bool(wider) > MAX_BAND_BITS:
        return None
    return [wide] * wide_bands + [width + 1] * wider + [width] * (narrow_bands - wider)


def _probes(bits: int, radius: int) -> int:
    return sum(math.comb(bits, flipped) for flipped in range(radius + 1))


@cache
def _masks(bits: int, radius: int) -> NDArray[np.int64]:
    """Return all numbers of `bits` bits with at most `radius` bits set, ascending."""
    flips = (places for flipped in range(radius + 1) for places in itertools.combinations(range(bits), flipped))
    return np.array(sorted(sum(1 << place for place in places) for places in flips), np.int64)


def _words(keys: Keys) -> NDArray[np.uint64]:
    """Return keys as numbers, of shape (n, key_bytes / 8). Bit i of a key is bit i % 64 of its number i // 64."""
    return np.ascontiguousarray(keys).view("<u8")
