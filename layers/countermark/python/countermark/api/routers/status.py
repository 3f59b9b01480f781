"""Whether the service is alive, and what routes it has."""

from contextlib import suppress
from typing import Any

from countermark.api import wire
from countermark.api.call import Call
from countermark.api.messages import Answer
from countermark.api.routers import Router, answers
from countermark.api.routes import ROUTES
from countermark.domain.index import Manifest
from countermark.domain.stores import origin_mismatch
from countermark.errors import IndexDamaged, IndexNotReady, Unavailable

router = Router("Status")

REASON_HEADER = "countermark-reason"
"""Says in words why a state is what it is, so that the body stays one of the known words."""

_TEXT: dict[int, Any] = {
    200: {
        "description": "It is.",
        "content": {"text/plain": {"schema": {"type": "string", "examples": ["I-AM-ALIVE"]}}},
    },
    503: {
        "description": "INDEX-NOT-LOADED, INDEX-STALE or STORE-UNAVAILABLE; the header `countermark-reason` says why.",
        "content": {"text/plain": {"schema": {"type": "string", "examples": ["INDEX-STALE"]}}},
    },
}


@router.get("/status", summary="Can the service answer lookups?", responses=_TEXT)
def status(call: Call) -> Answer:
    """Answer whether lookups can be answered, from an index that is not too old."""
    return _status(call)


@router.get("/status/ready", summary="The same as /status", responses=_TEXT)
def ready(call: Call) -> Answer:
    """Answer whether requests may be sent here."""
    return _status(call)


@router.get("/status/live", summary="Does the process run?", responses={200: _TEXT[200]})
def live(_call: Call) -> Answer:
    """Answer that the process runs."""
    return _answer("I-AM-ALIVE")


@router.get("/site-map", summary="List the routes", responses=answers(list[str], "The paths of all routes."))
def site_map(_call: Call) -> Answer:
    """Answer the paths of all routes, sorted."""
    return wire.json_answer(sorted({route.path for route in ROUTES}))


def _status(call: Call) -> Answer:
    """Answer the state of the store, where it is gone, else that of the index."""
    try:
        if call.services.check_store is not None:
            call.services.check_store()
    except Unavailable as error:
        return _answer("STORE-UNAVAILABLE", reason=str(error))
    state, reason = _state(call)
    return _answer(state, reason=reason)


def _state(call: Call) -> tuple[str, str]:
    """Return the state of the index in HMA's words, and why it is not well."""
    try:
        if call.services.index is not None:
            index = call.services.index.current(call.now_s)
            manifest, age_s = index.manifest, index.age_s(call.now_s)
        else:
            published = call.services.ports.index.manifest()
            if published is None:
                return "INDEX-NOT-LOADED", "no index has been published yet"
            manifest = published.manifest
            checked_s = [each.checked_at_s for each in manifest.types.values()]
            age_s = call.now_s - min(checked_s, default=call.now_s)
    except IndexDamaged as error:
        return "INDEX-NOT-LOADED", f"IndexDamaged: {error}"
    except IndexNotReady as error:
        return "INDEX-NOT-LOADED", str(error)
    except Unavailable as error:
        # Its text may name hosts and paths, and anybody may ask.
        return "INDEX-NOT-LOADED", f"{type(error).__name__}: the index cannot be read"
    why = _why_stale(call, manifest, age_s)
    return ("INDEX-STALE", "; ".join(why)) if why else ("I-AM-ALIVE", "")


def _why_stale(call: Call, manifest: Manifest, age_s: int) -> list[str]:
    """Return why what is served is not what the banks hold; nothing where it is."""
    faults = [] if call.services.index is None else call.services.index.faults(call.now_s)
    why = [str(fault) for fault in faults if fault.is_stale(call.now_s)]
    # Where the banks cannot be asked, lookups say so themselves.
    with suppress(Unavailable):
        fault = origin_mismatch(call.services.ports.banks, manifest)
        why += [] if fault is None else [fault]
    if age_s > call.services.limits.index_stale_s:
        why.append(f"no build has found the index current for {age_s} s")
    return why


def _answer(state: str, *, reason: str = "") -> Answer:
    return wire.text_answer(
        state,
        wire.TEXT_TYPE,
        status=200 if state == "I-AM-ALIVE" else 503,
        headers={REASON_HEADER: wire.header_text(reason)} if reason else {},
    )
