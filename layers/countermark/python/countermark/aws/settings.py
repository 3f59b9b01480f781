"""The environment of a function: the one place that reads it, and the names that the infrastructure sets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from countermark.errors import InvalidInput

BANKS_TABLE: Final = "COUNTERMARK_BANKS_TABLE"
EXCHANGES_TABLE: Final = "COUNTERMARK_EXCHANGES_TABLE"
ACCESS_TABLE: Final = "COUNTERMARK_ACCESS_TABLE"
INDEX_BUCKET: Final = "COUNTERMARK_INDEX_BUCKET"
UPLOAD_BUCKET: Final = "COUNTERMARK_UPLOAD_BUCKET"
EVENT_BUS: Final = "COUNTERMARK_EVENT_BUS"
CREDENTIALS_SECRET: Final = "COUNTERMARK_CREDENTIALS_SECRET"  # noqa: S105 - the name of a variable
CONTENT_BUCKETS: Final = "COUNTERMARK_CONTENT_BUCKETS"
EXTENSIONS: Final = "COUNTERMARK_EXTENSIONS"
FETCH_QUEUE_URL: Final = "COUNTERMARK_FETCH_QUEUE_URL"
PURGE_QUEUE_URL: Final = "COUNTERMARK_PURGE_QUEUE_URL"

NAMES: Final = (
    BANKS_TABLE,
    EXCHANGES_TABLE,
    ACCESS_TABLE,
    INDEX_BUCKET,
    UPLOAD_BUCKET,
    EVENT_BUS,
    CREDENTIALS_SECRET,
    CONTENT_BUCKETS,
    EXTENSIONS,
    FETCH_QUEUE_URL,
    PURGE_QUEUE_URL,
)
"""All variables of countermark's own."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}")
_QUEUE_URL = re.compile(r"https?://[^\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a function knows of its deployment. A name is no right: what it may do, its role says.

    `content_buckets` are those that `local_file` collaborations may be read from, `extensions` the modules that
    bring signal types and exchanges. The URL of a queue is None in functions that send nothing to it.
    """

    banks_table: str
    exchanges_table: str
    access_table: str
    index_bucket: str
    upload_bucket: str
    event_bus: str
    credentials_secret: str
    content_buckets: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    fetch_queue_url: str | None = None
    purge_queue_url: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Return the settings that an environment holds.

        Raises:
            InvalidInput: A variable is missing, empty or wrong; the error names it.
        """
        return cls(
            banks_table=_required(environ, BANKS_TABLE),
            exchanges_table=_required(environ, EXCHANGES_TABLE),
            access_table=_required(environ, ACCESS_TABLE),
            index_bucket=_bucket(INDEX_BUCKET, _required(environ, INDEX_BUCKET)),
            upload_bucket=_bucket(UPLOAD_BUCKET, _required(environ, UPLOAD_BUCKET)),
            event_bus=_required(environ, EVENT_BUS),
            credentials_secret=_required(environ, CREDENTIALS_SECRET),
            content_buckets=tuple(
                _bucket(CONTENT_BUCKETS, name) for name in environ.get(CONTENT_BUCKETS, "").split(",") if name
            ),
            extensions=tuple(_module(name) for name in environ.get(EXTENSIONS, "").split(",") if name),
            fetch_queue_url=_queue_url(environ, FETCH_QUEUE_URL),
            purge_queue_url=_queue_url(environ, PURGE_QUEUE_URL),
        )

    def to_environ(self) -> dict[str, str]:
        """Return the environment that holds these settings; the values may be a template's placeholders."""
        environ = {
            BANKS_TABLE: self.banks_table,
            EXCHANGES_TABLE: self.exchanges_table,
            ACCESS_TABLE: self.access_table,
            INDEX_BUCKET: self.index_bucket,
            UPLOAD_BUCKET: self.upload_bucket,
            EVENT_BUS: self.event_bus,
            CREDENTIALS_SECRET: self.credentials_secret,
        }
        if self.content_buckets:
            environ[CONTENT_BUCKETS] = ",".join(self.content_buckets)
        if self.extensions:
            environ[EXTENSIONS] = ",".join(self.extensions)
        if self.fetch_queue_url is not None:
            environ[FETCH_QUEUE_URL] = self.fetch_queue_url
        if self.purge_queue_url is not None:
            environ[PURGE_QUEUE_URL] = self.purge_queue_url
        return environ


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value.strip():
        raise InvalidInput(f"the environment has no {name}")
    return value


def _bucket(name: str, value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise InvalidInput(f"{name} names no bucket: {value!r}")
    return value


def _module(value: str) -> str:
    if not _MODULE.fullmatch(value):
        raise InvalidInput(f"{EXTENSIONS} names no module: {value!r}")
    return value


def _queue_url(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name)
    if value is None:
        return None
    if not _QUEUE_URL.fullmatch(value):
        raise InvalidInput(f"{name} is no queue's URL: {value!r}")
    return value
