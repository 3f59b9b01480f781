"""`trend_query`: words and patterns that a text must contain, or must not contain.

A query is JSON: `{"and": [{"or": [term, …]}, …], "not": [term, …]}`. A text matches if it contains at least one term
of every `and` group, and no `not` term. A term `regex-X…X` is the regular expression between the two delimiters X. Any
other term is a whole word or phrase. Terms are case-sensitive.

Patterns come from other platforms, and some would run for hours. So time and sizes are limited. The library for
regular expressions is imported when the first pattern is compiled.

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
from countermark.signals.text import MAX_CONTENT_BYTES, strip_text

MAX_QUERY_BYTES = 64 * 1024
"""The maximum size of a query, in UTF-8. It is enough for thousands of words."""

MAX_TERM_CHARACTERS = 1000
"""The maximum length of a term. Compiling the slowest pattern of this length takes a tenth of a second."""

MAX_GROUPS = 100
"""The maximum number of opening parentheses in a pattern. The compiler recurses into each; the stack is limited."""

MAX_QUERY_S = 0.1
"""How long one query is allowed to search one text, for all terms together. Ordinary queries take microseconds."""

MAX_TEXT_S = 2.0
"""How long all slow queries together can search one text. A member of an exchange can share thousands of them."""

LATE_QUERY_S = 0.005
"""How long a query is allowed to search a text after `MAX_TEXT_S` is used up. Ordinary queries need a thousandth."""

MAX_LATE_S = 2.0
"""How long all queries with the limit `LATE_QUERY_S` can take together. Later queries get no time for patterns."""

QUICK_QUERY_S = 0.001
"""The maximum time of a quick query, in seconds. The time of quick queries does not count towards `MAX_TEXT_S`."""

SHORT_TEXT_CHARACTERS = 32 * 1024
"""The maximum length of a text that is searched directly for each phrase.

The words of a longer text are recorded once. The text is then searched for a phrase only if all words of the phrase are
recorded. This is usually true for a few of ten thousand phrases.
"""

MAX_PHRASES_S = 3.0
"""How long all queries together are allowed to search a long text for phrases whose words are all recorded."""

_WORDS = re.compile(r"\w+")

_WORD_MARKS = 2**20
"""The size in bytes of the table that records the words of a long text. Two words can have the same byte.

So the table can prove that a word is missing, but not that it is present.
"""

_PATTERN_PREFIX = "regex-"

_UNRELATED_TEXTS = (
    "quixotic wizards jumble vexing hymns " * 8,
    "4815 162342 90210 271828 " * 8,
    "\u0441\u044a\u0435\u0448\u044c \u0436\u0435 \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 " * 8,
    "\u5929\u5730\u7384\u9ec4\u5b87\u5b99\u6d2a\u8352 " * 16,
)
"""Texts that share no words, letters or digits. A query that matches all these texts matches nearly any text."""

_CACHED_QUERIES = 4096
"""How many compiled queries are cached; each takes a few KiB."""

Search: TypeAlias = "Callable[[str, float, _SearchState | None], bool]"
"""Returns whether a text contains a term. The arguments are the text, the seconds left, and the text's search state.

Raises TimeoutError if the search needs more time.
"""


class SlowQuery(RuntimeWarning):
    """A query took too long to search a text. The text counts as not matching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendQuery:
    """The signal type. A text matches or does not match. So a match has no distance."""

    name: str = "trend_query"
    content_types: frozenset[ContentType] = frozenset({ContentType.TEXT})
    index_kind: IndexKind = IndexKind.LINEAR
    match_distance: int = 0
    # The example of python-threatexchange, which is also in its sample exchange.
    examples: tuple[str, ...] = (
        (
            '{"and": [{"or": ["basketball", "basket ball", "basket-ball", "bball", "hoops"]}, '
            '{"or": ["play", "tonight", "today", "now"]}], '
            '"not": ["tomorrow", "baseball", "hockey", "football", "soccer"]}'
        ),
    )

    def parse(self, text: str) -> str:
        value = strip_text(text)
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidSignal(
                f"a trend_query signal must be valid Unicode: half a surrogate pair at character {error.start}"
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
        """Search a text, `query`, with the banked query. A trend query also matches itself.

        If a banked query takes longer than `MAX_QUERY_S`, the result is undecided, and the warning `SlowQuery` is
        issued. After many slow queries on the same text, the limit of each further query is `LATE_QUERY_S`. After even
        more slow queries, it is 0.
        """
        return Comparison(matches=True, distance=None) if query == banked else _compare(banked, query)

    def hasher(self) -> Hasher | None:
        return None

    def reader(self) -> BufferedHasher[str]:
        """Return a hasher whose result is the text itself."""
        return BufferedHasher(raw_text.from_content, max_bytes=MAX_CONTENT_BYTES)

    def wire_distance(self, query: str, banked: str, distance: int | None) -> str:  # noqa: ARG002  # the port's signature
        return "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _CompiledQuery:
    """A compiled query. A text matches if it contains a term of each group in `groups`, and no term in `unwanted`."""

    groups: Sequence[Sequence[Search]]
    unwanted: Sequence[Search]

    def match(self, text: str, *, limit_s: float, state: "_SearchState | None" = None) -> bool:
        """Return whether a text matches.

        Raises:
            TimeoutError: The search takes longer than `limit_s`.
        """
        deadline_s = time.monotonic() + limit_s

        def contains(search: Search) -> bool:
            return search(text, max(0.0, deadline_s - time.monotonic()), state)

        return all(any(map(contains, group)) for group in self.groups) and not any(map(contains, self.unwanted))

    @property
    def matches_all(self) -> bool:
        """Whether the query matches texts that have nothing in common. Such a query matches nearly any text."""
        try:
            return all(self.match(text, limit_s=MAX_QUERY_S) for text in _UNRELATED_TEXTS)
        except TimeoutError:
            return False


class _SearchState:
    """The state of searching one text: the text's words, the queries that matched it, and the time used."""

    def __init__(self, text: str) -> None:
        # The text itself is not stored, because a thread keeps this object until it searches another text.
        self.text_id = _text_id(text)
        self.seconds = 0.0
        self.phrase_seconds = 0.0
        self.matched: set[str] = set()
        self._words: bytearray | None = None

    def limit_s(self) -> float:
        """Return how many seconds the next query is allowed to search the text."""
        if self.seconds < MAX_TEXT_S:
            return MAX_QUERY_S
        return LATE_QUERY_S if self.seconds < MAX_TEXT_S + MAX_LATE_S else 0.0

    def may_contain(self, words: Sequence[str], text: str) -> bool:
        """Return False if the text certainly lacks one of these words."""
        if self._words is None:
            self._words = bytearray(_WORD_MARKS)
            for found in _WORDS.finditer(text):
                self._words[hash(found[0]) % _WORD_MARKS] = 1
        return all(self._words[hash(word) % _WORD_MARKS] for word in words)


class _LastSearchState(threading.local):
    """The state of the text that this thread searched last."""

    state: _SearchState | None = None

    def of_text(self, text: str) -> _SearchState:
        """Return the state of a text; a new one if the thread's last text was different."""
        if self.state is None or self.state.text_id != _text_id(text):
            self.state = _SearchState(text)
        return self.state


_last_state = _LastSearchState()


def _text_id(text: str) -> tuple[int, int]:
    """Return a key that identifies a text. This is fast, because Python caches the hash of a string in the string."""
    return hash(text), len(text)


def _compare(value: str, text: str) -> Comparison:
    state = _last_state.of_text(text)
    if value in state.matched:
        return Comparison(matches=True, distance=None)
    compiled = _compiled(value)
    limit_s = state.limit_s()
    started = time.monotonic()
    try:
        matches = compiled.match(text, limit_s=limit_s, state=state) and not compiled.matches_all
    except TimeoutError:
        state.seconds += limit_s
        name = hashlib.sha256(value.encode()).hexdigest()[:16]
        reason = f"the trend_query of SHA-256 {name}… took more than {limit_s} s"
        warnings.warn(f"{reason}: taken not to match", SlowQuery, stacklevel=2)
        return Comparison(matches=False, distance=None, undecided=reason)
    took_s = time.monotonic() - started
    if took_s > QUICK_QUERY_S:
        state.seconds += took_s
    if matches:
        state.matched.add(value)
    return Comparison(matches=matches, distance=None)


@lru_cache(maxsize=_CACHED_QUERIES)
def _compiled(value: str) -> _CompiledQuery:
    """Compile a query.

    Raises:
        InvalidSignal: The text is not a trend query.
    """
    try:
        query: Any = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidSignal(f"a trend_query signal is JSON, not {value[:100]!r}") from error
    match query:
        case {"and": [_, *_] as groups, "not": list(unwanted)}:
            return _CompiledQuery(
                groups=[_group(each) for each in groups], unwanted=[_search(each) for each in unwanted]
            )
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
        InvalidSignal: The term is not a text, is too long, is an invalid regular expression, or is empty. Every text
            contains an empty term.
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
        raise InvalidSignal(f"a term of a trend_query signal must not be empty: {term!r}")
    return _pattern(text) if is_pattern else _phrase(text)


def _pattern(text: str) -> Search:
    import regex

    if text.count("(") > MAX_GROUPS:
        raise InvalidSignal(f"a pattern of a trend_query signal has at most {MAX_GROUPS} parentheses: {text[:100]!r}")
    try:
        # `cache_pattern=False`, because the library would otherwise cache a second copy of the pattern.
        return partial(_has_pattern, regex.compile(text, regex.VERSION0, cache_pattern=False))
    except regex.error as error:
        raise InvalidSignal(f"a trend_query signal has an invalid pattern {text[:100]!r}: {error}") from error


def _phrase(phrase: str) -> Search:
    """Return the search for a phrase. In the text, the phrase must begin and end at word boundaries."""
    return partial(_has_phrase, re.compile(rf"\b{re.escape(phrase)}\b"), phrase, tuple(_WORDS.findall(phrase)))


def _has_phrase(
    pattern: re.Pattern[str], phrase: str, words: Sequence[str], text: str, left_s: float, state: _SearchState | None
) -> bool:
    if len(text) <= SHORT_TEXT_CHARACTERS:
        if not left_s:
            raise TimeoutError
        return pattern.search(text) is not None
    if state is None:
        return pattern.search(text) is not None
    if not state.may_contain(words, text):
        return False
    # Phrases have a separate time limit, because finding a phrase is fast in any text, unlike finding a pattern.
    started = time.monotonic()
    try:
        return _contains_phrase(phrase, text, deadline_s=started + MAX_PHRASES_S - state.phrase_seconds)
    finally:
        state.phrase_seconds += time.monotonic() - started


def _contains_phrase(phrase: str, text: str, *, deadline_s: float) -> bool:
    """Return whether a text contains a phrase that begins and ends at word boundaries.

    Raises:
        TimeoutError: The deadline passed.
    """
    if time.monotonic() > deadline_s:
        raise TimeoutError
    at, finds = text.find(phrase), 0
    while at >= 0:
        if _is_boundary(text, at) and _is_boundary(text, at + len(phrase)):
            return True
        at, finds = text.find(phrase, at + 1), finds + 1
        if not finds % _FINDS_PER_CLOCK_CHECK and time.monotonic() > deadline_s:
            raise TimeoutError
    return False


_FINDS_PER_CLOCK_CHECK = 256
"""After how many occurrences of a phrase the time is checked."""


def _is_boundary(text: str, at: int) -> bool:
    """Return whether a word begins or ends at the index `at`."""
    return _is_word_character(text[at - 1 : at] if at else "") != _is_word_character(text[at : at + 1])


def _is_word_character(character: str) -> bool:
    return character.isalnum() or character == "_"


def _has_pattern(pattern: Any, text: str, left_s: float, _state: _SearchState | None) -> bool:
    if not left_s:
        raise TimeoutError
    return pattern.search(text, timeout=left_s, concurrent=True) is not None


TREND_QUERY = TrendQuery()
