"""The bodies and answers of the API, as the OpenAPI document describes them.

Unknown fields in a body are ignored. A number can be sent as a string. `Number` and `Ratio` pass the string on
unchanged, and the domain parses it.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema

Ratio: TypeAlias = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string"}], "examples": [0.5]}),
]
"""A ratio from 0 to 1, as a number or a string."""

Number: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": [1]})
]
"""A whole number, as a number or a string."""

Object: TypeAlias = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "additionalProperties": True})]
"""Any JSON object."""


class ByType(RootModel[dict[str, str]]):
    """Signals by signal type."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pdq": "0f" * 32}]})


class Message(BaseModel):
    """One message: an error or a confirmation."""

    message: str = Field(examples=["Done"])


class Invalid(BaseModel):
    """One error in a request that fails validation."""

    loc: list[str | int] = Field(examples=[["query", "url"]])
    msg: str = Field(examples=["Field required"])
    type: str = Field(examples=["missing"])


class BankView(BaseModel):
    """A bank."""

    name: str = Field(examples=["KNOWN_SPAM"])
    matching_enabled_ratio: float = Field(examples=[1.0])


class NewBank(BaseModel):
    """A bank to create. If both `enabled_ratio` and `enabled` are present, `enabled_ratio` is used."""

    name: str = Field(examples=["KNOWN_SPAM"])
    enabled_ratio: Ratio = None
    enabled: bool | None = None


class BankChange(BaseModel):
    """A change of a bank. Fields that are left out stay unchanged."""

    name: str | None = Field(default=None, examples=["KNOWN_SPAM"])
    enabled_ratio: Ratio = None
    enabled: bool | None = None


class Metadata(BaseModel):
    """The metadata that curators and exchanges recorded about a content."""

    content_id: Any = None
    content_uri: Any = None
    json_: Any = Field(default=None, alias="json")
    collab: dict[str, list[str]]


_REASON = Field(default=None, description="Why the content was disabled. Left out if no reason was given.")


class ContentView(BaseModel):
    """A banked content."""

    id: int = Field(examples=[21])
    disable_until_ts: int = Field(examples=[1])
    original_media_uri: str | None
    bank: BankView
    signals: ByType | None = None
    metadata: Metadata | None = None
    note: str | None = None
    reason: str | None = _REASON


class ContentPageView(BaseModel):
    """Contents of a bank, newest first, and the cursor of the next page."""

    contents: list[ContentView]
    next_cursor: str | None = Field(examples=["21"])


class ChangedContent(BaseModel):
    """A content after a change."""

    id: int = Field(examples=[21])
    disable_until_ts: int = Field(examples=[1])
    original_media_uri: str | None
    bank: BankView
    collab_metadata: dict[str, list[str]]
    user_metadata: Object
    note: str
    reason: str | None = _REASON


class ContentChange(BaseModel):
    """A change of a content. Fields that are left out stay unchanged, and "" removes a text.

    `disable_until_ts` is 1 (enabled), a time in epoch seconds, or 253402300800 (disabled permanently). `reason`
    explains the change.
    """

    disable_until_ts: Number = None
    note: str | None = Field(default=None, examples=["seen on 3 sites"])
    reason: str | None = Field(default=None, examples=["a stock photo"])


class BankedContent(BaseModel):
    """The banked content, with its id and signals."""

    id: int = Field(examples=[21])
    signals: ByType


_BATCH_CONTENT = {
    "type": "object",
    "properties": {"note": {"type": "string"}, "metadata": {"type": "object"}},
    "additionalProperties": True,
    "description": "The signals of one content by signal type, with an optional `note` and `metadata`.",
}


class ContentBatch(BaseModel):
    """At most 1,000 contents to bank in one write. Each content has signals by signal type, a `note` and `metadata`.

    `idempotency_key` is a name that the caller chooses for this batch in this bank, such as a UUID. If the same batch
    is sent again with the same key within a day, the answer has the same ids and nothing is banked twice.
    """

    contents: list[Annotated[Any, WithJsonSchema(_BATCH_CONTENT)]] = Field(
        examples=[[{"pdq": "0f" * 32, "note": "seen twice", "metadata": {"content_id": "42"}}]]
    )
    idempotency_key: str | None = Field(default=None, examples=["6f1c2f0e-3d0b-4a39-9a50-6d2f7f6b2f11"])


class BatchedContent(BaseModel):
    """The result for one content of a batch: its id, or an error message if it was refused."""

    id: int | None = Field(default=None, examples=[21])
    message: str | None = Field(default=None, examples=["Invalid pdq signal: …"])


class ContentOpinion(BaseModel):
    """A curator's opinion of a content. `reason` is the id of a reason of the exchange, if the exchange needs one.

    `withdrawn` withdraws the previous opinion and sends no new one.
    """

    opinion: Literal["true_positive", "false_positive", "seen", "withdrawn"]
    tags: list[str] = Field(default_factory=list, examples=[["spam"]])
    signal_type: str | None = Field(default=None, examples=["pdq"])
    reason: str | None = None
    dry_run: bool = False


class SentRequest(BaseModel):
    """A request to an exchange. Each credential is replaced by ***."""

    method: str = Field(examples=["POST"])
    url: str = Field(examples=["https://exchange.example/reactions?access_token=***"])
    headers: dict[str, str]
    body: str | None


class SentOpinion(BaseModel):
    """The requests that are sent to the exchange soon. In a dry run, they are not sent."""

    dry_run: bool
    requests: list[SentRequest]


class OpinionReason(BaseModel):
    """A reason that an exchange accepts with an opinion."""

    id: str = Field(examples=["01234567-89ab-cdef-0123-456789abcdef"])
    name: str = Field(examples=["Not the content that it is labelled as"])


class Deleted(BaseModel):
    """The number of deleted items."""

    deleted: int = Field(examples=[1])


class MatchView(BaseModel):
    """A match. The distance is text: "0", "96%", or "-" if the signal type only compares for equality."""

    model_config = ConfigDict(extra="allow")

    bank_content_id: int = Field(examples=[21])
    distance: str = Field(examples=["2"])


class BatchQuery(BaseModel):
    """Signals of one type to look up in one request."""

    signal_type: str = Field(examples=["pdq"])
    signals: list[Any] = Field(examples=[["0f" * 32]])
    banks: str | list[str] | None = Field(default=None, examples=["KNOWN_SPAM"])
    content_id: str | None = None
    seed: str | None = None
    bypass_coinflip: bool = False
    include: str | None = Field(default=None, examples=["detail"])


class RawMatches(BaseModel):
    """The ids of contents near a signal, or the ids with distances."""

    matches: list[int] | list[MatchView]


class IndexStatus(BaseModel):
    """The index of one signal type. `built_to` is in epoch seconds, or -1 if there is no index."""

    present: bool
    built_to: int = Field(examples=[1700000000])
    size: int = Field(examples=[591])


class IndexLag(BaseModel):
    """How far the index of one signal type is behind the banks. Times are epoch seconds, or -1 for never."""

    db_size: int = Field(examples=[153])
    index_size: int = Field(examples=[150])
    index_out_of_date: bool
    newest_db_item: int = Field(examples=[1700236661])
    index_built_to: int = Field(examples=[1700236641])


class ApiView(BaseModel):
    """Whether a kind of exchange uses credentials, and whether they are set. The field names have HMA's spelling."""

    supports_authentification: bool
    has_set_authentification: bool


class Credentials(BaseModel):
    """Credentials to set. An empty object removes them."""

    credential_json: Object | None = Field(default=None, examples=[{"user": "me", "password": "secret"}])


class FormField(BaseModel):
    """One field of a form."""

    name: str
    type: str
    required: bool
    default: Any = None
    help: str
    choices: list[str] | None


class FormFields(BaseModel):
    """The fields of a form."""

    fields: list[FormField]


class ApiSchema(BaseModel):
    """The fields that configure a kind of exchange."""

    config_schema: FormFields
    credentials_schema: FormFields | None


class NewExchange(BaseModel):
    """An exchange to configure. A bank with the same name is created with it."""

    bank: Any = Field(default=None, examples=["PARTNERS"])
    api: Any = Field(default=None, examples=["local_file"])
    api_json: Any = Field(default=None, examples=[{"filename": "signals.txt"}])


class ExchangeView(BaseModel):
    """A configured exchange, with the fields of its kind."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(examples=["PARTNERS"])
    api: str = Field(examples=["local_file"])
    enabled: bool
    writes_back: bool


class ExchangeChange(BaseModel):
    """A change of a configured exchange. Fields that are left out stay unchanged."""

    enabled: bool | None = None
    writes_back: bool | None = None


class FetchStatus(BaseModel):
    """The progress of the fetch of an exchange. Times are epoch seconds; null means never."""

    checkpoint_ts: int | None
    fetched_items: int
    last_fetch_complete_ts: int | None
    last_fetch_succeeded: bool | None
    running_fetch_start_ts: int | None
    up_to_date: bool
    last_error: str


class SignalTypeView(BaseModel):
    """A signal type."""

    name: str = Field(examples=["pdq"])
    enabled_ratio: float = Field(examples=[1.0])


class SignalTypeChange(BaseModel):
    """The new ratio of a signal type."""

    enabled_ratio: Ratio


class ContentTypeView(BaseModel):
    """A content type."""

    name: str = Field(examples=["photo"])
    enabled: bool


ByBank: TypeAlias = dict[str, list[MatchView]]
"""Matches by the name of their bank."""
