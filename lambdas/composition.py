"""The composition root of the functions: the stores of the deployment, and what is made of them.

Each thing is made at its first use and kept as long as the process: a cold start pays for what it needs.
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

# Their DEBUG lines hold requests, answers and errors whole, credentials with them: no log level lets these out.
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
    """Return what is installed. An extension that cannot be loaded fails the function, which is then tried again."""
    from countermark.extensions.registries import registries

    return registries(stores().extensions)


def content_types() -> "ContentTypes":
    """Return the content types: countermark's own, and those of extensions."""
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
    """Return what speaks to exchanges."""
    from countermark.transport.exchange_client import ExchangeTransport

    return ExchangeTransport()


@cache
def index_reader() -> "IndexProvider":
    """Return the reader of the published index: of this function's part of it, or over the functions that hold it."""
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
        # Between two invocations a function is frozen.
        ahead=ReadAhead(),
    )


@cache
def bank_directory() -> "BankDirectory":
    """Return the banks as lookups know them."""
    from countermark.flows.cached import BankDirectory

    return BankDirectory(stores().banks)


@cache
def app(*groups: str) -> "App":
    """Return the API's app for groups of routes; what the roles of a caller allow, the authorizer has found out."""
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
    # What the package logs comes out as what the handlers log does: as JSON, with its fields.
    logging.getLogger("countermark")
    copy_config_to_registered_loggers(Logger(), include={"countermark"})
    return build_app(services, groups=frozenset(groups))


def start_fetch(collaboration: str) -> None:
    """Have a collaboration fetched, now or as soon as a run is free."""
    stores().fetch_queue.send([{"collaboration": collaboration}])
