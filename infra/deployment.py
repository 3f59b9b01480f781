"""The knobs of a deployment, read from the CDK's context: `cdk deploy --context countermark:upload_days=7`."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from aws_cdk import Duration

PREFIX = "countermark:"
"""What the names of knobs begin with in the context, where the CDK keeps its own things as well."""

MAX_SHARD_FUNCTIONS = 32
"""The most functions that hold shards: their names go into one environment, of 4 KB. Fifteen hold a billion hashes."""

MAX_DAYS = 3_650
"""The longest that anything is kept for a number of days: ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What may differ from one deployment to another.

    `name` leads the names of the stacks, so that one account may hold several deployments. `content_buckets` are
    the buckets, made by others, that `local_file` collaborations may be read from. `cors_origins` are those whose
    pages may call the API and post uploads; none means that no page may. `alarm_topic_arn` names the SNS topic
    that alarms are told to; without one they are seen in CloudWatch alone. `extensions` are the modules that bring
    what others made. `left_out_percent` is the share of uploads that were not hashed in full that raises an alarm.
    `index_bands` says whether those that search read the bands of the index,
    or scan its planes, in less memory. An index of `shards` is held by functions of `shards_per_function` each, or by
    the match function where one function holds them all.

    The defaults fit a new account: 10 concurrent executions, none of which can be reserved, and functions of 3,008 MB.
    `infra.preflight` compares a deployment with what the account has.
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
        """Return the deployment of a context; what is not given there is as above.

        Numbers, flags and lists may be texts, as the CDK's command line gives them: a list is comma-separated.

        Raises:
            ValueError: A knob is unknown or its value is wrong; the error names it.
        """
        given = {name.removeprefix(PREFIX): value for name, value in context.items() if name.startswith(PREFIX)}
        known = {one.name: one for one in fields(cls)}
        if unknown := sorted(given.keys() - known.keys()):
            raise ValueError(f"there is no knob {PREFIX}{unknown[0]}; there are {', '.join(sorted(known))}")
        values: dict[str, Any] = {name: _parse(name, value, known[name]) for name, value in given.items()}
        return cls(**values)

    def __post_init__(self) -> None:
        """Refuse knobs that do not go together."""
        if self.shard_functions > MAX_SHARD_FUNCTIONS:
            raise ValueError(
                f"{PREFIX}shards_per_function makes {self.shard_functions} functions of {self.shards} shards, "
                f"and {MAX_SHARD_FUNCTIONS} are the most"
            )

    @property
    def shard_functions(self) -> int:
        """How many functions hold the shards between them; 0 where they fit one, which then is the match function."""
        functions = -(-self.shards // self.shards_per_function)
        return functions if functions > 1 else 0

    @property
    def fetch_every(self) -> Duration:
        """How often all collaborations are fetched."""
        return Duration.minutes(self.fetch_every_min)

    @property
    def oldest_fetch(self) -> Duration:
        """How long a collaboration may go without a complete fetch before an alarm is raised."""
        return Duration.hours(self.oldest_fetch_hours)

    @property
    def index_every(self) -> Duration:
        """How often the index is brought up to date where no nudge asks for it."""
        return Duration.minutes(self.index_every_min)

    @property
    def repair_every(self) -> Duration:
        """How often the whole index is built anew."""
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
    """Return the value of a knob, of the type of its default.

    Raises:
        ValueError: It cannot be.
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
            raise ValueError(f"{PREFIX}{name} lies from {least} to {most}, and cannot be {value!r}")
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
