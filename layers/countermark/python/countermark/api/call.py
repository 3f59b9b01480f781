"""The request that a route's function receives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.api import multipart, wire
from countermark.api.services import Services
from countermark.domain.caller import Caller
from countermark.errors import InvalidInput
from countermark.flows.curate import Curator
from countermark.flows.opinions import OpinionSender


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose caller is allowed to make it. `now_s` is the time of the request in epoch seconds."""

    services: Services
    caller: Caller
    now_s: int
    content_type: str
    body: bytes

    @property
    def curator(self) -> Curator:
        """A curator that changes banks and collaborations in the name of this request's caller."""
        return Curator.of(self.services.ports, caller=self.caller, now_s=self.now_s)

    @property
    def opinion_sender(self) -> OpinionSender:
        """The sender that prepares opinions for exchanges."""
        return OpinionSender.of(self.services.ports, exchanges=self.services.exchanges, caller=self.caller)

    def parts(self) -> list[multipart.Part]:
        """Return the parts of a multipart form, or an empty list if the body is not a multipart form.

        Raises:
            InvalidInput: The form is malformed or exceeds a limit.
        """
        if not multipart.is_multipart(self.content_type):
            return []
        return multipart.parse(self.body, self.content_type, max_parts=self.services.limits.parts)

    def json_object(self) -> Mapping[str, Any]:
        """Return the JSON object in the body, or an empty object if the request has no JSON body.

        Raises:
            InvalidInput: The Content-Type is JSON, but the body is not a JSON object in UTF-8.
        """
        if wire.media_type(self.content_type) != wire.JSON_TYPE or not self.body:
            return {}
        try:
            value = wire.load(self.body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidInput("the body is not UTF-8") from error
        if not isinstance(value, dict):
            raise InvalidInput("the body must be a JSON object")
        return value
