"""The four exchanges of the network as scripted: what differs between them where one test holds for all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from countermark.domain.exchange import Exchange
from countermark.domain.json import JSON
from countermark.domain.transport import Transport
from countermark.exchanges.fb_threatexchange import STALE_AFTER_S as FB_STALE_AFTER_S
from countermark.exchanges.fb_threatexchange import FbThreatExchange
from countermark.exchanges.ncmec import Ncmec
from countermark.exchanges.ncmec_windows import LAG_S, PAGE_URL_LIFETIME_S
from countermark.exchanges.stop_ncii import STALE_AFTER_S as NCII_STALE_AFTER_S
from countermark.exchanges.stop_ncii import StopNcii
from countermark.exchanges.tat import Tat
from countermark.flows.fetch import FetchReport
from tests.exchanges import hash_sharing, ncii_api, tat_api
from tests.exchanges.graph_api import APP_ID, GROUP, SECRET, TOKEN, GraphApi, descriptor
from tests.exchanges.hash_sharing import BASE, ME, HashSharing, document
from tests.exchanges.house import NOW_S, House, Mishap, house_of
from tests.exchanges.ncii_api import NciiApi, feedback
from tests.exchanges.server import Answer, Asked, ExchangeServer, SlowTime, as_json, quick_transport, serving
from tests.exchanges.tat_api import TatApi

MD5S = [f"{number:032x}" for number in range(20)]

Signals = set[tuple[str, str]]
Twist = Callable[["Play", int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One exchange: its scripted server, the client, and how a history is told to the one and seen by the other.

    Items are numbered. `share` tells one in either of two variants; `truth` returns what is to be banked by now.
    `twists` are what may happen to this exchange only. `first_page` counts the requests before that for a page, and
    `stale_after_s` is None where a checkpoint never is. `empty_page` answers with the empty page of a number, and
    leads to the next one, where there is one.
    """

    kind: str
    config: Mapping[str, JSON]
    credentials: Mapping[str, str]
    wrong_credentials: Mapping[str, str]
    secrets: tuple[str, ...]
    api: Callable[[], Any]
    exchange: Callable[[Transport, str], Exchange]
    share: Callable[[Any, int, int], None]
    take_back: Callable[[Any, int], None]
    dispute: Callable[[Any, int], None] | None
    truth: Callable[[Any], Signals]
    add_malformed: Callable[[Any], int]
    lead_elsewhere: Callable[[Any, str], None]
    empty_page: Callable[[Asked, int, int | None], Answer]
    forget: Callable[[Any], None]
    twists: Mapping[str, Twist] = field(default_factory=dict)
    first_page: int = 0
    stale_after_s: int | None = None


class Play:
    """A script that is played: the API, its server, and a house that fetches it."""

    def __init__(self, script: Script, api: Any, server: ExchangeServer, house: House) -> None:
        self.script = script
        self.api = api
        self.server = server
        self.house = house

    def share(self, count: int) -> Signals:
        """Tell so many items, and return their signals."""
        for number in range(count):
            self.script.share(self.api, number, 0)
        return self.truth()

    def truth(self) -> Signals:
        """Return what is to be banked."""
        return self.script.truth(self.api)

    def settle(self) -> None:
        """Let so much time pass that nothing is too new to be asked for."""
        if isinstance(self.api, HashSharing):
            self.house.now_s = max(self.house.now_s, self.api.now_s + LAG_S + 1)
            self.api.now_s = self.house.now_s

    def fetch(self, **changes: Any) -> FetchReport:
        """Run once, with nothing in the way."""
        self.settle()
        return self.house.fetch(**changes)

    def cut(self) -> None:
        """Run once, up to the first page."""
        self.suffer(Mishap(is_cut=True))

    def suffer(self, mishap: Mishap) -> None:
        """Run once, with a mishap."""
        self.settle()
        self.house.suffer(mishap, self.server)

    def signals(self) -> Signals:
        """Return what is banked."""
        return self.house.signals()

    def keys(self) -> set[str]:
        """Return the keys of the records that are banked."""
        return set(self.house.banked())

    def values(self) -> set[str]:
        """Return the values of the signals that are banked."""
        return {value for _, value in self.house.signals()}

    def fault(self, page: int, *faults: Any) -> None:
        """Let faults happen from a page on, counted from 0."""
        first = self.script.first_page + page
        self.server.faults_at.update(enumerate(faults, start=first))


@contextmanager
def playing(
    script: Script, *, waiting: SlowTime | None = None, credentials: Mapping[str, str] | None = None, **limits: Any
) -> Iterator[Play]:
    """Play a script."""
    api = script.api()
    with serving(api.answer) as server:
        exchange = script.exchange(quick_transport(waiting, **limits), server.url)
        with house_of(exchange, script.config, credentials or script.credentials) as house:
            yield Play(script, api, server, house)


def _share_with_a_group(api: GraphApi, number: int, variant: int) -> None:
    tag = ("media_type_photo", "media_type_video")[variant]
    api.put(MD5S[number], descriptor(tags=[tag]), type="HASH_MD5")


def _dispute_in_a_group(api: GraphApi, number: int) -> None:
    photo = ["media_type_photo"]
    disagreeing = descriptor("43", "NON_MALICIOUS", tags=photo)
    api.put(MD5S[number], descriptor(tags=photo), disagreeing, type="HASH_MD5")


def _truth_of_a_group(api: GraphApi) -> Signals:
    names = {"media_type_photo": "photo_md5", "media_type_video": "video_md5"}
    return {
        (names[update["descriptors"]["data"][0]["tags"][0]], indicator)
        for (_, indicator), update in api.updates.items()
        if not update["should_delete"]
        and not any(
            each["owner"]["id"] == APP_ID and each["status"] == "NON_MALICIOUS"
            for each in update["descriptors"]["data"]
        )
    }


def _disown_in_a_group(play: Play, number: int) -> None:
    tag = ["media_type_photo"]
    play.api.put(MD5S[number], descriptor(tags=tag), descriptor(APP_ID, "NON_MALICIOUS", tags=tag), type="HASH_MD5")


def _malformed_in_a_group(api: GraphApi) -> int:
    api.put("nonsense", descriptor(), type="HASH_PDQ")
    api.extra_items = [{"indicator": 3}, "x"]
    return 3


def _lead_a_group_elsewhere(api: GraphApi, url: str) -> None:
    api.next_host = url


def _empty_page_of_a_group(asked: Asked, _: int, following: int | None) -> Answer:
    url = f"http://{asked.headers['host']}{asked.path}?page={following}"
    return as_json({"data": [], "paging": {} if following is None else {"next": url}})


def _grow_stale(play: Play, _: int) -> None:
    """Let so much time pass that the exchange has forgotten what was taken back."""
    assert play.script.stale_after_s is not None
    play.api.retains_after = play.api.at_s + 1
    play.house.now_s += play.script.stale_after_s + 1


FB = Script(
    kind="fb_threatexchange",
    config={"privacy_group": GROUP},
    credentials={"api_token": TOKEN},
    wrong_credentials={"api_token": f"{TOKEN}-wrong"},
    secrets=(SECRET,),
    api=GraphApi,
    exchange=lambda transport, url: FbThreatExchange(transport, base_url=f"{url}/v21.0"),
    share=_share_with_a_group,
    take_back=lambda api, number: api.delete(MD5S[number], type="HASH_MD5"),
    dispute=_dispute_in_a_group,
    truth=_truth_of_a_group,
    add_malformed=_malformed_in_a_group,
    lead_elsewhere=_lead_a_group_elsewhere,
    empty_page=_empty_page_of_a_group,
    forget=GraphApi.forget,
    twists={"disown": _disown_in_a_group, "grow stale": _grow_stale},
    stale_after_s=FB_STALE_AFTER_S,
)


def _report(api: HashSharing, number: int, variant: int, *votes: tuple[int, bool]) -> None:
    api.put(str(number), fingerprints={"md5": MD5S[number + 10 * variant]}, votes=votes)


def _malformed_entries(api: HashSharing) -> int:
    api.put("nonsense", fingerprints={"pdq": "nonsense"})
    api.extra_xml = "<image/><nonsense/>"
    # The second page tells them again.
    return 1 + 2 * 2


def _lead_an_environment_elsewhere(api: HashSharing, url: str) -> None:
    api.next_path = f"{url}/v2/entries?start=1"


def _forget_for_long(play: Play, _: int) -> None:
    play.api.forget()
    play.house.now_s += PAGE_URL_LIFETIME_S + 1


NCMEC = Script(
    kind="ncmec",
    config={"environment": "test_Industry"},
    credentials=hash_sharing.CREDENTIALS,
    wrong_credentials={**hash_sharing.CREDENTIALS, "password": "hunter2-wrong"},
    secrets=("hunter2", "Basic ", "aHVudGVyMjpodW50ZXIy", "b21lYm9keTpodW50"),
    api=lambda: HashSharing(now_s=NOW_S - 1_000_000),
    exchange=lambda transport, url: Ncmec(transport, base_url=f"{url}{BASE}"),
    share=_report,
    take_back=lambda api, number: api.put(str(number), is_deleted=True),
    dispute=lambda api, number: _report(api, number, 0, (43, False)),
    truth=lambda api: {
        ("photo_md5", entry.fingerprints["md5"])
        for entry in api.entries.values()
        if not entry.is_deleted and (ME, False) not in entry.votes
    },
    add_malformed=_malformed_entries,
    lead_elsewhere=_lead_an_environment_elsewhere,
    empty_page=lambda _, __, following: document(
        "queryResult", "" if following is None else f"<paging><next>/v2/entries?page={following}</next></paging>"
    ),
    forget=HashSharing.forget,
    twists={
        "disown": lambda play, number: _report(play.api, number, 0, (ME, False)),
        "forget for long": _forget_for_long,
    },
    first_page=1,
)


def _send_in(api: NciiApi, number: int, variant: int) -> None:
    api.put(MD5S[number], feedback(("Blocked", "Undefined")[variant]), kind="VideoMD5")


def _malformed_records(api: NciiApi) -> int:
    api.put("not a hash", kind="ImagePDQ")
    api.extra_items = [None, {"hashValue": "x"}, {"signalType": "Text", "hashValue": "x", "hashStatus": None}]
    return 4


def _lead_platforms_elsewhere(api: NciiApi, url: str) -> None:
    api.token_prefix = f"{url}/v1/FetchHashes?token="


NCII = Script(
    kind="stop_ncii",
    config={},
    credentials=ncii_api.CREDENTIALS,
    wrong_credentials={**ncii_api.CREDENTIALS, "fetch_function_key": "hunter2-wrong"},
    secrets=("hunter2",),
    api=NciiApi,
    exchange=lambda transport, url: StopNcii(transport, base_url=f"{url}/v1"),
    share=_send_in,
    take_back=lambda api, number: api.put(MD5S[number], kind="VideoMD5", status=("Withdrawn", "Deleted")[number % 2]),
    dispute=lambda api, number: api.put(MD5S[number], feedback("NotBlocked"), feedback("Blocked"), kind="VideoMD5"),
    truth=lambda api: {
        ("video_md5", value) for (_, value), told in api.records.items() if told["hashStatus"] == "Active"
    },
    add_malformed=_malformed_records,
    lead_elsewhere=_lead_platforms_elsewhere,
    empty_page=lambda _, __, following: as_json(
        {
            "count": 0,
            "nextPageToken": None if following is None else str(following),
            "nextSetTimestamp": 20,
            "hasMoreRecords": following is not None,
            "hashRecords": [],
        }
    ),
    forget=NciiApi.forget_tokens,
    twists={"grow stale": _grow_stale},
    stale_after_s=NCII_STALE_AFTER_S,
)


def _list(api: TatApi, number: int, variant: int) -> None:
    api.put(number, MD5S[number], file_type=("mp4", "png")[variant])


def _truth_of_the_list(api: TatApi) -> Signals:
    names = {"mp4": "video_md5", "png": "photo_md5"}
    return {
        (names[told["file_type"]], told["hash_digest"])
        for told in api.entries.values()
        if not told["deleted"] and told["file_type"] in names
    }


def _malformed_on_the_list(api: TatApi) -> int:
    api.extra_items = [None, {"id": "x", "deleted": False}, {"id": 8, "deleted": False, "hash_digest": 3}]
    api.put(9, "no hash", algorithm="PDQ", file_type="pdf")
    return 4


def _lead_the_list_elsewhere(api: TatApi, url: str) -> None:
    api.next_host = url


def _end_tokens(play: Play, number: int) -> None:
    play.api.lasts = 1 + number % 3


TAT = Script(
    kind="tat",
    config={},
    credentials=tat_api.CREDENTIALS,
    wrong_credentials={**tat_api.CREDENTIALS, "password": "hunter2-wrong"},
    secrets=("hunter2", tat_api.USER),
    api=TatApi,
    exchange=lambda transport, url: Tat(transport, base_url=url),
    share=_list,
    take_back=lambda api, number: api.delete(number),
    dispute=None,
    truth=_truth_of_the_list,
    add_malformed=_malformed_on_the_list,
    lead_elsewhere=_lead_the_list_elsewhere,
    empty_page=lambda _, number, following: as_json(
        {
            "count": 9,
            "next": None if following is None else "http://dev.example/",
            "previous": None,
            "checkpoint": f"1.5,{number + 1}",
            "results": [],
        }
    ),
    forget=TatApi.forget,
    twists={"end tokens": _end_tokens},
    first_page=1,
)

SCRIPTS = (FB, NCMEC, NCII, TAT)


def number_of(asked: Asked) -> int:
    """Return the number of the empty page that is asked for."""
    token = asked.query.get("page") or asked.query.get("nextPageToken") or asked.query.get("after", "0")
    return int(token.rpartition(",")[2])
