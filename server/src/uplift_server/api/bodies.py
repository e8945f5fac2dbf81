"""Request body models, for pydantic and OpenAPI.

The models define only types and bounds. The rules in `core/` validate the values.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticKnownError

from uplift_server.api.endpoint_auth import Auth
from uplift_server.api.setting_fields import takes_settings
from uplift_server.core.limits import (
    CONTACT_EMAILS_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    ERASURE_EVENT_IDS_MAX,
    FILTER_ALTERNATIVES_MAX,
    FILTER_BYTES_MAX,
    FILTER_LEVELS_MAX,
    FILTER_PREVIEW_EVENTS_DEFAULT,
    FILTER_PREVIEW_EVENTS_MAX,
    FILTER_VALUES_MAX,
    METADATA_BYTES_MAX,
    METADATA_VALUES_MAX,
    OBJECT_ID_CHARACTERS_MAX,
    REPLAY_RATE_PER_SECOND_DEFAULT,
    REPLAY_RATE_PER_SECOND_MAX,
    SECRET_CHARACTERS_MAX,
    SECRET_CHARACTERS_MIN,
    SECRET_KEY_BYTES_MAX,
    SECRET_KEY_BYTES_MIN,
    SECRET_OVERLAP_SECONDS_DEFAULT,
    SECRET_OVERLAP_SECONDS_MAX,
    SUBSCRIPTION_PATTERNS_MAX,
    UID_CHARACTERS_MAX,
)
from uplift_server.core.security.rights import roles_text
from uplift_server.core.security.scopes import SERVICE_SCOPES, Scope
from uplift_server.core.timestamps import parse_timestamp

# PostgreSQL cannot store NUL characters.
NO_ZERO = r"^[^\x00]*$"
STATUS_CODE = r"^[1-5](\d\d|xx)$"
_ROLES = roles_text()
_KEY_EXPIRY = "When the key expires. Null: never."
ALL_TYPES = (
    f"Event types and `group.*` patterns, at most {SUBSCRIPTION_PATTERNS_MAX}. The default and an empty list match all"
    " event types"
)
_FILTER = (
    "Pattern that the `data` of an event must match: see [Filters](/docs/filters). At most"
    f" {FILTER_LEVELS_MAX} levels, {FILTER_ALTERNATIVES_MAX} alternatives and {FILTER_BYTES_MAX // 1024} KiB. Null: the"
    " endpoint receives all events of its types."
)
_FILTER_EXAMPLE = {"object": {"movement": ["pitching"]}}
PATTERNS = f"{ALL_TYPES} except operational ones."
_SECRET = (
    f"{SECRET_CHARACTERS_MIN} to {SECRET_CHARACTERS_MAX} printable ASCII characters without spaces. If the secret"
    f" starts with `whsec_`, the rest must be the base64 of {SECRET_KEY_BYTES_MIN} to {SECRET_KEY_BYTES_MAX} bytes."
    " It must not start with the prefix of another kind of key, such as `sk_`. Default: a generated secret."
)


def _timestamp(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return parse_timestamp(value)


Timestamp = Annotated[int, BeforeValidator(_timestamp), WithJsonSchema({"type": "string", "format": "date-time"})]
Prose = Annotated[str, Field(max_length=DESCRIPTION_CHARACTERS_MAX, pattern=NO_ZERO)]
StatusName = Literal["pending", "delivered", "failed", "held", "cancelled"]
OutcomeName = Literal[
    "delivered", "redirect", "client_error", "server_error", "throttled", "timeout", "dns_error", "connect_error",
    "tls_error", "protocol_error", "blocked",
]  # fmt: skip


class Body(BaseModel):
    """Base class of all request models. It rejects unknown fields."""

    model_config = ConfigDict(extra="forbid")


Uid = Annotated[
    str | None,
    Field(
        description=f"Your own ID: at most {UID_CHARACTERS_MAX} letters, digits, periods, hyphens and underscores."
        " You can use this ID instead of the generated ID.",
        examples=["club-17"],
    ),
]
_METADATA = f"Your own metadata, as strings: at most {METADATA_VALUES_MAX} values, {METADATA_BYTES_MAX} bytes as JSON."
_METADATA_CHANGE = f"{_METADATA} Omitted values stay unchanged, and null removes a value."


class Nothing(Body):
    """A request body without fields."""


class SignInLinkNew(Body):
    """A one-time link that signs an operator in."""

    read_only: bool = Field(
        default=False,
        description="Whether the link signs in a read-only operator, who cannot see secrets. Default: `false`.",
    )


class AccountNew(Body):
    """A new account."""

    name: str = Field(description="Display name.", examples=["Riverside Baseball"])
    contact_emails: list[str] = Field(
        default=[],
        description="Email addresses that receive notifications about failing endpoints, at most"
        f" {CONTACT_EMAILS_MAX}.",
        examples=[["coach@example.com"]],
    )
    uid: Uid = None
    metadata: dict[str, str] | None = Field(default=None, description=_METADATA, examples=[{"plan": "club"}])


class AccountChange(Body):
    """An update to an account. Omitted fields stay unchanged."""

    name: str = Field(default="", description="Display name.")
    contact_emails: list[str] = Field(
        default=[], description="Email addresses that receive notifications about failing endpoints."
    )
    uid: Uid = None
    metadata: dict[str, str | None] | None = Field(default=None, description=_METADATA_CHANGE)


class MemberNew(Body):
    """An invitation to join an account."""

    email: str = Field(description="Email address of the person to invite.", examples=["coach@example.com"])
    role: str = Field(description=f"Role in the account: {_ROLES}.", examples=["manager"])


class MemberChange(Body):
    """A member's new role."""

    role: str = Field(description=f"Role in the account: {_ROLES}.", examples=["manager"])


class LinkNew(Body):
    """A one-time link to an account's dashboard."""

    email: str | None = Field(
        default=None,
        description="Email address of the person. The link adds the person as a member if needed."
        " Default: the person signs in as a guest.",
        examples=["coach@example.com"],
    )
    role: str | None = Field(
        default=None,
        description=f"Role of a new member or guest: {_ROLES}. Default: the role `member`.",
    )


class KeyNew(Body):
    """A new API key for an account."""

    name: str = Field(description="Display name, such as the key's purpose.", examples=["receiver in production"])
    scopes: list[str] | None = Field(
        default=None,
        description=f"Permissions of the key: {', '.join(Scope)}."
        " Default: all scopes except events:write and secrets:read.",
    )
    expires_at: str | None = Field(default=None, description=_KEY_EXPIRY)


class ServiceKeyNew(Body):
    """A new service key."""

    name: str = Field(description="Display name, such as the key's purpose.", examples=["capture service"])
    scopes: list[str] = Field(description=f"Permissions of the key: {', '.join(SERVICE_SCOPES)}.")
    expires_at: str | None = Field(default=None, description=_KEY_EXPIRY)


class KeyChange(Body):
    """An update to a key. Omitted fields stay unchanged."""

    name: str = Field(default="", description="Display name.")
    expires_at: str | None = Field(default=None, description=_KEY_EXPIRY)


@takes_settings
class EndpointNew(Body):
    """A new endpoint."""

    url: str = Field(description="URL that receives the events.", examples=["https://example.com/uplift"])
    description: Prose | None = Field(default=None, description="Your description of the endpoint.")
    event_types: list[str] | None = Field(
        default=None,
        description=PATTERNS,
        examples=[["movement.*"]],
    )
    secret: str | None = Field(default=None, description=f"Signing secret: {_SECRET}")
    headers: dict[str, str] | None = Field(default=None, description="Custom headers for every request.")
    auth: Auth = None
    uid: Uid = None
    metadata: dict[str, str] | None = Field(default=None, description=_METADATA, examples=[{"team": "analytics"}])
    filter: dict[str, Any] | None = Field(default=None, description=_FILTER, examples=[_FILTER_EXAMPLE])
    state: Literal["enabled", "paused"] | None = Field(
        default=None,
        description="State of a new endpoint. `paused`: the server holds the endpoint's deliveries until you enable the"
        " endpoint. Default: `enabled`.",
    )


@takes_settings
class EndpointChange(Body):
    """An update to an endpoint. Omitted fields stay unchanged, and null resets a field to its default."""

    url: str = Field(default="", description="URL that receives the events.")
    description: Prose | None = Field(default=None, description="Your description of the endpoint.")
    event_types: list[str] | None = Field(default=None, description=PATTERNS)
    headers: dict[str, str | None] | None = Field(
        default=None, description="Custom headers. Omitted headers stay unchanged, and null removes a header."
    )
    auth: Auth = None
    uid: Uid = None
    metadata: dict[str, str | None] | None = Field(default=None, description=_METADATA_CHANGE)
    filter: dict[str, Any] | None = Field(default=None, description=_FILTER, examples=[_FILTER_EXAMPLE])


class FilterPreviewRequest(Body):
    """A filter to evaluate against the newest events."""

    filter: dict[str, Any] | None = Field(default=None, description=_FILTER, examples=[_FILTER_EXAMPLE])
    event_types: list[str] | None = Field(default=None, description=PATTERNS)
    limit: int | None = Field(
        default=None,
        ge=1,
        le=FILTER_PREVIEW_EVENTS_MAX,
        description=f"Maximum number of events. Default: {FILTER_PREVIEW_EVENTS_DEFAULT}.",
    )


class EndpointEnabling(Body):
    """Options for enabling an endpoint."""

    held: Literal["send", "drop", "keep"] | None = Field(
        default=None,
        description="Action on held deliveries. `send` (default) releases them, oldest event first. `drop`"
        " cancels them. `keep` holds them until you send or drop them.",
    )


class EndpointTest(Body):
    """A test event for an endpoint."""

    type: str | None = Field(
        default=None,
        description="Event type of the example to send. Default: a type that the endpoint is subscribed to.",
        examples=["movement.analytics.created"],
    )


class SecretRotation(Body):
    """A secret rotation. Omitted and null fields use their defaults."""

    secret: str | None = Field(default=None, description=f"New signing secret: {_SECRET}")
    overlap_seconds: int | None = Field(
        default=None,
        ge=0,
        le=SECRET_OVERLAP_SECONDS_MAX,
        description=f"Time until the old secret expires, in seconds. Default: {SECRET_OVERLAP_SECONDS_DEFAULT}.",
    )
    uplift_header: Literal["old", "new"] | None = Field(
        default=None,
        description="Secret that the server uses for `x-uplift-signature-256` while both secrets are active."
        " Default: `old`.",
    )


ObjectId = Annotated[
    str | None,
    Field(
        max_length=OBJECT_ID_CHARACTERS_MAX,
        pattern=NO_ZERO,
        description="Only events with this string or integer at `data.object.id`.",
    ),
]


class ErasureNew(Body):
    """A request to erase events, which are selected by either an object ID or event IDs."""

    object_id: str | None = Field(
        default=None,
        max_length=OBJECT_ID_CHARACTERS_MAX,
        pattern=NO_ZERO,
        description="Erase the events with this string or integer at `data.object.id`.",
        examples=["a3f1c9"],
    )
    event_ids: list[str] | None = Field(
        default=None, description=f"Erase the events with these IDs, at most {ERASURE_EVENT_IDS_MAX}."
    )
    dry_run: bool = Field(default=False, description="Only count the events.")


class BulkResendNew(Body):
    """A bulk resend: filters that select the deliveries, and the maximum rate at which the server resends them."""

    status: list[str] = Field(
        default=[],
        max_length=FILTER_VALUES_MAX,
        description="Statuses of the deliveries to resend: `failed`, `cancelled`, `delivered`. Default: `failed`.",
        examples=[["failed", "cancelled"]],
    )
    endpoint: list[str] = Field(
        default=[], max_length=FILTER_VALUES_MAX, description="Only deliveries to these endpoints."
    )
    type: list[str] = Field(
        default=[], max_length=FILTER_VALUES_MAX, description="Only deliveries of events of these types."
    )
    outcome: list[OutcomeName] = Field(
        default=[],
        max_length=FILTER_VALUES_MAX,
        description="Only deliveries whose last attempt had one of these outcomes.",
    )
    status_code: list[Annotated[str, Field(pattern=STATUS_CODE)]] = Field(
        default=[],
        max_length=FILTER_VALUES_MAX,
        description="Only deliveries whose last attempt got one of these status codes, such as `404`, or any code"
        " of one of these classes, such as `5xx`.",
    )
    object_id: ObjectId = Field(
        default=None, description="Only deliveries of events with this string or integer at `data.object.id`."
    )
    created_after: Timestamp | None = Field(
        default=None, description="Only deliveries of events accepted after this time."
    )
    created_before: Timestamp | None = Field(
        default=None, description="Only deliveries of events accepted before this time."
    )
    rate_per_second: int | None = Field(
        default=None,
        ge=1,
        le=REPLAY_RATE_PER_SECOND_MAX,
        description="Maximum number of deliveries per second for each endpoint."
        f" Default: {REPLAY_RATE_PER_SECOND_DEFAULT}.",
    )
    dry_run: bool = Field(default=False, description="Only count the deliveries.")
