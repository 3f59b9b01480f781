"""The stores of one deployment on AWS. Lambda functions get all stores from this module."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from countermark.aws.clients import Clients
from countermark.aws.settings import Settings
from countermark.errors import Unavailable

if TYPE_CHECKING:
    from countermark.aws.api_keys import DynamoApiKeyStore
    from countermark.aws.banks import DynamoBankStore
    from countermark.aws.collaborations import DynamoCollaborationStore
    from countermark.aws.content import S3ContentReader, S3UploadReader
    from countermark.aws.events import DynamoEventLedger, EventBridgePublisher
    from countermark.aws.forward import GroupFunctions
    from countermark.aws.index import S3IndexStore
    from countermark.aws.opinions import DynamoOpinionLedger
    from countermark.aws.queues import SqsQueue
    from countermark.aws.secrets import SecretsManagerStore
    from countermark.aws.shards import ShardFunctions
    from countermark.domain.decision import OnMatch
    from countermark.domain.index import ShardGroup


class Stores:
    """The stores of a deployment, which implement the ports.

    Each store is created, and its module is imported, when it is first used. This keeps cold starts short.
    """

    on_match: "OnMatch | None" = None
    """The function that is called with the matches of uploads and lookups. None calls nothing."""

    def __init__(self, settings: Settings, clients: Clients) -> None:
        self._settings = settings
        self._clients = clients

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Stores":
        """Return the stores of the deployment that the environment variables name.

        Raises:
            InvalidInput: A variable is missing, empty or invalid. The message names the variable.
        """
        return cls(Settings.from_environ(environ), Clients())

    @property
    def extensions(self) -> Sequence[str]:
        """The modules that add signal types and exchanges."""
        return self._settings.extensions

    @cached_property
    def banks(self) -> "DynamoBankStore":
        """Banks and contents."""
        from countermark.aws.banks import DynamoBankStore

        return DynamoBankStore(self._clients.dynamodb, self._settings.banks_table)

    @cached_property
    def collaborations(self) -> "DynamoCollaborationStore":
        """Collaborations and their fetched records."""
        from countermark.aws.collaborations import DynamoCollaborationStore

        return DynamoCollaborationStore(self._clients.dynamodb, self._settings.exchanges_table)

    @cached_property
    def index(self) -> "S3IndexStore":
        """The index."""
        from countermark.aws.index import S3IndexStore

        return S3IndexStore(self._clients.s3, self._settings.index_bucket)

    @property
    def index_shards(self) -> int | None:
        """The number of shards that index builds create. With None, builds keep the current number."""
        return self._settings.index_shards

    @property
    def index_bands(self) -> bool:
        """Whether searches read the bands of large segments."""
        return self._settings.index_bands

    @property
    def shard_group(self) -> "ShardGroup | None":
        """The group of shards that this function searches. None means all shards."""
        return self._settings.shard_group

    @cached_property
    def shard_functions(self) -> "ShardFunctions | None":
        """The functions that this function calls to search. None if this function itself searches."""
        from countermark.aws.shards import ShardFunctions

        names = self._settings.shard_functions
        return ShardFunctions(self._clients.functions, names) if names else None

    @cached_property
    def group_functions(self) -> "GroupFunctions":
        """The functions that answer groups of the API's routes."""
        from countermark.aws.forward import GroupFunctions

        return GroupFunctions(self._clients.functions, self._settings.group_functions)

    @cached_property
    def publisher(self) -> "EventBridgePublisher":
        """The event bus."""
        from countermark.aws.events import EventBridgePublisher

        return EventBridgePublisher(self._clients.events, self._settings.event_bus)

    @cached_property
    def ledger(self) -> "DynamoEventLedger":
        """The ledger of processed events."""
        from countermark.aws.events import DynamoEventLedger

        return DynamoEventLedger(self._clients.dynamodb, self._settings.access_table)

    @cached_property
    def opinions(self) -> "DynamoOpinionLedger":
        """The ledger of opinions that were sent to exchanges."""
        from countermark.aws.opinions import DynamoOpinionLedger

        return DynamoOpinionLedger(self._clients.dynamodb, self._settings.access_table)

    @cached_property
    def secrets(self) -> "SecretsManagerStore":
        """The credentials of exchanges."""
        from countermark.aws.secrets import SecretsManagerStore

        return SecretsManagerStore(self._clients.secrets, self._settings.credentials_secret)

    @cached_property
    def api_keys(self) -> "DynamoApiKeyStore":
        """The API keys."""
        from countermark.aws.api_keys import DynamoApiKeyStore

        return DynamoApiKeyStore(self._clients.dynamodb, self._settings.access_table)

    @cached_property
    def content_reader(self) -> "S3ContentReader":
        """The files from which collaborations are fetched."""
        from countermark.aws.content import S3ContentReader

        return S3ContentReader(self._clients.s3, self._settings.content_buckets)

    @cached_property
    def uploads(self) -> "S3UploadReader":
        """The uploads."""
        from countermark.aws.content import S3UploadReader

        return S3UploadReader(self._clients.s3, self._settings.upload_bucket)

    @cached_property
    def fetch_queue(self) -> "SqsQueue":
        """The queue of collaborations to fetch.

        Raises:
            Unavailable: This function was deployed without the queue's URL.
        """
        return self._queue(self._settings.fetch_queue_url)

    @cached_property
    def purge_queue(self) -> "SqsQueue":
        """The queue of purges.

        Raises:
            Unavailable: This function was deployed without the queue's URL.
        """
        return self._queue(self._settings.purge_queue_url)

    def _queue(self, url: str | None) -> "SqsQueue":
        from countermark.aws.queues import SqsQueue

        if url is None:
            raise Unavailable("this function was deployed without the URL of the queue")
        return SqsQueue(self._clients.sqs, url)
