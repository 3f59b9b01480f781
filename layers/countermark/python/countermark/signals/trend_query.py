"""`trend_query`: words and patterns that a text has, or must not have.

A query is JSON: `{"and": [{"or": [term, …]}, …], "not": [term, …]}`. A text matches where every `and` group has a term
that it contains, and it contains no `not` term. A term `regex-X…X` is the regular expression between the two X; any
other is a whole word or phrase. Both are case-sensitive.

Patterns come from outside, and some take for ever: time and sizes are bounded. Libraries load with the first pattern.

Source: python-threatexchange 1.2, trend_query.py.
"""

import hashlib
import json
import re
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from countermark.domain.signal import Comparison, ContentType, Hasher, IndexKind
from countermark.errors import InvalidSignal
from countermark.signals import raw_text
from countermark.signals.buffered import BufferedHasher
from countermark.signals.text import stripped

MAX_QUERY_BYTES = 64 * 1024
"""The largest query, in UTF-8: thousands of words."""

MAX_TERM_CHARACTERS = 1000
"""The longest term: compiling the worst pattern of this length takes a tenth of a second."""

MAX_GROUPS = 100
"""The most parentheses in a pattern: compiling it recurses into each, and a stack has an end."""

MAX_QUERY_S = 0.1
"""How long one query may search one text, all terms together; ordinary ones take microseconds."""

MAX_TEXT_S = 2.0
"""How much of one text's time slow queries may take, all together: anybody in an exchange can share thousands."""

LATE_QUERY_S = 0.005
"""How long a query may search a text whose time slow ones have taken: ordinary ones need a thousandth of it."""

_PATTERN_PREFIX = "regex-"

_UNLIKE = (
    "quixotic wizards jumble vexing hymns " * 8,
    "4815 162342 90210 271828 " * 8,
    "\u0441\u044a\u0435\u0448\u044c \u0436\u0435 \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 " * 8,
    "\u5929\u5730\u7384\u9ec4\u5b87\u5b99\u6d2a\u8352 " * 16,
)
"""Texts of letters, digits and words that no two of them share. A query that matches all of them matches any text."""

_CACHED_QUERIES = 4096
"""How many queries stay compiled: some KiB each."""

Search = Callable[[str, float], bool]
"""Tells whether a text contains a term, given the seconds left. Raises TimeoutError where they were too few."""


class SlowQuery(RuntimeWarning):
    """A query took too long with a text, and was taken not to match it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendQuery:
    """The signal type. It knows only yes and no, so a match has no distance."""

    name: str = "trend_query"
    content_types: frozenset[ContentType] = frozenset({ContentType.TEXT})
    index_kind: IndexKind = IndexKind.LINEAR
    match_distance: int = 0
    # The example of python-threatexchange, which its sample exchange shares as well.
    examples: tuple[str, ...] = (
        (
            '{"and": [{"or": ["basketball", "basket ball", "basket-ball", "bball", "hoops"]}, '
            '{"or": ["play", "tonight", "today", "now"]}], '
            '"not": ["tomorrow", "baseball", "hockey", "football", "soccer"]}'
        ),
    )

    def parse(self, text: str) -> str:
        value = stripped(text)
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(
                f"a trend_query signal has whole characters, not half of one at {error.start}"
            ) from error
        if size_bytes > MAX_QUERY_BYTES:
            raise InvalidSignal(f"a trend_query signal has at most {MAX_QUERY_BYTES} bytes, not {size_bytes}")
        _compiled(value)
        return value

    def refusal(self, value: str) -> str | None:
        return "it matches texts that have nothing in common" if _compiled(value).matches_all else None

    def key(self, value: str) -> bytes:
        return value.encode()

    def value(self, key: bytes) -> str:
        return key.decode()

    def compare(self, query: str, banked: str) -> Comparison:
        """Search a text for what is banked; the same query matches as well.

        A query that takes more than `MAX_QUERY_S` does not match, and warns `SlowQuery`; one that comes after many
        of these with the same text has `LATE_QUERY_S`.
        """
        return Comparison(matches=query == banked or _matches(banked, query), distance=None)

    def hasher(self) -> Hasher | None:
        return None

    def reader(self) -> BufferedHasher[str]:
        """Return a hasher that gives the text itself."""
        return BufferedHasher(raw_text.from_content, max_bytes=raw_text.MAX_TEXT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's
        return "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """A compiled query: all of `groups` have a term in the text, and none of `unwanted` is."""

    groups: Sequence[Sequence[Search]]
    unwanted: Sequence[Search]

    def are_in(self, text: str, *, limit_s: float) -> bool:
        """Return whether a text matches.

        Raises:
            TimeoutError: Searching it takes longer.
        """
        until = time.monotonic() + limit_s

        def has(search: Search) -> bool:
            return search(text, max(0.0, until - time.monotonic()))

        return all(any(map(has, group)) for group in self.groups) and not any(map(has, self.unwanted))

    @property
    def matches_all(self) -> bool:
        """Whether it matches texts that have nothing in common: then it matches nearly every text, and says nothing."""
        try:
            return all(self.are_in(text, limit_s=MAX_QUERY_S) for text in _UNLIKE)
        except TimeoutError:
            return False


class _Slow(threading.local):
    """The text that this thread last searched slowly, and how long slow queries have taken with it."""

    text: str | None = None
    seconds: float = 0.0

    def limit_s(self, text: str) -> float:
        """Return how long the next query may search a text."""
        return LATE_QUERY_S if text == self.text and self.seconds >= MAX_TEXT_S else MAX_QUERY_S

    def took(self, text: str, seconds: float) -> None:
        """Remember that a query took so long in vain."""
        self.seconds = seconds + (self.seconds if text == self.text else 0.0)
        self.text = text


_slow = _Slow()


def _matches(value: str, text: str) -> bool:
    terms = _compiled(value)
    limit_s = _slow.limit_s(text)
    try:
        return terms.are_in(text, limit_s=limit_s) and not terms.matches_all
    except TimeoutError:
        _slow.took(text, limit_s)
        name = hashlib.sha256(value.encode()).hexdigest()[:16]
        warnings.warn(
            f"the trend_query of SHA-256 {name}… took more than {limit_s} s: taken not to match",
            SlowQuery,
            stacklevel=2,
        )
        return False


@lru_cache(maxsize=_CACHED_QUERIES)
def _compiled(value: str) -> _Terms:
    """Compile a query.

    Raises:
        InvalidSignal: It is none.
    """
    try:
        query: Any = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidSignal(f"a trend_query signal is JSON, not {value[:100]!r}") from error
    match query:
        case {"and": [_, *_] as groups, "not": list(unwanted)}:
            return _Terms(groups=[_group(each) for each in groups], unwanted=[_search(each) for each in unwanted])
        case _:
            raise InvalidSignal(
                f'a trend_query signal has groups under "and", at least one, and terms under "not", not {value[:100]!r}'
            )


def _group(group: object) -> list[Search]:
    match group:
        case {"or": list(terms)}:
            return [_search(term) for term in terms]
        case _:
            raise InvalidSignal(
                f'a group of a trend_query signal has a list of terms under "or", not {str(group)[:100]!r}'
            )


def _search(term: object) -> Search:
    """Compile a term.

    Raises:
        InvalidSignal: It is no text, is empty, and so in every text, or is too long, or no regular expression.
    """
    if not isinstance(term, str):
        raise InvalidSignal(f"a term of a trend_query signal is a text, not {str(term)[:100]!r}")
    if len(term) > MAX_TERM_CHARACTERS:
        raise InvalidSignal(
            f"a term of a trend_query signal has at most {MAX_TERM_CHARACTERS} characters, not {len(term)}"
        )
    is_pattern = term.startswith(_PATTERN_PREFIX)
    text = term[len(_PATTERN_PREFIX) + 1 : -1] if is_pattern else term
    if not text.strip():
        raise InvalidSignal(f"a term of a trend_query signal is not empty: {term!r}")
    return _pattern(text) if is_pattern else partial(_has_phrase, re.compile(rf"\b{re.escape(text)}\b"))


def _pattern(text: str) -> Search:
    import regex

    if text.count("(") > MAX_GROUPS:
        raise InvalidSignal(f"a pattern of a trend_query signal has at most {MAX_GROUPS} parentheses: {text[:100]!r}")
    try:
        # It would otherwise keep a second copy.
        return partial(_has_pattern, regex.compile(text, regex.VERSION0, cache_pattern=False))
    except regex.error as error:
        raise InvalidSignal(f"a trend_query signal has the pattern {text[:100]!r}: {error}") from error


def _has_phrase(phrase: re.Pattern[str], text: str, left_s: float) -> bool:
    if not left_s:
        raise TimeoutError
    return phrase.search(text) is not None


def _has_pattern(pattern: Any, text: str, left_s: float) -> bool:
    if not left_s:
        raise TimeoutError
    return pattern.search(text, timeout=left_s, concurrent=True) is not None


TREND_QUERY = TrendQuery()
