"""One of each value that is stored or sent, and the stores filled with them: what the golden files hold.

`golden/NAME-1.json` holds what the code wrote before each value had one JSON form. A file is never written again: a
form that changes gets a file of the next number, and all of them are read.
"""

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.aws.api_keys import DynamoApiKeyStore
from countermark.aws.banks import DynamoBankStore
from countermark.aws.collaborations import DynamoCollaborationStore
from countermark.aws.opinions import DynamoOpinionLedger
from countermark.domain.api_key import ApiKey, Role
from countermark.domain.bank import PERMANENTLY_DISABLED, Bank, BankChange, BankContent, ContentDraft, Provenance
from countermark.domain.collaboration import Collaboration, FetchState, Record, RecordPolicy
from countermark.domain.event import BankChanged, ContentHashed, Event, MatchFound, OpinionGiven
from countermark.domain.opinion import ProcessedOpinion, SharedOpinion, Verdict
from countermark.domain.signal import ContentType, Signal, Unhashable
from countermark.domain.stores import ApiKeyStore, BankStore, CollaborationStore, OpinionLedger
from countermark.local.api_keys import SqliteApiKeyStore
from countermark.local.banks import SqliteBankStore
from countermark.local.collaborations import SqliteCollaborationStore
from countermark.local.database import Database
from countermark.local.opinions import SqliteOpinionLedger
from countermark.local.schema import APPLICATION_ID, MIGRATIONS
from tests.aws.deployed import Deployed
from tests.contracts.bank_values import MD5, METADATA, NOW_S, PDQ, PROVENANCE

GOLDEN = Path(__file__).parent / "golden"

BANKS = (
    Bank(id=1, name="FETCHED"),
    Bank(id=2, name="ON_TRIAL", matching_enabled_ratio=0.25, distance_limits={"pdq": 12, "raw_text": 0}),
)

CONTENTS = (
    BankContent(id=1, bank_id=1, signals={"pdq": PDQ}, provenance=PROVENANCE, created_at_s=NOW_S),
    BankContent(
        id=2,
        bank_id=1,
        signals={"video_md5": MD5, "pdq": PDQ},
        provenance=Provenance(collaboration="half \ud800", record_key="\udfff"),
        created_at_s=NOW_S,
    ),
    BankContent(
        id=3,
        bank_id=2,
        signals={"raw_text": 'a "quoted" text\n🐙'},
        disable_until_ts=PERMANENTLY_DISABLED,
        note="naïve ☃",
        metadata=METADATA,
        created_at_s=NOW_S + 1,
    ),
)

SIGNAL_TYPE_RATIOS: Mapping[str, float] = {"pdq": 0.1, "raw_text": 0.0}

COLLABORATIONS = (
    Collaboration(name="Côte d'Azur", api="sample", bank="FETCHED"),
    Collaboration(
        name="all set",
        api="fb_threatexchange",
        bank="ON_TRIAL",
        enabled=False,
        disputed=RecordPolicy.SKIP,
        negative=RecordPolicy.MATCH,
        writes_back=True,
        is_confined=True,
        config={"privacy_group": 12, "tags": ["é", None], "deep": {"ratio": 0.5, "on": True}},
    ),
)

FETCH_STATES: Mapping[str, FetchState] = {
    "Côte d'Azur": FetchState(),
    "all set": FetchState(
        checkpoint={"next": "a\ud800", "page": [1, None]},
        checkpoint_at_s=NOW_S,
        generation=3,
        generation_complete=False,
        fetched_items=17,
        begun_at_s=NOW_S - 5,
        running_since_s=NOW_S - 4,
        last_complete_at_s=NOW_S - 3,
        last_succeeded=False,
        up_to_date=True,
        last_error="it answered “no”",
        malformed_items=2,
        unreadable_items=1,
    ),
}

RECORDS = (
    Record(key="17-4 ☃", data={"b": [1.5, {"z": None, "a": "é"}], "a": "\ud800"}, generation=1, content_id=1),
    Record(key="\udfff", data={}, generation=2),
    Record(key="withheld", data={"signals": [["pdq", PDQ]]}, generation=2, is_withheld=True),
)

_TEXT = "bball now? 🐙"

EVENTS: Sequence[Event] = (
    ContentHashed(
        id="h1",
        content_key="s3://uploads/photo/1#v",
        content_type=ContentType.PHOTO,
        content_id=None,
        signals=(Signal(type="pdq", value=PDQ),),
        at_s=NOW_S,
    ),
    ContentHashed(
        id="h2",
        content_key="s3://uploads/text/é#v/1",
        content_type=ContentType("document"),
        content_id="post-1",
        signals=(Signal(type="raw_text", value=_TEXT),),
        queries=(
            Signal(type="trend_query", value=_TEXT),
            Signal(type="other_query", value="b"),
            Signal(type="third_query", value="b"),
        ),
        unhashable={"text_tlsh": Unhashable(code="low_quality", reason="too short")},
        partial={"raw_text": "the end is missing"},
        left_in_content=("long_query",),
        at_s=NOW_S + 1,
    ),
    MatchFound(
        id="m1",
        content_key="s3://uploads/photo/1#v",
        content_id=None,
        matches=[{"content_id": 1, "bank": "FETCHED", "distance": 0, "tags": ["é"], "note": ""}],
        total_matches=12,
        at_s=NOW_S + 2,
    ),
    MatchFound(
        id="m2",
        content_key="k",
        content_id="post-1",
        matches=[],
        total_matches=0,
        partial={"trend_query": "it took too long"},
        at_s=NOW_S + 3,
    ),
    BankChanged(id="b1", reason="content", at_s=NOW_S + 4),
    BankChanged(id="b2", reason="bank_deleted", deleted_bank_id=7, deleted_collaboration="Côte d'Azur", at_s=NOW_S + 5),
    OpinionGiven(
        id="o1",
        collaboration="Côte d'Azur",
        record_key="17-4 ☃",
        opinion=SharedOpinion(verdict=Verdict.FALSE_POSITIVE, signal_type="pdq", tags=("été", "A1"), reason="3"),
        at_s=NOW_S + 6,
        place=9,
    ),
    OpinionGiven(
        id="o2",
        collaboration="all set",
        record_key=None,
        signals=(Signal(type="pdq", value=PDQ), Signal(type="raw_text", value=_TEXT)),
        opinion=SharedOpinion(verdict=Verdict.SEEN),
        at_s=NOW_S + 7,
    ),
)

TOLD = (
    ProcessedOpinion(place=4, opinion=SharedOpinion(verdict=Verdict.SEEN)),
    ProcessedOpinion(
        place=9,
        opinion=SharedOpinion(verdict=Verdict.TRUE_POSITIVE, signal_type="pdq", tags=("été", "A1"), reason="3"),
    ),
)

API_KEYS = (
    ApiKey(digest="0" * 64, name="all of it", roles=frozenset(Role), created_at_s=NOW_S),
    ApiKey(digest="1" * 64, name="naïve", roles=frozenset({Role.MATCH}), created_at_s=NOW_S + 1),
)

MESSAGES: Sequence[Mapping[str, Any]] = ({"collaboration": "Côte d'Azur"}, {"resume_purges": True})
"""What stages send themselves over a queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The stores that hold values of this module."""

    banks: BankStore
    collaborations: CollaborationStore
    opinions: OpinionLedger
    api_keys: ApiKeyStore


def over_sqlite(database: Database) -> Filled:
    return Filled(
        banks=SqliteBankStore(database),
        collaborations=SqliteCollaborationStore(database),
        opinions=SqliteOpinionLedger(database),
        api_keys=SqliteApiKeyStore(database),
    )


def over_dynamodb(deployment: Deployed) -> Filled:
    dynamodb, names = deployment.clients.dynamodb, deployment.settings
    return Filled(
        banks=DynamoBankStore(dynamodb, names.banks_table, clock=lambda: NOW_S),
        collaborations=DynamoCollaborationStore(dynamodb, names.exchanges_table),
        opinions=DynamoOpinionLedger(dynamodb, names.access_table),
        api_keys=DynamoApiKeyStore(dynamodb, names.access_table),
    )


def fill(stores: Filled) -> None:
    """Store all values but the events."""
    for bank in BANKS:
        stores.banks.create_bank(bank.name, ratio=bank.matching_enabled_ratio)
        if bank.distance_limits:
            stores.banks.update_bank(bank.name, BankChange(distance_limits=bank.distance_limits))
    stores.banks.allot_content_ids(len(CONTENTS))
    stores.banks.put_contents(CONTENTS)
    draft = ContentDraft(signals={"pdq": PDQ}, original_media_uri="s3://uploads/photo/é", source_key="an upload")
    stores.banks.add_content(2, draft, now_s=NOW_S)
    for name, ratio in SIGNAL_TYPE_RATIOS.items():
        stores.banks.set_signal_type_ratio(name, ratio)
    for collaboration in COLLABORATIONS:
        name = collaboration.name
        stores.collaborations.create_collaboration(collaboration)
        lease = stores.collaborations.acquire_lease(name, holder="run", now_s=NOW_S, lease_s=60)
        lease = stores.collaborations.save_fetch_state(lease, FETCH_STATES[name], now_s=NOW_S, lease_s=60)
        stores.collaborations.put_records(lease, RECORDS, now_s=NOW_S)
        for record in RECORDS:
            if record.is_withheld:
                stores.collaborations.withhold(Provenance(collaboration=name, record_key=record.key))
        stores.collaborations.release_lease(lease)
    stores.opinions.allot_place()
    stores.opinions.acquire_lease("a subject", holder="run", now_s=NOW_S, lease_s=60)
    stores.opinions.record_processed("a subject", TOLD, holder="run", now_s=NOW_S)
    for key in API_KEYS:
        stores.api_keys.put_key(key)


def check(stores: Filled) -> None:
    """Check that the stores hold what `fill` stored."""
    assert list(stores.banks.banks()) == list(BANKS)
    draft = ContentDraft(signals={"pdq": PDQ}, original_media_uri="s3://uploads/photo/é")
    banked = draft.content(4, 2, now_s=NOW_S)
    assert stores.banks.contents(range(1, 9)) == {content.id: content for content in (*CONTENTS, banked)}
    assert stores.banks.signal_type_ratios() == SIGNAL_TYPE_RATIOS
    assert list(stores.collaborations.collaborations()) == list(COLLABORATIONS)
    for name, state in FETCH_STATES.items():
        assert stores.collaborations.fetch_state(name) == state
        found = stores.collaborations.records(name, [record.key for record in RECORDS])
        assert found == {record.key: record for record in RECORDS}
    assert list(stores.opinions.processed("a subject")) == list(TOLD)
    assert list(stores.api_keys.keys()) == list(API_KEYS)


_COLUMNS: Mapping[str, str] = {
    "banks": "id, name, ratio, distance_limits",
    "contents": "*",
    "signal_type_ratios": "*",
    # Without the hold of the lease, which names this process.
    "collaborations": "id, name, is_deleted, configuration, fetch_state, lease_holder, lease_expires_at_s",
    "records": "*",
    "events": "*",
    "last_opinion": "*",
    "opinion_turns": "subject, told, holder, lease_expires_at_s, forget_at_s",
    "api_keys": "*",
}


def sqlite_rows(database: Database) -> dict[str, Any]:
    """Return the rows of a database as JSON, with its version of the schema; bytes are `{"hex": …}`."""
    with database.read() as connection:
        tables = {}
        for table, columns in _COLUMNS.items():
            found = connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1")
            names = [each[0] for each in found.description]
            tables[table] = {"columns": names, "rows": [[_plain(value) for value in row] for row in found]}
        return {"schema": connection.execute("PRAGMA user_version").fetchone()[0], "tables": tables}


def make_database(path: Path, rows: Mapping[str, Any]) -> None:
    """Make a database of the schema that rows are of, as a countermark of that time would have left it."""
    connection = sqlite3.connect(path)
    with connection:
        for step in MIGRATIONS[: rows["schema"]]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {rows['schema']}")
        connection.execute("DELETE FROM last_opinion")
        for table, kept in rows["tables"].items():
            places = ", ".join("?" * len(kept["columns"]))
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(kept['columns'])}) VALUES ({places})",
                [[bytes.fromhex(v["hex"]) if isinstance(v, dict) else v for v in row] for row in kept["rows"]],
            )
    connection.close()


def _plain(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def dynamodb_items(deployment: Deployed) -> dict[str, Any]:
    """Return the items of all tables as DynamoDB has them, in order; the nonces of the feed are zeros."""
    tables = {}
    for name in _tables(deployment):
        items: list[Any] = list(deployment.clients.dynamodb.scan(TableName=name, ConsistentRead=True)["Items"])
        for item in items:
            if "feed_at" in item:
                item["feed_at"] = {"S": re.sub(r"[0-9a-f]{8}$", "0" * 8, item["feed_at"]["S"])}
        tables[name] = sorted(
            (dict(sorted(item.items())) for item in items), key=lambda i: (i["pk"]["S"], i["sk"]["S"])
        )
    return tables


def put_items(deployment: Deployed, tables: Mapping[str, Any]) -> None:
    """Put items into the tables as they are."""
    for name, items in tables.items():
        for item in items:
            deployment.clients.dynamodb.put_item(TableName=name, Item=item)


def _tables(deployment: Deployed) -> tuple[str, str, str]:
    return deployment.settings.banks_table, deployment.settings.exchanges_table, deployment.settings.access_table


def golden(name: str) -> Any:
    """Return what a golden file holds."""
    return json.loads((GOLDEN / name).read_text(encoding="ascii"))
