"""Forwarding of HTTP API requests to the function that answers their group of routes."""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translated
from countermark.aws.shards import LambdaClient
from countermark.errors import ContentTooLarge, CountermarkError, Unavailable


class GroupFailed(CountermarkError):
    """The function that answers a group of routes failed. The reason is in its log."""


class GroupFunctions:
    """The functions that answer the groups of the API's routes."""

    def __init__(self, client: LambdaClient, names: Mapping[str, str]) -> None:
        self._client = client
        self._names = names

    def answer(self, group: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Call the function of a group and return its response. Request and response are of payload format 2.0.

        The request is sent once, because it may change something.

        Raises:
            ContentTooLarge: The request is larger than Lambda accepts.
            Unavailable: The function could not be reached, or is throttled. It may have been called nevertheless.
            GroupFailed: The function failed.
        """
        name = self._names.get(group)
        if name is None:
            raise Unavailable(f"this function was deployed without the name of the function that answers /{group}")
        with translated("Lambda"):
            response = self._invoke(name, json.dumps(event, ensure_ascii=False).encode())
            payload: bytes = response["Payload"].read()
        if "FunctionError" in response:
            # The error in the payload may quote the request.
            raise GroupFailed(f"{name} failed")
        answer: dict[str, Any] = json.loads(payload)
        return answer

    def _invoke(self, name: str, payload: bytes) -> Mapping[str, Any]:
        try:
            return self._client.invoke(FunctionName=name, Payload=payload)
        except ClientError as error:
            if code(error) == "RequestTooLargeException":
                raise ContentTooLarge("Content too large: a request can have at most 6 MB on AWS") from error
            raise
