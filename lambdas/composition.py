"""The composition root of the Lambda functions: it connects the stores of the deployment with the flows and the API.

Each object is created when it is first used, and is cached for the life of the process. So a cold start loads only the
modules that the request needs.
"""

import logging
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers

from countermark.aws.stores import Stores

if TYPE_CHECKING:
    from countermark.api.app import App
    from countermark.domain.content import ContentTypes
    from countermark.domain.exchange import Exchange
    from countermark.domain.signal import SignalType
    from countermark.domain.transport import Transport
    from countermark.extensions.registries import Registries
    from countermark.flows.cached import BankDirectory
    from countermark.indexes.shards import IndexProvider

# The DEBUG lines of these libraries contain whole requests, responses and errors, including credentials. So these lines
# are not logged at any log level.
for _library in ("aws_lambda_powertools", "botocore"):
    logging.getLogger(_library).setLevel(logging.INFO)


@cache
def stores() -> Stores:
    """Return the stores of the deployment that the environment names."""
    return Stores.from_environ(os.environ)


def now_s() -> int:
    """Return the time in epoch seconds."""
    return int(time.time())


@cache
def registries() -> "Registries":
    """Return the installed signal types, content types and exchanges.

    If an extension cannot be loaded, the invocation of the function fails, and Lambda tries the invocation again.
    """
    from countermark.extensions.registries import registries

    return registries(stores().extensions)


def content_types() -> "ContentTypes":
    """Return countermark's content types and those of extensions."""
    return registries().content_types


def signal_types() -> "Mapping[str, SignalType]":
    """Return the signal types by name."""
    return registries().signal_types


@cache
def exchanges() -> "dict[str, Exchange]":
    """Return the exchanges by kind."""
    return registries().exchanges(reader=stores().content_reader, transport=transport())


@cache
def transport() -> "Transport":
    """Return the HTTP transport to exchanges."""
    from countermark.transport.exchange_client import ExchangeTransport

    return ExchangeTransport()


@cache
def index_reader() -> "IndexProvider":
    """Return the reader of the published index.

    If other functions hold the shards, the reader calls them. Otherwise it reads the shards of this function.
    """
    functions = stores().shard_functions
    if functions is not None:
        from countermark.aws.shards import ShardedIndexReader
        from countermark.indexes.reader import IndexReader

        return ShardedIndexReader(IndexReader(stores().index, signal_types()), functions)
    from countermark.indexes.arriving import ReadAhead
    from countermark.indexes.shardwise import ALL_SHARDS, ShardwiseReader

    return ShardwiseReader(
        stores().index,
        signal_types(),
        group=stores().shard_group or ALL_SHARDS,
        bands=stores().index_bands,
        # `ReadAhead` limits reading ahead, because Lambda freezes the function between two invocations.
        read_ahead=ReadAhead(),
    )


@cache
def bank_directory() -> "BankDirectory":
    """Return the cached banks that lookups use."""
    from countermark.flows.cached import BankDirectory

    return BankDirectory(stores().banks)


@cache
def app(*groups: str) -> "App":
    """Return the API's app for groups of routes.

    The app uses the caller's roles that the authorizer function has found.
    """
    from countermark.api.app import build_app
    from countermark.api.keys import access_by_authorizer
    from countermark.api.services import Services

    services = Services.of(
        stores(),
        registries(),
        exchanges=exchanges(),
        directory=bank_directory(),
        clock=now_s,
        access=access_by_authorizer,
        index=index_reader() if {"match", "status"}.intersection(groups) else None,
        start_fetch=start_fetch,
    )
    # The package logs in the same format as the handlers: JSON with the same fields.
    logging.getLogger("countermark")
    copy_config_to_registered_loggers(Logger(), include={"countermark"})
    return build_app(services, groups=frozenset(groups))


def start_fetch(collaboration: str) -> None:
    """Request a fetch of a collaboration. The fetch begins as soon as the fetch function has capacity for it."""
    stores().fetch_queue.send([{"collaboration": collaboration}])
