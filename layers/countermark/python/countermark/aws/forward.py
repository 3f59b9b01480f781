"""Passing a request of the HTTP API on to the function that answers its group of routes."""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translated
from countermark.aws.shards import Invokes
from countermark.errors import ContentTooLarge, CountermarkError, Unavailable


class GroupFailed(CountermarkError):
    """The function that answers a group of routes failed. Its log says why."""


class GroupFunctions:
    """The functions that answer the groups of the API's routes."""

    def __init__(self, client: Invokes, names: Mapping[str, str]) -> None:
        self._client = client
        self._names = names

    def answer(self, group: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Have a request answered, given and returned as payload 2.0. It is sent once: it may change something.

        Raises:
            ContentTooLarge: Lambda does not take a request of that size.
            Unavailable: The function could not be reached, or has no room. It may have been called nevertheless.
            GroupFailed: It failed.
        """
        name = self._names.get(group)
        if name is None:
            raise Unavailable(f"this function was deployed without the name of the one that answers /{group}")
        with translated("Lambda"):
            told = self._told(name, json.dumps(event, ensure_ascii=False).encode())
            payload: bytes = told["Payload"].read()
        if "FunctionError" in told:
            # What it says of its failure may hold what was asked.
            raise GroupFailed(f"{name} failed")
        answer: dict[str, Any] = json.loads(payload)
        return answer

    def _told(self, name: str, payload: bytes) -> Mapping[str, Any]:
        try:
            return self._client.invoke(FunctionName=name, Payload=payload)
        except ClientError as error:
            if code(error) == "RequestTooLargeException":
                raise ContentTooLarge("Content too large: a request takes at most 6 MB on AWS") from error
            raise
