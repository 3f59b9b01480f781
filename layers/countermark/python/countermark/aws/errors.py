"""What AWS answers, in our words: exact error codes, and nothing guessed."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError
from botocore.exceptions import ConnectionError as NoConnection

from countermark.errors import Unavailable

UNAVAILABLE = frozenset(
    {
        "500",
        "502",
        "503",
        "InternalError",
        "InternalException",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""Codes that say: try again later. A HEAD request has no body, so its code is its status.

Source: "Common errors" and each service's own list, DynamoDB, S3, EventBridge, Secrets Manager API references.
"""


def code(error: ClientError) -> str:
    """Return the code that the service gave."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Turn a failure of the service, or of the way to it, into `Unavailable`; all else passes as it is.

    The texts name the service and the code only: a request may hold what must not be told.
    """
    try:
        yield
    except (NoConnection, HTTPClientError, IncompleteReadError, ResponseStreamingError) as error:
        raise Unavailable(f"{service} cannot be reached: {type(error).__name__}") from error
    except ClientError as error:
        if code(error) in UNAVAILABLE:
            raise Unavailable(f"{service} asks to try later: {code(error)}") from error
        raise
