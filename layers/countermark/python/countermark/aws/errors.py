"""What AWS answers, in our words: exact error codes, and nothing guessed."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as NoConnection

from countermark.errors import InvalidInput, Unavailable

UNAVAILABLE = frozenset(
    {
        "500",
        "502",
        "503",
        "EC2ThrottledException",
        "EC2UnexpectedException",
        "InternalError",
        "InternalException",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ResourceNotReadyException",
        "ServiceException",
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

Source: "Common errors" and each service's own list, DynamoDB, S3, EventBridge, Secrets Manager, Lambda API references.
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


@contextmanager
def explained_to_operator() -> Iterator[None]:
    """Turn what a person at a command line can mend into `InvalidInput`: credentials, region, rights, names.

    In a function the same errors are faults of the deployment, and crash.
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise InvalidInput("there are no AWS credentials: set them as for any AWS tool") from error
    except NoRegionError as error:
        raise InvalidInput("there is no AWS region: set AWS_REGION, or one in your profile") from error
    except ClientError as error:
        raise InvalidInput(f"AWS refuses: {code(error)}") from error
