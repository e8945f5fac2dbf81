"""The bodies and query parameters of requests, as pydantic reads them and OpenAPI describes them.

Only shapes and bounds stand here; what values mean is judged in the core.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticKnownError

from uplift_server.api.setting_fields import takes_settings
from uplift_server.api.views import PeriodName
from uplift_server.core.limits import (
    CONTACT_EMAILS_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    ENDPOINT_TEXT_CHARACTERS_MAX,
    PAGE_ITEMS_DEFAULT,
    PAGE_ITEMS_MAX,
    REPLAY_RATE_PER_SECOND_DEFAULT,
    REPLAY_RATE_PER_SECOND_MAX,
    SECRET_OVERLAP_SECONDS_DEFAULT,
    SECRET_OVERLAP_SECONDS_MAX,
    SUBSCRIPTION_PATTERNS_MAX,
)
from uplift_server.core.security.rights import roles_text
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.service.context import Listing
from uplift_server.store.records import EndpointFilter

API_VERSION_CHARACTERS_MAX = 32
GROUP_CHARACTERS_MAX = 128
_LINE = r"^[ -~]+$"
# PostgreSQL knows no zero characters.
_NO_ZERO = r"^[^\x00]*$"
_ROLES = roles_text()


def _instant(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return parse_timestamp(value)


Instant = Annotated[int, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Prose = Annotated[str, Field(max_length=DESCRIPTION_CHARACTERS_MAX, pattern=_NO_ZERO)]
StatusName = Literal["pending", "delivered", "failed", "held", "cancelled"]


class Body(BaseModel):
    """What every body is: nothing but its fields."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Body):
    """A call that takes no fields."""


class AccountNew(Body):
    """A new account."""

    name: str = Field(description="What people call it.", examples=["Riverside Baseball"])
    contact_emails: list[str] = Field(
        default=[],
        description=f"Who is told when an endpoint fails; at most {CONTACT_EMAILS_MAX}.",
        examples=[["coach@example.com"]],
    )


class AccountChange(Body):
    """Changes to an account; what is left out stays."""

    name: str = Field(default="", description="What people call it.")
    contact_emails: list[str] = Field(default=[], description="Who is told when an endpoint fails.")


class MemberNew(Body):
    """Somebody who is invited to be a member of an account."""

    email: str = Field(description="Where the invitation goes.", examples=["coach@example.com"])
    role: str = Field(description=f"{_ROLES}.", examples=["manager"])


class MemberChange(Body):
    """Another role for a member."""

    role: str = Field(description=f"{_ROLES}.", examples=["manager"])


class LinkNew(Body):
    """A one-time link that lets somebody of an account into the dashboard."""

    email: str | None = Field(
        default=None,
        description="Whom; made a member where there is none with this mail address. Left out: a guest.",
        examples=["coach@example.com"],
    )
    role: str | None = Field(
        default=None,
        description=f"Of whom is no member yet: {_ROLES}. Left out: member.",
    )


class KeyNew(Body):
    """A new key of an account."""

    name: str = Field(description="What it is for.", examples=["receiver in production"])
    scopes: list[str] | None = Field(
        default=None,
        description=f"What it may do: {', '.join(Scope)}. Left out: all but events:write and secrets:read.",
    )


class EventTypeNew(Body):
    """What the catalog says of an event type."""

    description: Prose = Field(description="When it happens and what it carries.")
    group: str | None = Field(
        default=None,
        max_length=GROUP_CHARACTERS_MAX,
        pattern=_LINE,
        description="Its heading; left out: the name's first word.",
    )
    schema_: Any = Field(default=None, alias="schema", description="JSON Schema 2020-12 of `data`.")
    example: Any = Field(default=None, description="An example of `data`.")
    api_version: str | None = Field(
        default=None,
        max_length=API_VERSION_CHARACTERS_MAX,
        pattern=_LINE,
        description="The `api_version` of its envelopes; left out: 01/01/2022.",
    )
    archived: bool = Field(default=False, description="Whether new events of it are refused.")


@takes_settings
class EndpointNew(Body):
    """A new endpoint."""

    url: str = Field(description="Where to deliver.", examples=["https://example.com/uplift"])
    description: Prose | None = Field(default=None, description="For people.")
    event_types: list[str] | None = Field(
        default=None,
        description=f"Names and `group.*`, at most {SUBSCRIPTION_PATTERNS_MAX}; left out or empty: all.",
        examples=[["movement.*"]],
    )
    secret: str | None = Field(default=None, description="Your own secret; left out: we make one.")
    headers: dict[str, str] | None = Field(default=None, description="Headers to add to every request.")


@takes_settings
class EndpointChange(Body):
    """Changes to an endpoint; what is left out stays, null means the default."""

    url: str = Field(default="", description="Where to deliver.")
    description: Prose | None = Field(default=None, description="For people.")
    event_types: list[str] | None = Field(default=None, description="Names and `group.*`; empty: all.")
    headers: dict[str, str] | None = Field(default=None, description="All headers to add; replaces those before.")


class EndpointEnabling(Body):
    """What becomes of what an endpoint holds."""

    held: Literal["send", "drop", "keep"] | None = Field(
        default=None,
        description="`send` (left out: this) it in the order of events, `drop` it for good, or `keep` it until a later"
        " call says otherwise.",
    )


class EndpointTest(Body):
    """With what to test an endpoint."""

    type: str | None = Field(
        default=None,
        description="An event type of the catalog, whose example is sent; left out: one that the endpoint wants.",
        examples=["movement.analytics.created"],
    )


class SecretRotation(Body):
    """A new secret; what is left out, or null, is as usual."""

    secret: str | None = Field(default=None, description="Your own new secret; left out: we make one.")
    overlap_seconds: int | None = Field(
        default=None,
        ge=0,
        le=SECRET_OVERLAP_SECONDS_MAX,
        description=f"How long the present secret stays live, too; left out: {SECRET_OVERLAP_SECONDS_DEFAULT}.",
    )
    uplift_header: Literal["old", "new"] | None = Field(
        default=None,
        description="Which secret `x-uplift-signature-256` follows while both are live; left out: `old`.",
    )


class ListenSessionNew(Body):
    """What a developer wants to listen to."""

    event_types: list[str] | None = Field(
        default=None,
        description=f"Names and `group.*`, at most {SUBSCRIPTION_PATTERNS_MAX}; left out or empty: all.",
        examples=[["movement.*"]],
    )
    since: str | None = Field(
        default=None,
        description="Where to begin: an instant, or the id of the last event that is not wanted again. Left out: now.",
    )
    description: str | None = Field(
        default=None, description="By which others recognise it, such as the machine's name.", examples=["ana-laptop"]
    )


class ListenTestNew(Body):
    """Which example to send to a listen session."""

    type: str | None = Field(default=None, description="An event type of the catalog.")


class ReplayNew(Body):
    """Which deliveries of an endpoint to send again, and how fast."""

    endpoint: str = Field(description="Whose deliveries.")
    status: list[str] | None = Field(
        default=None,
        description="How they ended: `failed` (left out: only these), `cancelled`, `delivered`. `failed` and"
        " `cancelled` together are all that were never delivered.",
        examples=[["failed", "cancelled"]],
    )
    types: list[str] | None = Field(
        default=None,
        description=f"Names and `group.*`, at most {SUBSCRIPTION_PATTERNS_MAX}; left out or empty: all.",
        examples=[["movement.*"]],
    )
    created_after: Instant | None = Field(default=None, description="Only of events accepted after this instant.")
    created_before: Instant | None = Field(default=None, description="Only of events accepted before this instant.")
    rate_per_second: int | None = Field(
        default=None,
        ge=1,
        le=REPLAY_RATE_PER_SECOND_MAX,
        description=f"How many are sent a second at most; left out: {REPLAY_RATE_PER_SECOND_DEFAULT}.",
    )
    dry_run: bool = Field(default=False, description="Only say how many there are.")


class Paging(Body):
    """Which stretch of a list."""

    limit: int = Field(default=PAGE_ITEMS_DEFAULT, ge=1, le=PAGE_ITEMS_MAX, description="At most so many items.")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")

    def listing(self) -> Listing:
        """The same for the services."""
        return Listing(self.limit, self.cursor)


class EndpointsAsked(Paging):
    """Which endpoints."""

    state: Literal["enabled", "paused", "disabled", "failing"] | None = Field(
        default=None, description="Only endpoints in this state; `failing`: enabled ones whose last attempt failed."
    )
    text: str | None = Field(
        default=None,
        max_length=ENDPOINT_TEXT_CHARACTERS_MAX,
        pattern=_NO_ZERO,
        description="Only endpoints with this in their URL or description, in letters of any case.",
    )

    def wanted(self) -> EndpointFilter:
        """The same for the services."""
        return EndpointFilter.named(self.state, self.text)


class EventsAsked(Paging):
    """Which events."""

    type: str | None = Field(default=None, description="Only events of this type.")
    created_after: Instant | None = Field(default=None, description="Only events accepted after this instant.")
    created_before: Instant | None = Field(default=None, description="Only events accepted before this instant.")
    order: Literal["desc", "asc"] = Field(
        default="desc", description="`asc`: oldest first, with a `next_cursor` that can be followed for ever."
    )


class EndpointDeliveriesAsked(Paging):
    """Which deliveries of an endpoint."""

    status: StatusName | None = Field(default=None, description="Only deliveries in this status.")
    type: str | None = Field(default=None, description="Only deliveries of events of this type.")
    created_after: Instant | None = Field(default=None, description="Only of events accepted after this instant.")
    created_before: Instant | None = Field(default=None, description="Only of events accepted before this instant.")


class DeliveriesAsked(EndpointDeliveriesAsked):
    """Which deliveries."""

    endpoint: str | None = Field(default=None, description="Only deliveries to this endpoint.")


class StatsAsked(Body):
    """Of which time numbers are asked for."""

    period: PeriodName = Field(
        default="24h", description="24 buckets of an hour, 28 of six hours, or 30 of a day; all in UTC."
    )


class ExplanationAsked(Body):
    """Which endpoints are asked about."""

    endpoint: str | None = Field(default=None, description="Only this endpoint; left out: all of the account.")


class AuditAsked(Paging):
    """Which entries of the audit log."""

    actor: str | None = Field(
        default=None, description="Only what this one did: an id, or `system`, `operator`, `key`, `member`."
    )
    action: str | None = Field(default=None, description="Only this action, such as `endpoint.changed`.")
    subject: str | None = Field(default=None, description="Only what was done to this: an id, or an event type's name.")
    created_after: Instant | None = Field(default=None, description="Only what was done after this instant.")
    created_before: Instant | None = Field(default=None, description="Only what was done before this instant.")
