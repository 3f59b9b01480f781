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
from typing import Any, TypeAlias

from countermark.domain.signal import Comparison, ContentType, Hasher, IndexKind
from countermark.errors import InvalidSignal
from countermark.signals import raw_text
from countermark.signals.buffered import BufferedHasher
from countermark.signals.text import MAX_CONTENT_BYTES, stripped

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

MAX_LATE_S = 2.0
"""How much time queries with so little may take together; those after them are answered where no time is needed."""

QUICK_QUERY_S = 0.001
"""Up to how long a query counts as quick, and is not charged to the text's time."""

SHORT_TEXT_CHARACTERS = 32 * 1024
"""Up to what length a text is searched for each phrase. Of a longer one the words are looked at once, and a phrase is
looked for only if all its words are there: of ten thousand phrases as a rule few are."""

MAX_PHRASES_S = 3.0
"""How long a long text may be searched for phrases whose words it all has, all queries together."""

_WORDS = re.compile(r"\w+")

_WORD_MARKS = 2**20
"""How many marks the words of a long text have, a byte each; two words may share one, so a mark proves nothing."""

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

Search: TypeAlias = "Callable[[str, float, _Asked | None], bool]"
"""Returns whether a text contains a term, given the seconds left, and what is known of the text if it is long. Raises
TimeoutError where they were too few."""


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

        A query that takes more than `MAX_QUERY_S` is undecided, and warns `SlowQuery`; one that comes after many
        slow ones with the same text has `LATE_QUERY_S`, and in the end no time at all.
        """
        return Comparison(matches=True, distance=None) if query == banked else _compared(banked, query)

    def hasher(self) -> Hasher | None:
        return None

    def reader(self) -> BufferedHasher[str]:
        """Return a hasher that gives the text itself."""
        return BufferedHasher(raw_text.from_content, max_bytes=MAX_CONTENT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's
        return "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """A compiled query: all of `groups` have a term in the text, and none of `unwanted` is."""

    groups: Sequence[Sequence[Search]]
    unwanted: Sequence[Search]

    def are_in(self, text: str, *, limit_s: float, asked: "_Asked | None" = None) -> bool:
        """Return whether a text matches.

        Raises:
            TimeoutError: Searching it takes longer.
        """
        until = time.monotonic() + limit_s

        def has(search: Search) -> bool:
            return search(text, max(0.0, until - time.monotonic()), asked)

        return all(any(map(has, group)) for group in self.groups) and not any(map(has, self.unwanted))

    @property
    def matches_all(self) -> bool:
        """Whether it matches texts that have nothing in common: then it matches nearly every text, and says nothing."""
        try:
            return all(self.are_in(text, limit_s=MAX_QUERY_S) for text in _UNLIKE)
        except TimeoutError:
            return False


class _Asked:
    """A text that queries search: the words of it, what matched it, and the time that was taken."""

    def __init__(self, text: str) -> None:
        # Not the text itself: a thread keeps this until it has another text.
        self.name = _name(text)
        self.seconds = 0.0
        self.phrase_seconds = 0.0
        self.matched: set[str] = set()
        self._words: bytearray | None = None

    def limit_s(self) -> float:
        """Return how long the next query may search it."""
        if self.seconds < MAX_TEXT_S:
            return MAX_QUERY_S
        return LATE_QUERY_S if self.seconds < MAX_TEXT_S + MAX_LATE_S else 0.0

    def may_have(self, words: Sequence[str], text: str) -> bool:
        """Return False only where the text lacks one of these words."""
        if self._words is None:
            self._words = bytearray(_WORD_MARKS)
            for found in _WORDS.finditer(text):
                self._words[hash(found[0]) % _WORD_MARKS] = 1
        return all(self._words[hash(word) % _WORD_MARKS] for word in words)


class _Asking(threading.local):
    """The text that this thread last searched."""

    asked: _Asked | None = None

    def of(self, text: str) -> _Asked:
        """Return what is known of a text."""
        if self.asked is None or self.asked.name != _name(text):
            self.asked = _Asked(text)
        return self.asked


_asking = _Asking()


def _name(text: str) -> tuple[int, int]:
    """Return what tells a text from others; it is counted once, and kept by the text."""
    return hash(text), len(text)


def _compared(value: str, text: str) -> Comparison:
    asked = _asking.of(text)
    if value in asked.matched:
        return Comparison(matches=True, distance=None)
    terms = _compiled(value)
    limit_s = asked.limit_s()
    began = time.monotonic()
    try:
        matches = terms.are_in(text, limit_s=limit_s, asked=asked) and not terms.matches_all
    except TimeoutError:
        asked.seconds += limit_s
        name = hashlib.sha256(value.encode()).hexdigest()[:16]
        why = f"the trend_query of SHA-256 {name}… took more than {limit_s} s"
        warnings.warn(f"{why}: taken not to match", SlowQuery, stacklevel=2)
        return Comparison(matches=False, distance=None, undecided=why)
    took_s = time.monotonic() - began
    if took_s > QUICK_QUERY_S:
        asked.seconds += took_s
    if matches:
        asked.matched.add(value)
    return Comparison(matches=matches, distance=None)


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
    return _pattern(text) if is_pattern else _phrase(text)


def _pattern(text: str) -> Search:
    import regex

    if text.count("(") > MAX_GROUPS:
        raise InvalidSignal(f"a pattern of a trend_query signal has at most {MAX_GROUPS} parentheses: {text[:100]!r}")
    try:
        # It would otherwise keep a second copy.
        return partial(_has_pattern, regex.compile(text, regex.VERSION0, cache_pattern=False))
    except regex.error as error:
        raise InvalidSignal(f"a trend_query signal has the pattern {text[:100]!r}: {error}") from error


def _phrase(phrase: str) -> Search:
    """Return what searches for a whole word or phrase: each run of letters in it is a word of the text."""
    return partial(_has_phrase, re.compile(rf"\b{re.escape(phrase)}\b"), phrase, tuple(_WORDS.findall(phrase)))


def _has_phrase(
    pattern: re.Pattern[str], phrase: str, words: Sequence[str], text: str, left_s: float, asked: _Asked | None
) -> bool:
    if len(text) <= SHORT_TEXT_CHARACTERS:
        if not left_s:
            raise TimeoutError
        return pattern.search(text) is not None
    if asked is None:
        return pattern.search(text) is not None
    if not asked.may_have(words, text):
        return False
    # It takes no time from patterns, and loses none to them: looking for a phrase is quick whatever the text is.
    began = time.monotonic()
    try:
        return _is_there(phrase, text, until=began + MAX_PHRASES_S - asked.phrase_seconds)
    finally:
        asked.phrase_seconds += time.monotonic() - began


def _is_there(phrase: str, text: str, *, until: float) -> bool:
    """Return whether a phrase stands in a text, with no word running into it.

    Raises:
        TimeoutError: The time is up.
    """
    if time.monotonic() > until:
        raise TimeoutError
    at, finds = text.find(phrase), 0
    while at >= 0:
        if _is_boundary(text, at) and _is_boundary(text, at + len(phrase)):
            return True
        at, finds = text.find(phrase, at + 1), finds + 1
        if not finds % _FINDS_A_LOOK and time.monotonic() > until:
            raise TimeoutError
    return False


_FINDS_A_LOOK = 256
"""After how many places of a phrase the clock is looked at."""


def _is_boundary(text: str, at: int) -> bool:
    """Return whether a word begins or ends at a place."""
    return _is_of_word(text[at - 1 : at] if at else "") != _is_of_word(text[at : at + 1])


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _has_pattern(pattern: Any, text: str, left_s: float, _asked: _Asked | None) -> bool:
    if not left_s:
        raise TimeoutError
    return pattern.search(text, timeout=left_s, concurrent=True) is not None


TREND_QUERY = TrendQuery()
