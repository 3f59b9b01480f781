"""Routes that report the health of the service, and a route that lists all paths."""

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
"""The header that explains why the service is not available. The body is only a fixed word, such as INDEX-STALE."""

_TEXT: dict[int, Any] = {
    200: {
        "description": "The service is available.",
        "content": {"text/plain": {"schema": {"type": "string", "examples": ["I-AM-ALIVE"]}}},
    },
    503: {
        "description": "INDEX-NOT-LOADED, INDEX-STALE or STORE-UNAVAILABLE. See the header `countermark-reason`.",
        "content": {"text/plain": {"schema": {"type": "string", "examples": ["INDEX-STALE"]}}},
    },
}


@router.get("/status", summary="Show whether the service can answer lookups", responses=_TEXT)
def status(call: Call) -> Answer:
    """Report whether the service can answer lookups, and whether its index is recent enough."""
    return _status(call)


@router.get("/status/ready", summary="Show whether the service is ready for requests", responses=_TEXT)
def ready(call: Call) -> Answer:
    """Report whether the service is ready for requests. The answer is the same as that of `/status`."""
    return _status(call)


@router.get("/status/live", summary="Show whether the process is running", responses={200: _TEXT[200]})
def live(_call: Call) -> Answer:
    """Report that the process is running."""
    return _answer("I-AM-ALIVE")


@router.get("/site-map", summary="List the routes", responses=answers(list[str], "The paths of all routes."))
def site_map(_call: Call) -> Answer:
    """Return the paths of all routes, sorted."""
    return wire.json_answer(sorted({route.path for route in ROUTES}))


def _status(call: Call) -> Answer:
    """Answer STORE-UNAVAILABLE if the store has disappeared. Otherwise answer with the state of the index."""
    try:
        if call.services.check_store is not None:
            call.services.check_store()
    except Unavailable as error:
        return _answer("STORE-UNAVAILABLE", reason=str(error))
    state, reason = _state(call)
    return _answer(state, reason=reason)


def _state(call: Call) -> tuple[str, str]:
    """Return the state of the index, as a word of HMA, and the reason if the index is missing or stale."""
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
    """Return the reasons why the served index is stale. The list is empty if the index is not stale."""
    faults = [] if call.services.index is None else call.services.index.faults(call.now_s)
    reasons = [str(fault) for fault in faults if fault.is_stale(call.now_s)]
    # Ignore an error that occurs while the banks are read. Lookups report that error.
    with suppress(Unavailable):
        fault = origin_mismatch(call.services.ports.banks, manifest)
        reasons += [] if fault is None else [fault]
    if age_s > call.services.limits.index_stale_s:
        reasons.append(f"the last build that found the index up to date was {age_s} s ago")
    return reasons


def _answer(state: str, *, reason: str = "") -> Answer:
    return wire.text_answer(
        state,
        wire.TEXT_TYPE,
        status=200 if state == "I-AM-ALIVE" else 503,
        headers={REASON_HEADER: wire.header_text(reason)} if reason else {},
    )
