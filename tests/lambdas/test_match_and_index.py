import json
import threading
from collections.abc import Sequence
from functools import partial

import pytest

from countermark.aws import keys
from countermark.aws.index import S3IndexStore
from countermark.aws.table import Delete
from countermark.domain import event_json
from countermark.domain.api_key import Role
from countermark.domain.bank import ContentDraft
from countermark.domain.caller import Caller
from countermark.domain.decision import Lookup, MatchRequest
from countermark.domain.event import BankChanged, ContentHashed
from countermark.domain.index import IndexLimits
from countermark.domain.signal import ContentType, Signal
from countermark.errors import IndexDamaged
from countermark.flows import drafts
from countermark.flows.index import build_index
from countermark.indexes import arriving, hamming, reader
from countermark.indexes.codec import Band
from countermark.indexes.segments import Segment
from countermark.indexes.shardwise import ShardwiseIndex
from lambdas import composition
from lambdas.composition import now_s, stores
from lambdas.index.handler import NEXT_BUILD_MS
from lambdas.match.handler import SLOWEST_MS
from tests.lambdas.conftest import Functions

PDQ = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"


def message(event: ContentHashed | BankChanged) -> dict[str, object]:
    detail_type, detail = event_json.to_json(event)
    return {"source": "countermark", "detail-type": detail_type, "detail": detail}


def hashed(name: str = "1") -> dict[str, object]:
    return message(
        ContentHashed(
            id=name,
            content_key=f"s3://uploads/{name}#1",
            content_type=ContentType.PHOTO,
            content_id=None,
            signals=(Signal(type="pdq", value=PDQ),),
            at_s=now_s(),
        )
    )


def bank_one() -> int:
    [bank] = stores().banks.banks() or [stores().banks.create_bank("BANKED", ratio=1.0)]
    return stores().banks.add_content(bank.id, ContentDraft(signals={"pdq": PDQ}), now_s=now_s()).id


def test_hashed_content_that_is_banked_is_told_of_once(functions: Functions) -> None:
    content_id = bank_one()
    assert functions.deliver("index", {"full": False}) == []

    assert functions.deliver("match", hashed(), hashed()) == []
    assert functions.deliver("match", hashed()) == []

    [told] = functions.told("MatchFound")
    assert [match["bank_content_id"] for match in told["detail"]["matches"]] == [content_id]


def test_what_matched_is_taken_from_uploads_and_lookups_alike(functions: Functions) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    calls: list[tuple[MatchRequest, Sequence[Lookup]]] = []
    stores().on_match = lambda asked, found: calls.append((asked, found))
    functions.deliver("match", hashed())
    functions.deliver("match", hashed())
    status, _ = functions.ask("match", "/m/lookup", roles="match", query={"signal": PDQ, "signal_type": "pdq"})
    assert status == 200
    [(upload, uploaded), (lookup, looked_up)] = calls
    assert list(uploaded) == list(looked_up)
    assert (upload.source, upload.caller.key_id) == ("upload", "stage:match")
    assert (lookup.source, lookup.caller) == ("lookup", Caller(key_id="test", roles=frozenset({Role.MATCH})))
    [told] = functions.told("MatchFound")
    assert told["detail"]["id"] == upload.event_id


def test_hashed_content_waits_for_the_first_index(functions: Functions) -> None:
    assert functions.deliver("match", hashed("1"), hashed("2")) == [0, 1]
    functions.deliver("index", {"full": False})
    assert functions.deliver("match", hashed("1"), hashed("2")) == []


def test_what_is_no_hashed_content_fails_alone(functions: Functions) -> None:
    functions.deliver("index", {"full": False})
    changed = message(BankChanged(id="1", reason="bank", at_s=1))
    assert functions.deliver("match", changed, hashed(), {}) == [0, 2]


def test_a_batch_that_runs_out_of_time_returns_what_it_did_not_begin(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    capsys.readouterr()
    messages = [hashed(str(number)) for number in range(3)]
    assert functions.deliver("match", *messages, remaining_ms=SLOWEST_MS - 1) == [1, 2]
    logged = capsys.readouterr().out
    assert (logged.count("content_matched"), "message_failed" in logged) == (1, False)
    assert '"MessagesFailed":[0.0]' in logged.replace(" ", "")
    assert functions.deliver("match", *messages, remaining_ms=SLOWEST_MS) == []
    assert len(functions.told("MatchFound")) == 3


def test_no_log_line_holds_a_signal_that_matched(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    functions.deliver("match", hashed())
    logged = capsys.readouterr().out
    assert "content_matched" in logged
    assert PDQ not in logged


def test_many_nudges_ask_for_one_build(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    bank_one()
    changed = message(BankChanged(id="1", reason="content", at_s=1))

    assert functions.deliver("index", changed, changed, {"full": False}) == []

    assert capsys.readouterr().out.count('"message":"index_built"') == 1
    published = stores().index.manifest()
    assert published is not None
    assert sum(each.entries for each in published.manifest.types["pdq"].segments) == 1


def test_a_nudge_that_is_delivered_twice_changes_nothing(functions: Functions) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    before = stores().index.manifest()
    functions.deliver("index", {"full": False})
    after = stores().index.manifest()
    assert before is not None
    assert after is not None
    assert {name: each.segments for name, each in before.manifest.types.items()} == {
        name: each.segments for name, each in after.manifest.types.items()
    }


def test_a_repair_builds_everything_anew(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    capsys.readouterr()
    functions.deliver("index", {"full": False}, {"full": True})
    assert '"contents_read":1' in capsys.readouterr().out


@pytest.mark.parametrize(("remaining_ms", "deliveries"), [(900_000, 1), (NEXT_BUILD_MS, 3)])
def test_a_repair_goes_on_at_once_while_there_is_time_and_with_the_next_message_where_there_is_none(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, remaining_ms: int, deliveries: int
) -> None:
    for _ in range(5):
        bank_one()
    functions.deliver("index", {"full": False})
    before = stores().index.manifest()
    assert before is not None
    monkeypatch.setattr(drafts, "MAX_PAGE", 2)
    monkeypatch.setattr("lambdas.index.handler.build_index", partial(build_index, limits=IndexLimits(changes=2)))
    for n in range(deliveries):
        published = stores().index.manifest()
        assert published is not None
        assert published.manifest.types["pdq"].segments == before.manifest.types["pdq"].segments
        functions.deliver("index", {"full": n == 0}, remaining_ms=remaining_ms)
    after = stores().index.manifest()
    assert after is not None
    assert {ref.name for ref in before.manifest.types["pdq"].segments}.isdisjoint(
        ref.name for ref in after.manifest.types["pdq"].segments
    )
    assert sum(ref.entries for ref in after.manifest.types["pdq"].segments) == 5


def test_a_damaged_manifest_is_built_anew(functions: Functions, capsys: pytest.CaptureFixture[str]) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    objects = functions.on.clients.s3.list_objects_v2(Bucket=functions.on.settings.index_bucket)["Contents"]
    [manifest] = [each["Key"] for each in objects if each["Key"].endswith("manifest.json")]
    functions.on.clients.s3.put_object(Bucket=functions.on.settings.index_bucket, Key=manifest, Body=b"damaged")

    assert functions.deliver("index", {"full": False}) == []

    assert '"IndexDamaged":[1.0]' in capsys.readouterr().out
    assert functions.deliver("match", hashed()) == []
    assert len(functions.told("MatchFound")) == 1


def test_the_match_function_serves_its_routes_and_the_status(functions: Functions) -> None:
    functions.deliver("index", {"full": False})
    assert functions.ask("match", "/m/index/status")[0] == 200
    assert functions.ask("match", "/site-map")[0] == 200
    assert functions.ask("match", "/c/banks")[0] == 404


def damage_new_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no segment be readable any more that was not read yet."""

    def read(self: S3IndexStore, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        raise IndexDamaged("section FIRST of a segment fails its checksum")

    monkeypatch.setattr(S3IndexStore, "read_segment", read)


def test_an_index_that_cannot_be_loaded_is_logged_and_counted_and_the_old_one_answers(
    functions: Functions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_s = [now_s()]
    for module in ("lambdas.match.handler", "lambdas.composition"):
        monkeypatch.setattr(f"{module}.now_s", lambda: at_s[0])
    bank_one()
    functions.deliver("index", {"full": False})
    assert functions.deliver("match", hashed()) == []
    assert '"IndexLoadFailed":[0.0]' in capsys.readouterr().out

    bank_one()
    functions.deliver("index", {"full": False})
    damage_new_segments(monkeypatch)
    for later_s, lines in ((5, 1), (10, 0), (70, 1)):
        at_s[0] += later_s
        capsys.readouterr()
        query = {"signal_type": "pdq", "signal": PDQ}
        status, found = functions.ask("match", "/m/lookup", query=query)
        assert (status, len(found["BANKED"])) == (200, 1)
        logged = capsys.readouterr().out
        assert logged.count('"message":"index_load_failed"') == lines
        assert logged.count('"IndexLoadFailed":[1.0]') == lines
        assert PDQ not in logged
    assert functions.deliver("match", hashed("2")) == []
    assert "IndexLoadFailed" in capsys.readouterr().out


def test_a_build_of_an_index_of_another_table_is_logged(
    functions: Functions, capsys: pytest.CaptureFixture[str]
) -> None:
    bank_one()
    functions.deliver("index", {"full": False})
    # As after a restore to a point in time, by the documented steps.
    stores().banks._table.write(Delete(key=keys.STORE_ID))
    capsys.readouterr()
    functions.deliver("index", {"full": False})
    logged = capsys.readouterr().out
    assert "index_not_of_this_store" in logged
    assert '"IndexOfAnotherStore":[1.0]' in logged
    functions.deliver("index", {"full": False})
    assert "index_not_of_this_store" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "malformed", ["", "not JSON", "null", "[]", "1", '"full"', '{"full": "yes"}', '{"full": null}', "[" * 100_000]
)
def test_a_malformed_nudge_fails_alone_and_the_index_is_built_for_the_others(
    functions: Functions, capsys: pytest.CaptureFixture[str], malformed: str
) -> None:
    bank_one()
    changed = message(BankChanged(id="1", reason="content", at_s=1))

    assert functions.deliver("index", malformed, changed, {"full": True}, malformed) == [0, 3]

    assert stores().index.manifest() is not None
    out = capsys.readouterr().out
    assert out.count('"message":"index_built"') == 1
    assert '"MessagesFailed":[2.0]' in out


def test_malformed_nudges_alone_ask_for_no_build(functions: Functions) -> None:
    assert functions.deliver("index", "not JSON", "[]") == [0, 1]
    assert stores().index.manifest() is None


def test_no_thread_reads_on_after_a_function_has_answered_and_the_bands_come_with_later_requests(
    functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda freezes the process after its answer."""
    bands = tuple(Band(start_bit=16 * n, bits=8, radius=1) for n in range(16))
    monkeypatch.setattr(hamming, "plan_bands", lambda hashes, *, key_bits, reach: bands if reach == 31 else ())
    monkeypatch.setattr(reader, "MIN_ARRIVING_BYTES", 1)
    monkeypatch.setattr(arriving, "RANGE_BYTES", 4_000)
    monkeypatch.setattr(arriving, "ReadAhead", partial(arriving.ReadAhead, first_ranges=1))
    content_id = bank_one()
    assert functions.deliver("index", {"full": False}) == []
    requests = 0
    while not requests or not all(segment.is_settled for segment in _segments()):
        status, found = functions.ask("match", "/m/lookup", query={"signal": PDQ, "signal_type": "pdq"})
        assert status == 200
        assert str(content_id) in json.dumps(found)
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {"countermark-arriving", "countermark-settling"}
        requests += 1
        assert requests < 50
    assert requests > 2


def _segments() -> list[Segment]:
    index = composition.index_reader().current(now_s())
    assert isinstance(index, ShardwiseIndex)
    return [each for shard in index._shards for each in shard.loaded()["pdq"].values()]
