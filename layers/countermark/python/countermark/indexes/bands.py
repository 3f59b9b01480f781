"""Bands: multi-index hashing with a radius per band. The bands are planned for the number of hashes.

A key is cut into bands. The reach of a search is the largest number of differing bits at which it finds a key. Band i
has a radius r_i, and the sum of all (r_i + 1) is larger than the reach. If two keys differed in r_i + 1 or more bits of
every band i, they would differ in more bits than the reach. So two keys within reach differ in at most r_i bits of some
band i. A search looks up, in each band i, the keys that differ from the query in at most r_i bits of the band. Then it
compares these keys with the query.

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
"""The maximum number of bands in a plan. A band takes 4 bytes per hash. With bands of at most `MAX_BAND_BITS` bits,
more bands are never faster."""

MIN_BAND_BITS, MAX_BAND_BITS = 8, 24
"""The smallest and the largest number of bits in a band. A band of 24 bits has 64 MiB of offsets, for any number
of hashes."""

MAX_OFFSET_BYTES_PER_HASH, MIN_OFFSET_LIMIT_BYTES = 20, 6 * 2**20
"""The limit for the offsets of a plan, in bytes per hash, and a total size in bytes that is always allowed.

With three times as many bytes, a query would take only a tenth less time.
"""

QUERY_NS, PROBE_NS, CANDIDATE_NS, SCAN_NS = 45_000, 18, 30, 1.2
"""The costs of a query, of each key that a query looks up, of each row that it compares, and of each row of a scan.

They are in nanoseconds, measured on one core of a Xeon of 2023 with 1 and 10 million hashes. Only the ratios of the
costs matter.
"""

SCAN_SHARE = 100
"""A query scans all hashes if the candidates are more than 1 / `SCAN_SHARE` of the hashes. The scan then takes no
longer."""

MAX_GATHERED = 2**16
"""The maximum number of candidates of several queries that are compared at once. They take a megabyte, so they fit
the processor's cache."""

_ROW_BITS = np.uint64(32)
"""The number of bits for the row in a tagged number, which has a row in the lower bits and a band key above it."""

_COUNTED = 2**14
"""How many band keys are counted at once. Their counters stay in the processor's cache."""

MAX_PROBED = 2**14
"""How many keys of several queries are looked up at once, so that they stay in the processor's cache."""


def plan_bands(hashes: int, *, key_bits: int, reach: int) -> tuple[Band, ...]:
    """Return the bands with which a search for keys within `reach` bits is cheapest; empty if a scan is better.

    Bands are better only if they at least halve the cost of a scan, because they take three times the memory.
    """
    plans = list(_plans(key_bits, reach, max_offset_bytes=max_offset_bytes(hashes)))
    best = min(plans, key=lambda bands: cost_ns(bands, hashes), default=())
    is_worth_it = best and 2 * cost_ns(best, hashes) <= QUERY_NS + SCAN_NS * hashes
    return best if is_worth_it else ()


def max_offset_bytes(hashes: int) -> int:
    """Return the maximum total size of the bands' offsets in bytes, for this number of hashes."""
    return max(MAX_OFFSET_BYTES_PER_HASH * hashes, MIN_OFFSET_LIMIT_BYTES)


def cost_ns(bands: Sequence[Band], hashes: int) -> float:
    """Return the cost in nanoseconds of a query that uses these bands, if the keys are uniformly distributed."""
    probes = [_probes(band.bits, band.radius) for band in bands]
    candidates = hashes * sum(math.ldexp(count, -band.bits) for count, band in zip(probes, bands, strict=True))
    return QUERY_NS + PROBE_NS * sum(probes) + CANDIDATE_NS * candidates


def reach_of(bands: Sequence[Band]) -> int:
    """Return the largest number of differing bits at which the bands find every key; -1 without bands.

    It is also -1 if bands overlap.
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

    Besides the tables, this takes 8 bytes of memory per key and thread.
    """
    words = _words(keys)
    ends = np.cumsum([0, *((1 << band.bits) + 1 for band in bands)]).tolist()
    offsets = np.frombuffer(sections["OFFS"], "<u4")
    rows = np.frombuffer(sections["IDS"], "<u4").reshape(len(bands), len(keys))

    def build(numbers: range) -> None:
        # Each thread sorts all of its bands in the same memory, because a new allocation takes longer than the sort.
        tagged = np.empty(len(keys), np.uint64)
        for number in numbers:
            # Each number holds a band key in the upper bits and the row in the lower bits. Such numbers are sorted
            # faster than band keys with a separate array of rows.
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
    """For each possible band key from 0 on, write to `offsets` how many keys have a smaller band key.

    `tagged` holds sorted numbers, each with a band key in the upper bits and a row in the lower bits. Band keys are
    counted in blocks.
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

    The batch starts with the query at place `first`. `counts`, int64, is the number of rows per query. `row`, uint32,
    holds the rows of the first query, then those of the next; a query can have the same row more than once.
    `too_many`, int64, holds the places of the queries that have more rows than the caller's limit.
    """

    first: int
    counts: NDArray[np.int64]
    row: NDArray[np.uint32]
    too_many: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cut:
    """The shifts and masks that cut all bands out of keys.

    A key is a row of 64-bit numbers. A band is in one number, or continues in the next number.
    """

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
            IndexDamaged: A number refers to a row or a key that does not exist.
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
        """Yield the candidates of the queries, in batches. A query with more than `most` candidates is in `too_many`.

        The offsets show how many candidates a query has, so the candidates of a query in `too_many` are not collected.
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
        # The candidates of probe i are at begin[i] to begin[i] + probe_counts[i] - 1.
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
    """Yield ranges of queries, as the first place and the place after the last.

    `counts` is the number of candidates per query. The queries of a range have at most `MAX_GATHERED` candidates
    together, unless the range is a single query.
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
    """Yield possible plans. The radii of a plan differ by at most 1, and bands with the larger radius are wider."""
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
    """Return the number of bits of each band; None if the key is too short or too long for such bands.

    The first `wide_bands` bands have `wide` bits each. The others share the rest of the key as equally as possible.
    """
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
    """Return keys as numbers, of shape (n, key_bytes / 8). Bit i of a key is bit i % 64 of the key's number i // 64."""
    return np.ascontiguousarray(keys).view("<u8")
