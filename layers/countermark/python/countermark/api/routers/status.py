"""Routes that report whether the service is alive, and list its routes."""

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
"""The header with the reason for a state, because the body has only one of the known words."""

_TEXT: dict[int, Any] = {
    200: {
        "description": "The service is available.",
        "content": {"text/plain": {"schema": {"type": "string", "examples": ["I-AM-ALIVE"]}}},
    },
    503: {
        "description": "INDEX-NOT-LOADED, INDEX-STALE or STORE-UNAVAILABLE. The header `countermark-reason` says why.",
        "content": {"text/plain": {"schema": {"type": "string", "examples": ["INDEX-STALE"]}}},
    },
}


@router.get("/status", summary="Show whether the service can answer lookups", responses=_TEXT)
def status(call: Call) -> Answer:
    """Return whether lookups can be answered from an index that is not too old."""
    return _status(call)


@router.get("/status/ready", summary="Show the same as /status", responses=_TEXT)
def ready(call: Call) -> Answer:
    """Return whether requests can be sent to this service."""
    return _status(call)


@router.get("/status/live", summary="Show whether the process is running", responses={200: _TEXT[200]})
def live(_call: Call) -> Answer:
    """Return that the process is running."""
    return _answer("I-AM-ALIVE")


@router.get("/site-map", summary="List the routes", responses=answers(list[str], "The paths of all routes."))
def site_map(_call: Call) -> Answer:
    """Return the paths of all routes, sorted."""
    return wire.json_answer(sorted({route.path for route in ROUTES}))


def _status(call: Call) -> Answer:
    """Return the state of the store if it is missing, or else the state of the index."""
    try:
        if call.services.check_store is not None:
            call.services.check_store()
    except Unavailable as error:
        return _answer("STORE-UNAVAILABLE", reason=str(error))
    state, reason = _state(call)
    return _answer(state, reason=reason)


def _state(call: Call) -> tuple[str, str]:
    """Return the state of the index in HMA's words, and the reason if it is not ready."""
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
        # The text of the error can contain hosts and paths, and this route needs no key.
        return "INDEX-NOT-LOADED", f"{type(error).__name__}: the index cannot be read"
    reasons = _why_stale(call, manifest, age_s)
    return ("INDEX-STALE", "; ".join(reasons)) if reasons else ("I-AM-ALIVE", "")


def _why_stale(call: Call, manifest: Manifest, age_s: int) -> list[str]:
    """Return the reasons why the served index differs from the banks; an empty list if it does not."""
    faults = [] if call.services.index is None else call.services.index.faults(call.now_s)
    reasons = [str(fault) for fault in faults if fault.is_stale(call.now_s)]
    # If the banks cannot be read, lookups report that.
    with suppress(Unavailable):
        fault = origin_mismatch(call.services.ports.banks, manifest)
        reasons += [] if fault is None else [fault]
    if age_s > call.services.limits.index_stale_s:
        reasons.append(f"no build has found the index current for {age_s} s")
    return reasons


def _answer(state: str, *, reason: str = "") -> Answer:
    return wire.text_answer(
        state,
        wire.TEXT_TYPE,
        status=200 if state == "I-AM-ALIVE" else 503,
        headers={REASON_HEADER: wire.header_text(reason)} if reason else {},
    )
