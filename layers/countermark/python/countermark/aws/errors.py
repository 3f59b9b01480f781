"""Conversion of AWS errors to countermark's errors, by exact error codes."""

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
"""The error codes of failures after which the caller should try again later.

The response to a HEAD request has no body, so its error code is the HTTP status.

Source: "Common errors" and the lists of errors in the API references of DynamoDB, S3, EventBridge, Secrets Manager and
Lambda.
"""


def code(error: ClientError) -> str:
    """Return the service's error code, or "" if there is none."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translate_errors(service: str) -> Iterator[None]:
    """Raise `Unavailable` if the service, or the connection to it, fails. Other errors are raised unchanged.

    The message contains only the service and the error code, because a request can contain signals or secrets.
    """
    try:
        yield
    except (NoConnection, HTTPClientError, IncompleteReadError, ResponseStreamingError) as error:
        raise Unavailable(f"{service} cannot be reached: {type(error).__name__}") from error
    except ClientError as error:
        if code(error) in UNAVAILABLE:
            raise Unavailable(f"{service} is unavailable, try again later: {code(error)}") from error
        raise


@contextmanager
def explained_to_operator() -> Iterator[None]:
    """Raise `InvalidInput` for AWS errors that the user of the command line can correct.

    The causes of such errors are missing credentials, a missing region, missing permissions and wrong names. Lambda
    functions do not use this context manager. In a function, such an error is an error of the deployment, and the
    function fails.
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise InvalidInput(
            "there are no AWS credentials: configure them as for the AWS CLI, for example with AWS_PROFILE"
        ) from error
    except NoRegionError as error:
        raise InvalidInput("there is no AWS region: set AWS_REGION, or a region in your AWS profile") from error
    except ClientError as error:
        raise InvalidInput(f"AWS refused the request: {code(error)}") from error
