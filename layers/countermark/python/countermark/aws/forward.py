"""Forwarding of HTTP API requests to Lambda functions.

Each group of routes has one function that answers its requests.
"""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translate_errors
from countermark.aws.shards import LambdaClient
from countermark.errors import ContentTooLarge, CountermarkError, Unavailable


class GroupFailed(CountermarkError):
    """The function that answers a group of routes failed. The log of the function has the reason."""


class GroupFunctions:
    """The functions that answer the groups of the API's routes."""

    def __init__(self, client: LambdaClient, names: Mapping[str, str]) -> None:
        self._client = client
        self._names = names

    def answer(self, group: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Call the function of a group and return its response. `event` and the response have payload format 2.0.

        The call is never repeated, because the request can change data.

        Raises:
            ContentTooLarge: The request is larger than Lambda accepts.
            Unavailable: The function could not be reached, or is throttled. It may have processed the request.
            GroupFailed: The function failed.
        """
        name = self._names.get(group)
        if name is None:
            raise Unavailable(f"no Lambda function is configured for the routes of /{group}: deploy countermark again")
        with translate_errors("Lambda"):
            response = self._invoke(name, json.dumps(event, ensure_ascii=False).encode())
            payload: bytes = response["Payload"].read()
        if "FunctionError" in response:
            # The message leaves out the error in the payload, because the error can quote the request.
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
