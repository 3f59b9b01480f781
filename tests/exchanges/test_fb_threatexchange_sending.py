"""ThreatExchange: what is sent to it, and the groups that it lists."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest

from countermark.domain.exchange import ListsMemberships, TakesOpinions, TakesSignals, TakesWithdrawals
from countermark.domain.json import JSON
from countermark.domain.opinion import Category, SharedOpinion, Verdict
from countermark.domain.signal import Signal
from countermark.domain.transport import Request
from countermark.errors import ExchangeFailed, InvalidInput
from countermark.exchanges.fb_threatexchange import (
    MAX_GROUP_PAGES,
    TYPES,
    FbThreatExchange,
    opinions_of,
    signals_of,
)
from tests.exchanges.graph_api import APP_ID, GROUP, INDICATOR_TYPES, SECRET, TOKEN, GraphApi, descriptor
from tests.exchanges.house import NOW_S
from tests.exchanges.scripts import FB
from tests.exchanges.server import Asked, ExchangeServer, as_json, quick_transport, serving

CREDENTIALS, CONFIG = FB.credentials, FB.config
MD5 = "0cc175b9c0f1b6a831c399e269772661"


def exchange_at(server: ExchangeServer) -> FbThreatExchange:
    return FbThreatExchange(quick_transport(), base_url=f"{server.url}/v21.0")


def record(*descriptors: Mapping[str, Any], indicator: str = "x", type_: str = "TEXT_STRING") -> dict[str, Any]:
    return {"indicator": indicator, "type": type_, "descriptors": {"data": list(descriptors)}, "app_id": APP_ID}


def shown(requests: Any) -> list[tuple[str, str, dict[str, list[str]]]]:
    """Return requests as a dry run shows them, bodies parsed."""
    lines = []
    for request in requests:
        assert SECRET not in json.dumps(request.shown())
        assert request.secret_query == {"access_token": TOKEN}
        lines.append(
            (
                request.method,
                request.url.removeprefix("https://graph.facebook.com/v26.0/"),
                parse_qs((request.body or b"").decode()),
            )
        )
    return lines


@pytest.mark.parametrize(
    ("verdict", "reaction"),
    [
        (Verdict.TRUE_POSITIVE, "HELPFUL"),
        (Verdict.FALSE_POSITIVE, "NON_MALICIOUS"),
        (Verdict.SEEN, "SAW_THIS_TOO"),
    ],
)
def test_an_opinion_is_a_reaction_to_each_other_members_descriptor(verdict: Verdict, reaction: str) -> None:
    exchange = FbThreatExchange(quick_transport())
    assert isinstance(exchange, TakesOpinions)
    data = record(descriptor("42"), descriptor("43"), descriptor(None))
    requests = exchange.joined(CONFIG).opinion_requests(data, SharedOpinion(verdict=verdict), credentials=CREDENTIALS)
    assert shown(requests) == [("POST", f"942?reactions={reaction}", {}), ("POST", f"943?reactions={reaction}", {})]


def test_an_opinion_takes_the_contrary_one_back() -> None:
    data = record(descriptor("42", reactions={"HELPFUL": f"41,{APP_ID}", "SAW_THIS_TOO": APP_ID}))
    exchange = FbThreatExchange(quick_transport())
    for verdict, urls in (
        (Verdict.FALSE_POSITIVE, ["942?reactions_to_remove=HELPFUL", "942?reactions=NON_MALICIOUS"]),
        (Verdict.TRUE_POSITIVE, ["942?reactions=HELPFUL"]),
        (Verdict.SEEN, ["942?reactions=SAW_THIS_TOO"]),
    ):
        requests = exchange.joined(CONFIG).opinion_requests(
            data, SharedOpinion(verdict=verdict), credentials=CREDENTIALS
        )
        assert [url for _, url, _ in shown(requests)] == urls


def test_an_opinion_takes_back_what_was_told_since_the_record_was_fetched() -> None:
    exchange = FbThreatExchange(quick_transport())
    for verdict, replaces, urls in (
        (
            Verdict.FALSE_POSITIVE,
            Verdict.TRUE_POSITIVE,
            ["reactions_to_remove=HELPFUL", "reactions=NON_MALICIOUS"],
        ),
        (Verdict.TRUE_POSITIVE, Verdict.TRUE_POSITIVE, ["reactions=HELPFUL"]),
        (Verdict.TRUE_POSITIVE, Verdict.WITHDRAWN, ["reactions=HELPFUL"]),
        (
            Verdict.TRUE_POSITIVE,
            Verdict.FALSE_POSITIVE,
            ["reactions_to_remove=NON_MALICIOUS", "reactions_to_remove=DISAGREE_WITH_TAGS", "reactions=HELPFUL"],
        ),
        (Verdict.FALSE_POSITIVE, Verdict.FALSE_POSITIVE, ["reactions=NON_MALICIOUS"]),
        (Verdict.SEEN, Verdict.TRUE_POSITIVE, ["reactions=SAW_THIS_TOO"]),
    ):
        opinion = SharedOpinion(verdict=verdict, replaces=replaces)
        requests = exchange.joined(CONFIG).opinion_requests(record(descriptor("42")), opinion, credentials=CREDENTIALS)
        assert [url for _, url, _ in shown(requests)] == [f"942?{query}" for query in urls]


def test_an_opinion_of_ones_own_descriptor_is_a_new_status_of_it() -> None:
    exchange = FbThreatExchange(quick_transport())
    data = record(descriptor(APP_ID), indicator="a text")
    opinion = SharedOpinion(verdict=Verdict.FALSE_POSITIVE, tags=("mistake",))
    [(method, url, form)] = shown(exchange.joined(CONFIG).opinion_requests(data, opinion, credentials=CREDENTIALS))
    assert (method, url) == ("POST", "threat_descriptors")
    assert form["indicator"] == ["a text"]
    assert (form["status"], form["tags"]) == (["NON_MALICIOUS"], ["mistake"])
    with pytest.raises(InvalidInput, match="no descriptor of another member"):
        exchange.joined(CONFIG).opinion_requests(data, SharedOpinion(verdict=Verdict.SEEN), credentials=CREDENTIALS)


def test_a_new_signal_is_a_descriptor_for_the_privacy_group() -> None:
    exchange = FbThreatExchange(quick_transport())
    assert isinstance(exchange, TakesSignals)
    opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE, tags=("a",))
    signal = Signal(type="photo_md5", value=MD5)
    requests = exchange.joined(CONFIG).signal_requests(signal, opinion, credentials=CREDENTIALS, now_s=NOW_S)
    [(method, url, form)] = shown(requests)
    assert (method, url) == ("POST", "threat_descriptors")
    assert form == {
        "indicator": [MD5],
        "type": ["HASH_MD5"],
        "description": ["shared by countermark"],
        "share_level": ["AMBER"],
        "status": ["MALICIOUS"],
        "privacy_type": ["HAS_PRIVACY_GROUP"],
        "privacy_members": [str(GROUP)],
        "tags": ["a,media_type_photo"],
    }
    with pytest.raises(InvalidInput, match="accepts no signals of type 'nosuch'"):
        exchange.joined(CONFIG).signal_requests(
            Signal(type="nosuch", value="x"), opinion, credentials=CREDENTIALS, now_s=NOW_S
        )


@pytest.mark.parametrize("name", sorted({name for carried in TYPES.values() for name, _ in carried}))
def test_what_is_shared_is_of_a_type_on_metas_list_and_is_read_back_as_the_same_signal(name: str) -> None:
    exchange = FbThreatExchange(quick_transport())
    signal = Signal(type=name, value=MD5)
    opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE, tags=("a",))
    if name == "url_md5":
        with pytest.raises(InvalidInput, match="accepts no signals of type 'url_md5': Meta's list of indicator types"):
            exchange.joined(CONFIG).signal_requests(signal, opinion, credentials=CREDENTIALS, now_s=NOW_S)
        return
    api = GraphApi()
    with serving(api.answer) as server:
        exchange = exchange_at(server)
        for request in exchange.joined(CONFIG).signal_requests(signal, opinion, credentials=CREDENTIALS, now_s=NOW_S):
            assert quick_transport().send(request, max_bytes=10_000).status == 200
    [(indicator_type, indicator)] = api.updates
    assert indicator_type in INDICATOR_TYPES
    assert indicator == MD5
    assert signals_of({**api.updates[indicator_type, indicator], "app_id": APP_ID}) == [signal]


def test_a_digest_is_shared_with_the_tag_of_its_medium() -> None:
    exchange = FbThreatExchange(quick_transport())
    opinion = SharedOpinion(verdict=Verdict.TRUE_POSITIVE)
    for name, type_, tag in (
        ("video_sha256", "HASH_SHA256", "media_type_video"),
        ("photo_sha256", "HASH_SHA256", "media_type_photo"),
        ("photo_md5", "HASH_MD5", "media_type_photo"),
    ):
        signal = Signal(type=name, value="x")
        requests = exchange.joined(CONFIG).signal_requests(signal, opinion, credentials=CREDENTIALS, now_s=NOW_S)
        [(_, _, form)] = shown(requests)
        assert (form["type"], form["tags"]) == ([type_], [tag])


@pytest.mark.parametrize("type_", ["HASH_VIDEO_SHA256", "HASH_URL_MD5", "RAW_URI"])
def test_no_type_is_sent_that_meta_does_not_list(type_: str) -> None:
    exchange = FbThreatExchange(quick_transport())
    opinion = SharedOpinion(verdict=Verdict.FALSE_POSITIVE)
    with pytest.raises(InvalidInput, match=f"'{type_}': it is not on Meta's list"):
        exchange.joined(CONFIG).opinion_requests(
            record(descriptor(APP_ID), type_=type_), opinion, credentials=CREDENTIALS
        )


def test_a_false_positive_is_non_malicious_to_the_others_and_withdrawing_leaves_nothing() -> None:
    """Also of what an earlier version sent for it."""
    api = GraphApi()
    api.put("x", descriptor("42", reactions={"HELPFUL": f"41,{APP_ID}"}))
    with serving(api.answer) as server:
        exchange = exchange_at(server)

        def send(requests: Any) -> dict[str, str]:
            for request in requests:
                assert quick_transport().send(request, max_bytes=10_000).status == 200
            return {each["key"]: each["value"] for each in told()["descriptors"]["data"][0]["reactions"]}

        def told() -> dict[str, Any]:
            return {**api.updates["TEXT_STRING", "x"], "app_id": APP_ID}

        opinion = SharedOpinion(verdict=Verdict.FALSE_POSITIVE)
        given = send(exchange.joined(CONFIG).opinion_requests(told(), opinion, credentials=CREDENTIALS))
        assert given == {"HELPFUL": "41", "NON_MALICIOUS": APP_ID}
        assert [each.category for each in opinions_of(told()) if each.is_mine] == [Category.NEGATIVE_CLASS]
        told()["descriptors"]["data"][0]["reactions"].append({"key": "DISAGREE_WITH_TAGS", "value": f"40,{APP_ID}"})
        withdrawn = SharedOpinion(verdict=Verdict.WITHDRAWN)
        given = send(exchange.withdrawal_requests(told(), withdrawn, credentials=CREDENTIALS))
        assert given == {"HELPFUL": "41", "DISAGREE_WITH_TAGS": "40"}


def test_what_is_no_opinion_of_a_record_is_refused_in_words() -> None:
    exchange = FbThreatExchange(quick_transport())
    withdrawn = SharedOpinion(verdict=Verdict.WITHDRAWN)
    with pytest.raises(InvalidInput, match="fb_threatexchange does not accept the opinion withdrawn"):
        exchange.joined(CONFIG).opinion_requests(record(descriptor()), withdrawn, credentials=CREDENTIALS)
    signal = Signal(type="url", value="https://x.example/")
    with pytest.raises(InvalidInput, match="fb_threatexchange does not accept the opinion withdrawn"):
        exchange.joined(CONFIG).signal_requests(signal, withdrawn, credentials=CREDENTIALS, now_s=NOW_S)


def test_ones_own_descriptors_and_reactions_can_be_taken_back() -> None:
    exchange = FbThreatExchange(quick_transport())
    assert isinstance(exchange, TakesWithdrawals)
    withdrawn = SharedOpinion(verdict=Verdict.WITHDRAWN)
    reacted = descriptor("43", reactions={"HELPFUL": APP_ID, "SAW_THIS_TOO": APP_ID, "DISAGREE_WITH_TAGS": "41"})
    data = record(descriptor(APP_ID), descriptor("42"), reacted)
    own: Any = ("DELETE", f"9{APP_ID}", {})
    assert shown(exchange.withdrawal_requests(data, withdrawn, credentials=CREDENTIALS)) == [
        own,
        ("POST", "943?reactions_to_remove=HELPFUL", {}),
    ]
    told = replace(withdrawn, replaces=Verdict.FALSE_POSITIVE)
    assert shown(exchange.withdrawal_requests(data, told, credentials=CREDENTIALS)) == [
        own,
        ("POST", "942?reactions_to_remove=NON_MALICIOUS", {}),
        ("POST", "942?reactions_to_remove=DISAGREE_WITH_TAGS", {}),
        ("POST", "943?reactions_to_remove=HELPFUL", {}),
        ("POST", "943?reactions_to_remove=NON_MALICIOUS", {}),
        ("POST", "943?reactions_to_remove=DISAGREE_WITH_TAGS", {}),
    ]
    with pytest.raises(InvalidInput, match="no descriptor or reaction of your own"):
        exchange.withdrawal_requests(record(descriptor("42")), withdrawn, credentials=CREDENTIALS)


def test_what_is_sent_arrives_with_the_token() -> None:
    def answer(asked: Asked) -> Any:
        return as_json({"success": True})

    with serving(answer) as server:
        exchange = exchange_at(server)
        opinion = SharedOpinion(verdict=Verdict.SEEN)
        [request] = exchange.joined(CONFIG).opinion_requests(record(descriptor()), opinion, credentials=CREDENTIALS)
        quick_transport().send(request, max_bytes=1000)
        [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/v21.0/942")
    assert asked.query == {"reactions": "SAW_THIS_TOO", "access_token": TOKEN}
    assert asked.body == b""


# The groups of an app


def test_the_groups_of_an_app_are_those_it_is_a_member_or_the_owner_of() -> None:
    groups = {
        f"/v21.0/{APP_ID}/threat_privacy_groups_member": [
            {"id": "2", "name": "B", "description": "second", "threat_updates_enabled": True},
            {"id": "x"},
            {"id": "3"},
        ],
        f"/v21.0/{APP_ID}/threat_privacy_groups_owner": [
            {"id": "1", "name": "A", "description": "first", "threat_updates_enabled": False},
            {"id": "2", "name": "B", "description": "second", "threat_updates_enabled": True},
        ],
    }
    with serving(lambda asked: as_json({"data": groups[asked.path]})) as server:
        exchange = exchange_at(server)
        assert isinstance(exchange, ListsMemberships)
        listed = exchange.memberships(credentials=CREDENTIALS)
        assert all(asked.query["access_token"] == TOKEN for asked in server.asked)
    assert [(each.id, each.name, each.description, each.is_enabled) for each in listed] == [
        ("3", "", "", False),
        ("1", "A", "first", False),
        ("2", "B", "second", True),
    ]
    assert exchange.parse_config(listed[2].config) == {"privacy_group": 2}


def test_a_list_of_groups_that_is_malformed_is_an_error() -> None:
    with (
        serving(lambda _: as_json({"data": None})) as server,
        pytest.raises(ExchangeFailed, match="answered with a malformed page"),
    ):
        exchange_at(server).memberships(credentials=CREDENTIALS)


def test_groups_on_further_pages_are_listed_as_well_where_the_peer_reads_the_first_only() -> None:
    def answer(asked: Asked) -> Any:
        after = int(asked.query.get("after", "0"))
        group = {"id": str(after), "name": str(after), "threat_updates_enabled": True}
        url = f"http://{asked.headers['host']}{asked.path}?after={after + 1}"
        return as_json({"data": [group], "paging": {"next": url} if after < last else {}})

    with serving(answer) as server:
        last = 3
        listed = exchange_at(server).memberships(credentials=CREDENTIALS)
        assert [each.id for each in listed] == ["0", "1", "2", "3"]
        last = MAX_GROUP_PAGES
        with pytest.raises(ExchangeFailed, match=f"more than {MAX_GROUP_PAGES} pages of privacy groups"):
            exchange_at(server).memberships(credentials=CREDENTIALS)
        last = MAX_GROUP_PAGES - 1
        assert len(exchange_at(server).memberships(credentials=CREDENTIALS)) == MAX_GROUP_PAGES


@pytest.mark.parametrize("bad_id", [None, "", "../me/feed", "9?x=y", -1, 1.5, {"id": 1}])
def test_a_descriptor_whose_id_is_none_leads_nowhere(bad_id: JSON) -> None:
    """An id becomes a path: who shares a record must not choose what our token is sent to."""
    exchange = FbThreatExchange(quick_transport())
    seen = SharedOpinion(verdict=Verdict.SEEN)
    odd = {**descriptor("42"), "id": bad_id}
    requests = exchange.joined(CONFIG).opinion_requests(record(odd, descriptor("43")), seen, credentials=CREDENTIALS)
    assert [url for _, url, _ in shown(requests)] == ["943?reactions=SAW_THIS_TOO"]
    with pytest.raises(InvalidInput, match="no descriptor of another member"):
        exchange.joined(CONFIG).opinion_requests(record(odd), seen, credentials=CREDENTIALS)
    own = record({**descriptor(APP_ID), "id": bad_id})
    with pytest.raises(InvalidInput, match="no descriptor or reaction of your own"):
        exchange.withdrawal_requests(own, SharedOpinion(verdict=Verdict.WITHDRAWN), credentials=CREDENTIALS)


def test_requests_show_no_token() -> None:
    assert SECRET not in repr(Request(url="https://x/", secret_query={"access_token": TOKEN}))
