"""The settings of a Lambda function, and the names of the environment variables that contain them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from countermark.domain.index import ShardGroup
from countermark.errors import InvalidInput

DEPLOYMENT: Final = "COUNTERMARK_DEPLOYMENT"
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
INDEX_SHARDS: Final = "COUNTERMARK_INDEX_SHARDS"
INDEX_BANDS: Final = "COUNTERMARK_INDEX_BANDS"
SHARD_GROUP: Final = "COUNTERMARK_SHARD_GROUP"
SHARD_FUNCTIONS: Final = "COUNTERMARK_SHARD_FUNCTIONS"
GROUP_FUNCTIONS: Final = "COUNTERMARK_GROUP_FUNCTIONS"

DEFAULT_DEPLOYMENT: Final = "countermark"
"""The name of a deployment if the environment variable `COUNTERMARK_DEPLOYMENT` is not set."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DEPLOYMENT = re.compile(r"[a-z][a-z0-9-]{0,29}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}")
_QUEUE_URL = re.compile(r"https?://[^\s]+")
_FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COUNT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_GROUP = re.compile(r"(0|[1-9][0-9]{0,4})/([1-9][0-9]{0,4})", re.ASCII)
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one function of a deployment.

    The settings grant no access. Only the IAM role of the function decides which resources the function can access.

    - `deployment` is the name of the deployment. One AWS account can have several deployments.
    - `content_buckets` are the buckets from which `local_file` collaborations can be read.
    - `extensions` are the modules that add signal types and exchanges.
    - `fetch_queue_url` and `purge_queue_url` are None in functions that do not send messages to the queue.
    - `index_shards` is the number of shards that index builds create. With None, builds keep the current number.
    - `index_bands` is True if searches read the bands of large segments.
    - `shard_group` is the group of shards that this function searches. None means all shards.
    - `shard_functions` are the functions that this function calls to search. If empty, this function itself searches.
    - `group_functions` maps each group of API routes to the function that answers it. The forwarding function uses it.
    """

    banks_table: str
    exchanges_table: str
    access_table: str
    index_bucket: str
    upload_bucket: str
    event_bus: str
    credentials_secret: str
    deployment: str = DEFAULT_DEPLOYMENT
    content_buckets: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    fetch_queue_url: str | None = None
    purge_queue_url: str | None = None
    index_shards: int | None = None
    index_bands: bool = True
    shard_group: ShardGroup | None = None
    shard_functions: tuple[str, ...] = ()
    group_functions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Return the settings from environment variables.

        Raises:
            InvalidInput: A variable is missing, empty or invalid. The message names the variable.
        """
        return cls(
            banks_table=_required(environ, BANKS_TABLE),
            exchanges_table=_required(environ, EXCHANGES_TABLE),
            access_table=_required(environ, ACCESS_TABLE),
            index_bucket=_bucket(INDEX_BUCKET, _required(environ, INDEX_BUCKET)),
            upload_bucket=_bucket(UPLOAD_BUCKET, _required(environ, UPLOAD_BUCKET)),
            event_bus=_required(environ, EVENT_BUS),
            credentials_secret=_required(environ, CREDENTIALS_SECRET),
            deployment=deployment_name(environ),
            content_buckets=tuple(
                _bucket(CONTENT_BUCKETS, name) for name in environ.get(CONTENT_BUCKETS, "").split(",") if name
            ),
            extensions=tuple(_module(name) for name in environ.get(EXTENSIONS, "").split(",") if name),
            fetch_queue_url=_queue_url(environ, FETCH_QUEUE_URL),
            purge_queue_url=_queue_url(environ, PURGE_QUEUE_URL),
            index_shards=_count(environ, INDEX_SHARDS),
            index_bands=_flag(environ, INDEX_BANDS, default=True),
            shard_group=_group(environ, SHARD_GROUP),
            shard_functions=tuple(
                _function(SHARD_FUNCTIONS, name) for name in environ.get(SHARD_FUNCTIONS, "").split(",") if name
            ),
            group_functions=_group_functions(environ),
        )

    def to_environ(self) -> dict[str, str]:
        """Return these settings as environment variables. The values can be tokens of a CloudFormation template."""
        environ = {
            BANKS_TABLE: self.banks_table,
            EXCHANGES_TABLE: self.exchanges_table,
            ACCESS_TABLE: self.access_table,
            INDEX_BUCKET: self.index_bucket,
            UPLOAD_BUCKET: self.upload_bucket,
            EVENT_BUS: self.event_bus,
            CREDENTIALS_SECRET: self.credentials_secret,
        }
        if self.deployment != DEFAULT_DEPLOYMENT:
            environ[DEPLOYMENT] = self.deployment
        if self.content_buckets:
            environ[CONTENT_BUCKETS] = ",".join(self.content_buckets)
        if self.extensions:
            environ[EXTENSIONS] = ",".join(self.extensions)
        if self.fetch_queue_url is not None:
            environ[FETCH_QUEUE_URL] = self.fetch_queue_url
        if self.purge_queue_url is not None:
            environ[PURGE_QUEUE_URL] = self.purge_queue_url
        environ |= group_environ(self.group_functions)
        return environ | search_environ(
            index_shards=self.index_shards,
            index_bands=self.index_bands,
            shard_group=None if self.shard_group is None else (self.shard_group.number, self.shard_group.groups),
            shard_functions=self.shard_functions,
        )


def deployment_name(environ: Mapping[str, str]) -> str:
    """Return the name of the deployment from environment variables.

    Raises:
        InvalidInput: The value of the variable is not a valid name.
    """
    value = environ.get(DEPLOYMENT, DEFAULT_DEPLOYMENT)
    if not _DEPLOYMENT.fullmatch(value):
        raise InvalidInput(
            f"{DEPLOYMENT} is {value!r}: use up to 30 lower-case letters, digits and hyphens, the first a letter"
        )
    return value


def search_environ(
    *,
    index_shards: int | None = None,
    index_bands: bool = True,
    shard_group: tuple[int, int] | None = None,
    shard_functions: Sequence[str] = (),
) -> dict[str, str]:
    """Return the environment variables for the index settings that differ from their defaults.

    `shard_group` is the number of the group, from 0, and the number of groups.
    """
    environ = {}
    if index_shards is not None:
        environ[INDEX_SHARDS] = str(index_shards)
    if not index_bands:
        environ[INDEX_BANDS] = "false"
    if shard_group is not None:
        environ[SHARD_GROUP] = "{}/{}".format(*shard_group)
    if shard_functions:
        environ[SHARD_FUNCTIONS] = ",".join(shard_functions)
    return environ


def group_environ(functions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variable for `Settings.group_functions`. Return {} if there are no functions.

    The value has the form `hash=NAME,…`.
    """
    if not functions:
        return {}
    return {GROUP_FUNCTIONS: ",".join(f"{group}={name}" for group, name in sorted(functions.items()))}


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value.strip():
        raise InvalidInput(f"the environment variable {name} is missing or empty")
    return value


def _bucket(name: str, value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise InvalidInput(f"{name} contains an invalid bucket name: {value!r}")
    return value


def _module(value: str) -> str:
    if not _MODULE.fullmatch(value):
        raise InvalidInput(f"{EXTENSIONS} contains an invalid module name: {value!r}")
    return value


def _queue_url(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name)
    if value is None:
        return None
    if not _QUEUE_URL.fullmatch(value):
        raise InvalidInput(f"{name} is not a valid queue URL: {value!r}")
    return value


def _count(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name)
    if value is None:
        return None
    if not _COUNT.fullmatch(value):
        raise InvalidInput(f"{name} must be an integer from 1 to 99999, not {value!r}")
    return int(value)


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name)
    if value is None:
        return default
    if value not in _FLAGS:
        raise InvalidInput(f"{name} must be true or false, not {value!r}")
    return _FLAGS[value]


def _group(environ: Mapping[str, str], name: str) -> ShardGroup | None:
    value = environ.get(name)
    if value is None:
        return None
    found = _GROUP.fullmatch(value)
    if found is None or int(found[1]) >= int(found[2]):
        raise InvalidInput(f"{name} must be a group of shards such as 0/4, not {value!r}")
    return ShardGroup(number=int(found[1]), groups=int(found[2]))


def _function(name: str, value: str) -> str:
    if not _FUNCTION.fullmatch(value):
        raise InvalidInput(f"{name} contains an invalid function name: {value!r}")
    return value


def _group_functions(environ: Mapping[str, str]) -> Mapping[str, str]:
    pairs = (pair.partition("=") for pair in environ.get(GROUP_FUNCTIONS, "").split(",") if pair)
    return {group: _function(GROUP_FUNCTIONS, name) for group, _, name in pairs}
