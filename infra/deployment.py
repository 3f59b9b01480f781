"""The knobs of a deployment: its settings in the CDK's context.

Example: `cdk deploy --context countermark:upload_days=7`.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from aws_cdk import Duration

PREFIX = "countermark:"
"""The prefix of the knobs' names in the context. Names without this prefix are settings of the CDK."""

MAX_SHARD_FUNCTIONS = 32
"""The maximum number of functions that hold shards. Their names are in one function's environment, of at most 4 KB.

Fifteen functions can hold a billion hashes.
"""

MAX_DAYS = 3_650
"""The largest number of days for which data can be retained: ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The settings of one deployment.

    Attributes:
        name: The prefix of the stacks' names, so that one account can have several deployments.
        deletion_protection: Whether DynamoDB refuses to delete the tables.
        content_buckets: The existing buckets that `local_file` collaborations may read.
        cors_origins: The origins whose pages may call the API and post uploads; empty means none.
        alarm_topic_arn: The SNS topic that receives alarms; None means that only CloudWatch shows alarms.
        extensions: The modules of extensions.
        left_out_percent: An alarm is raised if at least this percentage of uploads was not hashed in full.
        index_bands: Whether searches use the index's bands. If not, they scan its planes, which takes less memory.
        shards: The number of shards of the index.
        shards_per_function: How many shards one function holds. If all shards fit one function, the match function
            holds them.

    The defaults fit a new account, which has 10 concurrent executions and functions of up to 3,008 MB. A new account
    cannot reserve concurrency.
    `infra.preflight` compares a deployment with the limits of the account.
    """

    name: str = "countermark"
    deletion_protection: bool = True
    upload_days: int = 30
    superseded_days: int = 7
    access_log_days: int = 90
    content_buckets: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    alarm_topic_arn: str | None = None
    extensions: tuple[str, ...] = ()
    fetch_every_min: int = field(default=15, metadata={"limits": (1, 24 * 60)})
    oldest_fetch_hours: int = field(default=24, metadata={"limits": (1, 30 * 24)})
    index_every_min: int = field(default=5, metadata={"limits": (1, 24 * 60)})
    repair_every_days: int = field(default=7, metadata={"limits": (1, 90)})
    hash_concurrency: int = field(default=20, metadata={"limits": (2, 1_000)})
    left_out_percent: int = field(default=5, metadata={"limits": (1, 100)})
    match_concurrency: int = field(default=20, metadata={"limits": (2, 1_000)})
    index_memory_mb: int = field(default=3_008, metadata={"limits": (512, 10_240)})
    match_memory_mb: int = field(default=3_008, metadata={"limits": (512, 10_240)})
    index_bands: bool = True
    shards: int = field(default=1, metadata={"limits": (1, 1_000)})
    shards_per_function: int = field(default=1, metadata={"limits": (1, 1_000)})
    shard_memory_mb: int = field(default=10_240, metadata={"limits": (512, 10_240)})
    shard_concurrency: int = field(default=20, metadata={"limits": (1, 1_000)})
    requests_per_second: int = field(default=100, metadata={"limits": (1, 10_000)})
    burst_requests: int = field(default=200, metadata={"limits": (1, 5_000)})

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> "Deployment":
        """Return the deployment that a context describes. Knobs that are missing from the context have their defaults.

        Numbers, flags and lists may be strings, as the CDK's command line passes them. A list is comma-separated.

        Raises:
            ValueError: A knob is unknown or its value is wrong; the error names it.
        """
        given = {name.removeprefix(PREFIX): value for name, value in context.items() if name.startswith(PREFIX)}
        known = {knob.name: knob for knob in fields(cls)}
        if unknown := sorted(given.keys() - known.keys()):
            raise ValueError(f"unknown knob {PREFIX}{unknown[0]}; the knobs are {', '.join(sorted(known))}")
        values: dict[str, Any] = {name: _parse(name, value, known[name]) for name, value in given.items()}
        return cls(**values)

    def __post_init__(self) -> None:
        """Raise ValueError if knobs contradict each other."""
        if self.shard_functions > MAX_SHARD_FUNCTIONS:
            raise ValueError(
                f"{PREFIX}shards_per_function makes {self.shard_functions} functions of {self.shards} shards, "
                f"but at most {MAX_SHARD_FUNCTIONS} are allowed: raise the knob"
            )

    @property
    def shard_functions(self) -> int:
        """The number of functions that only hold shards; 0 if the match function holds all shards."""
        functions = -(-self.shards // self.shards_per_function)
        return functions if functions > 1 else 0

    @property
    def fetch_every(self) -> Duration:
        """The interval at which all collaborations are fetched."""
        return Duration.minutes(self.fetch_every_min)

    @property
    def oldest_fetch(self) -> Duration:
        """How long a collaboration may go without a complete fetch before an alarm is raised."""
        return Duration.hours(self.oldest_fetch_hours)

    @property
    def index_every(self) -> Duration:
        """The interval of scheduled index builds. They need no nudge, the message that requests a build."""
        return Duration.minutes(self.index_every_min)

    @property
    def repair_every(self) -> Duration:
        """The interval at which the whole index is built again from the banks."""
        return Duration.days(self.repair_every_days)


_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ORIGIN = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?|http://localhost(:[0-9]+)?")
_TOPIC_ARN = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_PATTERNS = {
    "name": _NAME,
    "content_buckets": _BUCKET,
    "cors_origins": _ORIGIN,
    "alarm_topic_arn": _TOPIC_ARN,
    "extensions": _MODULE,
}


def _parse(name: str, value: object, knob: Any) -> object:
    """Return the value of a knob, with the type of its default.

    Raises:
        ValueError: The value is not allowed.
    """
    wrong = ValueError(f"{PREFIX}{name} cannot be {value!r}")
    default = None if knob.default is MISSING else knob.default
    if isinstance(default, bool):
        flag = {"true": True, "false": False}.get(str(value).lower())
        if flag is None:
            raise wrong
        return flag
    if isinstance(default, int):
        least, most = knob.metadata.get("limits", (1, MAX_DAYS))
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", str(value), re.ASCII):
            raise wrong
        if not least <= int(str(value)) <= most:
            raise ValueError(f"{PREFIX}{name} must be from {least} to {most}, not {value!r}")
        return int(str(value))
    if isinstance(default, tuple):
        parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(_fits(name, part) for part in parts):
            raise wrong
        return tuple(parts)
    if not _fits(name, value):
        raise wrong
    return value


def _fits(name: str, text: object) -> bool:
    return isinstance(text, str) and _PATTERNS[name].fullmatch(text) is not None
