"""NCMEC's windows of time: how large they are, and how a fetch goes on inside of one."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import pytest

from countermark.domain.json import JSON
from countermark.exchanges import ncmec_windows
from countermark.exchanges.ncmec_windows import LAG_S, PAGE_URL_LIFETIME_S
from tests.exchanges.hash_sharing import CREDENTIALS, md5
from tests.exchanges.house import Mishap
from tests.exchanges.scripts import NCMEC, Play, playing
from tests.exchanges.server import status

CONFIG = NCMEC.config


@pytest.fixture
def play() -> Iterator[Play]:
    with playing(NCMEC) as play:
        yield play


def test_a_window_with_too_many_entries_is_shrunk_fourfold_and_grows_again(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncmec_windows, "MAX_WINDOW_ENTRIES", 8)
    monkeypatch.setattr(ncmec_windows, "SMALL_WINDOW_ENTRIES", 1)
    begin_s = fill(play, 20)
    assert play.fetch().outcome == "complete"
    assert len(play.keys()) == 20
    sizes = [to_s - from_s for from_s, to_s in play.api.windows]
    assert sizes[:6] == [4096, 1024, 256, 64, 64, 16]
    # After four windows in a row with nothing in them they double, as far as there is anything left to ask for.
    ends = [to_s for _, to_s in play.api.windows]
    after = sizes[next(n for n, end in enumerate(ends) if end >= begin_s + 130) + 1 :]
    assert any(later == 2 * earlier for earlier, later in pairwise(after))
    assert ends[-1] == begin_s + 4_096
    assert max(after) <= 4_096


def fill(play: Play, count: int) -> int:
    """Put an entry in each of so many seconds, some time after the last fetch; returns the time before them."""
    play.fetch()
    begin_s = play.house.now_s - LAG_S
    for number in range(count):
        play.api.put(f"{number:02}", fingerprints=md5(str(number)))
        play.api.entries[42, f"{number:02}"].at_s = begin_s + 100 + number
    play.house.now_s = begin_s + LAG_S + 4_096
    play.api.windows.clear()
    return begin_s


def test_the_size_of_the_windows_is_kept_where_the_peer_finds_it_anew_in_each_run(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncmec_windows, "MAX_WINDOW_ENTRIES", 8)
    fill(play, 20)
    kept: JSON = None
    runs = []
    while play.house.fetch(deadline_s=play.house.now_s).outcome != "complete":
        sizes = [to_s - from_s for from_s, to_s in play.api.windows]
        assert not sizes or sizes[0] == (kept or 4_096)
        checkpoint = play.house.state().checkpoint
        assert checkpoint is not None
        kept = checkpoint["window_s"]
        runs.append(sizes)
        play.api.windows.clear()
    assert runs[:2] == [[4_096, 1_024, 256, 64], [64, 16]]
    assert len(play.keys()) == 20


def test_a_checkpoint_of_before_windows_were_kept_is_gone_on_from(play: Play) -> None:
    begin_s = fill(play, 20)
    before = play.house.state().checkpoint
    assert before is not None
    exchange, config = play.house.exchange, play.house.exchange.parse_config(CONFIG)
    older = {name: value for name, value in before.items() if name != "window_s"}
    for checkpoint in (older, {**older, "window_s": None}):
        play.api.windows.clear()
        fetch = exchange.joined(config).fetch(checkpoint, credentials=CREDENTIALS, now_s=play.house.now_s)
        assert not fetch.restarts
        assert sum(len(delta.changes) for delta in fetch.deltas) == 20
        assert play.api.windows == [(begin_s, begin_s + 4_096)]


def test_a_window_of_a_second_is_taken_however_full_it_is(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncmec_windows, "MAX_WINDOW_ENTRIES", 2)
    play.fetch()
    begin_s = play.house.now_s - LAG_S
    for number in range(6):
        play.api.put(str(number), fingerprints=md5(str(number)))
        play.api.entries[42, str(number)].at_s = begin_s + 1
    play.house.now_s += 3
    assert play.fetch().outcome == "complete"
    assert len(play.keys()) == 6


def cut_in_a_window(play: Play) -> None:
    """Fetch the first of three pages."""
    for number in range(5):
        play.api.put(str(number), fingerprints=md5(str(number)))
    play.house.now_s = play.api.now_s + LAG_S + 1
    play.house.suffer(Mishap(is_cut=True), play.server)
    assert play.keys() == {"42-3", "42-4"}
    checkpoint = play.house.state().checkpoint
    assert checkpoint is not None
    assert checkpoint["get_entries_max_ts"] == 0
    assert isinstance(checkpoint["paging"], Mapping)
    assert checkpoint["paging"]["end_ts"] == play.house.now_s - LAG_S


@pytest.mark.parametrize(("age_s", "is_resumed"), [(PAGE_URL_LIFETIME_S, True), (PAGE_URL_LIFETIME_S + 1, False)])
def test_a_page_is_resumed_for_twelve_hours(play: Play, age_s: int, *, is_resumed: bool) -> None:
    assert PAGE_URL_LIFETIME_S == 12 * 3600
    cut_in_a_window(play)
    end_s = play.house.now_s - LAG_S
    play.house.now_s += age_s
    play.api.windows.clear()
    assert play.house.fetch().outcome == "complete"
    assert len(play.keys()) == 5
    now_s = play.house.now_s
    assert play.api.windows == [(end_s if is_resumed else 0, now_s - LAG_S)]


def test_a_resumed_page_that_is_refused_is_an_error(play: Play) -> None:
    cut_in_a_window(play)
    play.server.faults_at[len(play.server.asked) + 1] = status(403)
    assert "status 403" in play.fetch().error


def test_what_changes_between_the_pages_of_a_window_is_not_lost(play: Play) -> None:
    cut_in_a_window(play)
    play.api.now_s = play.house.now_s
    play.api.put("0", is_deleted=True)
    play.api.put("3", is_deleted=True)
    play.api.put("9", fingerprints=md5("9"))
    assert play.fetch().outcome == "complete"
    assert play.keys() == {"42-1", "42-2", "42-4", "42-9"}
