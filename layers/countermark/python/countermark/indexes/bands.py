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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from countermark.errors import IndexDamaged
from countermark.indexes.codec import Band
from countermark.indexes.keys import Keys, as_bytes
from countermark.indexes.slices import over_slices

MAX_BANDS = 16
"""The most bands of a plan: each costs 4 bytes a hash, and more of them never pay within `MAX_BAND_BITS`."""

MIN_BAND_BITS, MAX_BAND_BITS = 8, 24
"""The narrowest and widest band of a plan: a table of 24 bits has 64 MiB of offsets, whatever it holds."""

MAX_OFFSET_BYTES_EACH, MAX_OFFSET_BYTES_OF_FEW, MAX_OFFSET_BYTES = 28, 64, 64 * 2**20
"""How large the offsets of a plan may be: so many bytes for each hash; of few hashes more each, up to so many in all.

At 10 million hashes 28 bytes halve the candidates, for a sixth more memory than 8 bytes take.
"""

QUERY_NS, PROBE_NS, CANDIDATE_NS, SCAN_NS = 60_000, 16, 40, 1.2
"""What a query costs at least, each key that it probes, each row that it compares, and each row of a scan.

Nanoseconds, measured on one core of a Xeon of 2023 at 1 and 10 million hashes; only their ratios count.
"""

SCAN_SHARE = 100
"""A query with more candidates than one in so many of the hashes scans them all: that takes no longer."""

MAX_GATHERED = 2**16
"""How many candidates a batch compares at once: 2 MiB of them, which stay in the processor's cache."""

MAX_PROBED = 2**16
"""How many keys a batch looks up at once, for the same reason."""


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
    return max(MAX_OFFSET_BYTES_EACH * hashes, min(MAX_OFFSET_BYTES, MAX_OFFSET_BYTES_OF_FEW * hashes))


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
    """Return the sections of the bands' tables, of distinct keys, uint8 of shape (n, key_bytes).

    Besides the tables themselves it takes some 40 bytes of memory for each key and thread.
    """
    words = _words(keys)
    offsets = [np.empty((1 << band.bits) + 1, "<u4") for band in bands]
    rows = np.empty((len(bands), len(keys)), "<u4")

    def build(number: int) -> None:
        # Band key above, row below: one sort of numbers is faster than a sort that carries the rows along.
        tagged = _Cut.of([bands[number]]).keys(words).ravel().view(np.uint64)
        tagged <<= np.uint64(32)
        tagged |= np.arange(len(keys), dtype=np.uint64)
        tagged.sort()
        rows[number] = tagged
        tagged >>= np.uint64(32)
        counts = np.bincount(tagged.view(np.int64), minlength=1 << bands[number].bits)
        offsets[number][0] = 0
        np.cumsum(counts, out=offsets[number][1:])

    over_slices(build, range(len(bands)))
    return {"OFFS": as_bytes(np.concatenate(offsets)), "IDS": as_bytes(rows)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Rows that a batch has to compare, each with the place of its query: int64, not all of them distinct."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]


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

    def __init__(self, bands: Sequence[Band], offsets: memoryview, rows: memoryview, *, hashes: int) -> None:
        """Take the sections OFFS and IDS, after a look at every number in them.

        Raises:
            IndexDamaged: They point beyond each other, or beyond the keys.
        """
        self._hashes = hashes
        self._offsets = np.frombuffer(offsets, "<u4")
        self._rows = np.frombuffer(rows, "<u4")
        sizes = [(1 << band.bits) + 1 for band in bands]
        bases = np.cumsum([0, *sizes])
        for start, end in itertools.pairwise(bases.tolist()):
            table = self._offsets[start:end]
            if table[0] != 0 or table[-1] != hashes or np.any(table[1:] < table[:-1]):
                raise IndexDamaged("the offsets of a segment's bands make no sense")
        if len(self._rows) and int(self._rows.max()) >= hashes:
            raise IndexDamaged("the bands of a segment name keys that it does not hold")
        masks = [_masks(band.bits, band.radius) for band in bands]
        self._band = np.repeat(np.arange(len(bands)), [len(each) for each in masks])
        self._mask = np.concatenate(masks)
        self._offsets_base = bases[self._band]
        self._rows_base = self._band * hashes
        self._cut = _Cut.of(bands)

    def candidates(self, keys: Keys, most: int) -> Iterator[tuple[Candidates, NDArray[np.int64]]]:
        """Yield candidates of some queries after the other, and the places of those with more than `most`.

        How many there are is known from the offsets: of queries with too many, none are gathered. Each
        query's come at once, unless they are more than `MAX_GATHERED`.
        """
        words = _words(keys)
        step = max(1, MAX_PROBED // len(self._mask))
        for first in range(0, len(words), step):
            yield from self._some(words[first : first + step], first, most)

    def _some(self, words: NDArray[np.uint64], first: int, most: int) -> Iterator[tuple[Candidates, NDArray[np.int64]]]:
        place = self._cut.keys(words).take(self._band, axis=1)
        place ^= self._mask
        place += self._offsets_base
        start = self._offsets.take(place)
        place += 1
        count = self._offsets.take(place) - start
        totals = count.sum(axis=1, dtype=np.int64)
        too_many = np.flatnonzero(totals > most)
        count[too_many] = 0
        filled = np.flatnonzero(count)
        count = count.ravel().take(filled).astype(np.int64)
        query, probe = np.divmod(filled, len(self._mask)) if len(words) > 1 else (None, filled)
        begin = start.ravel().take(filled) + self._rows_base.take(probe)
        ends = np.cumsum(count)
        for low, high in _parts(ends):
            many = count[low:high]
            gathered = int(ends[low - 1]) if low else 0
            # The rows of probe i run from begin[i] on, many[i] of them.
            at = np.repeat(begin[low:high] - (ends[low:high] - many - gathered), many)
            at += np.arange(len(at))
            of = np.full(len(at), first) if query is None else np.repeat(query[low:high] + first, many)
            yield Candidates(query=of, row=self._rows.take(at)), too_many + first
            too_many = too_many[:0]
        if len(too_many):
            nothing = np.empty(0, np.int64)
            yield Candidates(query=nothing, row=nothing), too_many + first


def _parts(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of probes, whose candidates are counted up to each one's end, that gather few at once."""
    low = 0
    while low < len(ends):
        gathered = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, gathered + MAX_GATHERED, side="right")))
        yield low, high
        low = high


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
