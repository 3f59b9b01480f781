"""An extension of python-threatexchange: an exchange with a checkpoint, credentials, deletions and opinions.

It fetches a directory of numbered JSON files, one an update: a list of [type, signal, opinions or null].
"""

# mypy: disable-error-code="misc,import-not-found,no-untyped-def"
# It imports what only the environment of the peer has.

import json
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from threatexchange.exchanges import auth, fetch_state
from threatexchange.exchanges.collab_config import CollaborationConfigWithDefaults
from threatexchange.exchanges.signal_exchange_api import SignalExchangeAPIWithSimpleUpdates
from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest


@dataclass
class _Required:
    directory: str = field(metadata={"help": "where the updates are"})


@dataclass
class PeerListConfig(CollaborationConfigWithDefaults, _Required):
    only_types: set[int] = field(default_factory=set)
    limit: int | None = None


@dataclass
class PeerListCheckpoint(fetch_state.FetchCheckpointBase):
    after: str
    numbers: list[int]

    def get_progress_timestamp(self) -> int | None:
        return len(self.numbers)


@dataclass
class PeerListMetadata(fetch_state.FetchedSignalMetadata):
    opinions: list[tuple[int, list[str], bool]]

    def get_as_opinions(self) -> t.Sequence[fetch_state.SignalOpinion]:
        return [
            fetch_state.SignalOpinion(is_mine, fetch_state.SignalOpinionCategory(category), set(tags))
            for category, tags, is_mine in self.opinions
        ]


@dataclass
class PeerListCredentials(auth.CredentialHelper):
    ENV_VARIABLE: t.ClassVar[str] = "PEER_LIST_TOKEN"
    FILE_NAME: t.ClassVar[str] = "~/.peer_list_token"

    token: str

    @classmethod
    def _from_str(cls, s: str) -> "PeerListCredentials":
        return cls(token=s)

    def _are_valid(self) -> bool:
        return self.token.startswith("token-")


class PeerListSignalExchangeAPI(
    auth.SignalExchangeWithAuth[PeerListConfig, PeerListCredentials],
    SignalExchangeAPIWithSimpleUpdates[PeerListConfig, PeerListCheckpoint, PeerListMetadata],
):
    def __init__(self, collab: PeerListConfig) -> None:
        self.collab = collab

    @staticmethod
    def get_config_cls() -> type[PeerListConfig]:
        return PeerListConfig

    @staticmethod
    def get_checkpoint_cls() -> type[PeerListCheckpoint]:
        return PeerListCheckpoint

    @staticmethod
    def get_record_cls() -> type[PeerListMetadata]:
        return PeerListMetadata

    @staticmethod
    def get_credential_cls() -> type[PeerListCredentials]:
        return PeerListCredentials

    @classmethod
    def get_name(cls) -> str:
        return "peer_list"

    @classmethod
    def for_collab(
        cls, collab: PeerListConfig, credentials: PeerListCredentials | None = None
    ) -> "PeerListSignalExchangeAPI":
        assert (credentials or PeerListCredentials.get(cls)).token
        return cls(collab)

    def fetch_iter(
        self, supported_signal_types: t.Sequence[t.Any], checkpoint: PeerListCheckpoint | None
    ) -> t.Iterator[t.Any]:
        numbers = [] if checkpoint is None else list(checkpoint.numbers)
        for path in sorted(Path(self.collab.directory).iterdir()):
            if int(path.stem) in numbers:
                continue
            numbers.append(int(path.stem))
            updates = {
                (name, signal): None if opinions is None else PeerListMetadata([tuple(each) for each in opinions])
                for name, signal, opinions in json.loads(path.read_text())
            }
            yield fetch_state.FetchDelta(updates, PeerListCheckpoint(path.name, list(numbers)))


TX_MANIFEST = ThreatExchangeExtensionManifest(apis=(PeerListSignalExchangeAPI,))
