"""Signal types and content types."""

from typing import Annotated

from countermark.api import wire
from countermark.api.binding import Body, Query
from countermark.api.call import Call
from countermark.api.index_status import index_lag
from countermark.api.messages import Answer
from countermark.api.routers import Router, answers
from countermark.api.schemas import ContentTypeView, IndexLag, SignalTypeChange, SignalTypeView
from countermark.domain.index import Manifest
from countermark.domain.signal import ContentType
from countermark.errors import InvalidInput
from countermark.flows import curate
from countermark.flows.hash import applicable_types

router = Router("Types")


@router.get(
    "/c/signal_type",
    summary="List the signal types",
    responses=answers(list[SignalTypeView], "All signal types with their ratios."),
)
def list_signal_types(call: Call) -> Answer:
    """Return all signal types with their ratios."""
    services = call.services
    ratios = services.ports.banks.signal_type_ratios()
    return wire.json_answer([{"name": name, "enabled_ratio": ratios.get(name, 1.0)} for name in services.signal_types])


@router.put(
    "/c/signal_type/<signal_type_name>",
    summary="Enable or disable a signal type",
    responses={204: {"description": "The ratio was set."}},
)
def change_signal_type(call: Call, signal_type_name: str, body: Annotated[SignalTypeChange, Body()]) -> Answer:
    """Set the ratio of a signal type. A type with ratio 0 is not hashed, indexed or matched."""
    curate.set_signal_type_ratio(call.curator, call.services.signal_types, signal_type_name, body.enabled_ratio)
    return Answer(status=204)


@router.get(
    "/c/signal_type/index",
    summary="Show how far the index is behind the banks",
    responses=answers(dict[str, IndexLag], "The lag of the index of each signal type."),
)
def show_index_lag(
    call: Call,
    signal_type: Annotated[
        str | None, Query(description="The only signal type to report; by default all.", examples=["pdq"])
    ] = None,
) -> Answer:
    """Return for each signal type how far its index is behind the banks."""
    services = call.services
    if signal_type is not None and signal_type not in services.signal_types:
        raise InvalidInput(f"No such signal type '{signal_type}'")
    published = services.ports.index.manifest()
    manifest = Manifest() if published is None else published.manifest
    names = list(services.signal_types) if signal_type is None else [signal_type]
    ratios = services.ports.banks.signal_type_ratios()
    return wire.json_answer(
        {
            name: index_lag(
                services.ports.banks,
                name,
                manifest.types.get(name),
                origin=manifest.origin,
                is_enabled=ratios.get(name, 1.0) > 0.0,
            )
            for name in names
        }
    )


@router.get(
    "/c/content_type",
    summary="List the content types",
    responses=answers(list[ContentTypeView], "The content types. A type is enabled if a signal type can hash it."),
)
def list_content_types(call: Call) -> Answer:
    """Return the content types.

    A type is enabled if an enabled signal type can hash it, or if it contains other content.

    `file` is left out, because a file has one of the other types, depending on its bytes.
    """
    services = call.services
    ratios = services.ports.banks.signal_type_ratios()

    def is_enabled(kind: ContentType) -> bool:
        is_opened = services.content_types.holding(kind) is not None
        return is_opened or bool(applicable_types(services.signal_types, kind, ratios=ratios))

    kinds = [kind for kind in services.content_types.names() if kind != ContentType.FILE]
    return wire.json_answer([{"name": kind, "enabled": is_enabled(kind)} for kind in kinds])
