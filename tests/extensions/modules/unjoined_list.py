"""An extension as one was written for version 0.1: the exchange takes its configuration with each call."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from countermark.domain.exchange import Delta, Fetch, Field
from countermark.domain.opinion import Category, Opinion
from countermark.domain.signal import Signal
from countermark.errors import InvalidInput
from countermark.extensions import Manifest, Means


class TextList:
    """A file of JSON lines; all of it counts each time."""

    kind = "text_list"
    config_fields = (Field(name="filename", type="str", required=True, help="a path, or an s3:// URL"),)
    credential_fields = None
    credential_source = None

    def __init__(self, means: Means) -> None:
        self.reader = means.reader

    def parse_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        if set(config) != {"filename"}:
            raise InvalidInput("text_list has one field: 'filename'")
        return config

    def parse_credentials(self, text: str) -> Mapping[str, str]:
        raise InvalidInput("text_list takes no credentials")

    def fetch(self, config: Mapping[str, Any], checkpoint: Any, *, credentials: Any, now_s: int) -> Fetch:
        with self.reader.open(config["filename"]) as stream:
            records = [json.loads(line) for line in stream]
        changes = {record["id"]: record for record in records}
        return Fetch(restarts=True, deltas=iter([Delta(changes=changes, checkpoint={"at_s": now_s})]))

    def signals(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> Sequence[Signal]:
        return [Signal(type="raw_text", value=data["text"])]

    def opinions(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> Sequence[Opinion]:
        return [Opinion(category=Category.POSITIVE_CLASS, tags=frozenset(data["tags"]))]


EXCHANGES: Any = (TextList,)
COUNTERMARK_MANIFEST = Manifest(exchanges=EXCHANGES)
