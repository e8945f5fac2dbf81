"""Objects as the API shows them: their shapes, which are also what the OpenAPI document says."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, WithJsonSchema

from uplift_server.api.setting_fields import shows_settings
from uplift_server.core.deliveries.explanations import Reason
from uplift_server.core.deliveries.replays import Wait
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.core.scheduling.waiting import WaitingFor

V = TypeVar("V")

StatusName = Literal["pending", "delivered", "failed", "held", "cancelled"]
StateName = Literal["enabled", "paused", "disabled"]
ReasonName = Literal["failing", "gone", "operator"]
TriggerName = Literal["schedule", "resend", "replay", "test"]
ActorName = Literal["system", "operator", "key", "member"]
ReplayStateName = Literal["running", "paused", "completed", "cancelled"]
PeriodName = Literal["24h", "7d", "30d"]
InstantText = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Listed(BaseModel, Generic[V]):
    """A page of a list."""

    data: list[V]
    next_cursor: str | None = Field(description="Where the next page begins; null where nothing follows.")
    has_more: bool | None = Field(default=None, description="With `order=asc` only: whether to ask again now.")


class AccountView(BaseModel):
    """An account."""

    id: str
    name: str
    contact_emails: list[str]
    created_at: InstantText
    updated_at: InstantText


class KeyView(BaseModel):
    """A key of an account."""

    id: str
    account: str
    name: str
    ends_with: str = Field(description="The key's last characters.")
    scopes: list[str]
    created_at: InstantText
    key: str | None = Field(default=None, description="The key itself, in the answer that made it only.")


RoleName = Literal["member", "manager", "admin", "owner"]


class MemberView(BaseModel):
    """A person's place in an account."""

    id: str
    account: str
    email: str | None = Field(description="None: a guest of portal links.")
    name: str
    role: RoleName
    has_password: bool = Field(description="Whether they can sign in without a portal link.")
    created_at: InstantText


class InvitationView(BaseModel):
    """An invitation that was not accepted yet."""

    id: str
    account: str
    email: str
    role: RoleName
    invited_by: str
    created_at: InstantText
    expires_at: InstantText
    url: str | None = Field(
        default=None, description="Where the server sends no mail, in the answer that made it: to be handed over."
    )


class LinkView(BaseModel):
    """A one-time link into the dashboard."""

    url: str = Field(description="To be opened by whom it is for; it works once.")
    expires_at: InstantText


class RetentionView(BaseModel):
    """Resumed retention."""

    resumed_at: InstantText = Field(description="The confirmed time.")


class EventTypeView(BaseModel):
    """An entry of the catalog."""

    name: str
    group: str
    description: str
    schema_: Any = Field(alias="schema", description="JSON Schema 2020-12 of `data`.")
    example: Any = Field(description="An example of `data`.")
    api_version: str
    documented: bool = Field(description="Documented by Uplift; the others are extensions.")
    archived: bool
    archived_at: InstantText | None
    created_at: InstantText
    updated_at: InstantText


class HealthView(BaseModel):
    """How an endpoint fares."""

    status: Literal["unknown", "healthy", "failing", "warned"]
    failing_since: InstantText | None
    warned_at: InstantText | None
    disable_at: InstantText | None
    last_success_at: InstantText | None
    last_failure_at: InstantText | None
    last_outcome: str | None
    hint: str | None = Field(description="Why it fails and what to do about it.")
    next_probe_at: InstantText | None


@shows_settings
class EndpointView(BaseModel):
    """An endpoint."""

    id: str
    account: str | None = Field(default=None, description="Where the list spans accounts.")
    url: str
    description: str
    event_types: list[str] = Field(description="Names and `group.*`; empty: all.")
    headers: dict[str, str] = Field(description="Values are masked, except those of some standard headers.")
    state: StateName
    disabled_reason: ReasonName | None
    held_deliveries: int = Field(description=f"What it holds, counted up to {HELD_COUNTED_MAX}.")
    health: HealthView
    created_at: InstantText
    updated_at: InstantText
    secret: str | None = Field(default=None, description="In the answer to its creation only.")


class SecretView(BaseModel):
    """The secrets of an endpoint; both texts are the current one, where it is shown."""

    secret: str | None = Field(default=None, description="Left out where it is not shown.")
    standard_webhooks_secret: str | None = Field(
        default=None, description="The same as libraries for Standard Webhooks take it."
    )
    created_at: InstantText = Field(description="When the current secret came to be.")
    previous_expires_at: InstantText | None = Field(
        description="Until when the previous secret is live, too; null where only the current one is."
    )
    uplift_header: Literal["old", "new"] = Field(description="Which secret `x-uplift-signature-256` follows now.")


class EventView(BaseModel):
    """An accepted event."""

    id: str
    account: str | None = Field(default=None, description="Where the list spans accounts.")
    type: str
    created_at: InstantText
    api_version: str
    expires_at: InstantText | None
    deliveries: dict[StatusName, int] = Field(description="How many deliveries stand in each status.")


class OneEventView(EventView):
    """An accepted event with its envelope."""

    body: dict[str, Any] = Field(default={}, description="The envelope, as signed and sent.")


class DeliveryView(BaseModel):
    """One event owed to one endpoint."""

    id: str
    account: str | None = Field(default=None, description="Where the list spans accounts.")
    event: str
    endpoint: str
    type: str
    status: StatusName
    attempts_made: int
    waiting_for: WaitingFor | None = Field(
        description="Of a pending one: its instant (`schedule`), the next probe of an endpoint that fails too often"
        " (`probe`), or its turn (`turn`); `worker` where the worker that has it in hand does not say which; null while"
        " an attempt is in flight."
    )
    next_attempt_at: InstantText | None = Field(
        description="The earliest instant at which it may be attempted; null while an attempt is in flight."
    )
    last_outcome: str | None
    created_at: InstantText
    completed_at: InstantText | None
    failed_reason: str | None


class TimingsView(BaseModel):
    """How long the phases of an attempt took; null: it did not come to that, or a connection was used again."""

    dns_ms: int | None
    connect_ms: int | None
    tls_ms: int | None
    first_byte_ms: int | None


class RequestView(BaseModel):
    """The request of an attempt."""

    headers: dict[str, str]


class ResponseView(BaseModel):
    """The response to an attempt."""

    headers: dict[str, str]
    body: str
    body_truncated: bool


class AttemptView(BaseModel):
    """One attempt of a delivery."""

    id: str
    delivery: str
    number: int
    trigger: TriggerName
    started_at: InstantText
    duration_ms: float
    timings: TimingsView
    status_code: int | None
    outcome: str
    error: str | None
    hint: str | None
    remote_address: str | None
    request: RequestView
    response: ResponseView | None


class ExplanationView(BaseModel):
    """Why an event did or did not reach an endpoint."""

    endpoint: str
    reason: Reason
    text: str = Field(description="What happened.")
    hint: str | None = Field(description="What to do about it; null where nothing is to be done.")
    delivery: str | None = Field(description="Null where the event was never owed to the endpoint.")


class ExplanationsView(BaseModel):
    """The same for several endpoints."""

    data: list[ExplanationView]


class ActorView(BaseModel):
    """Who did something."""

    kind: ActorName
    id: str | None = Field(description="Of the key or the member; null: the server itself.")
    name: str


class AuditEntryView(BaseModel):
    """One thing that was done."""

    at: InstantText
    account: str | None = Field(default=None, description="Where the list spans accounts.")
    actor: ActorView
    action: str
    subject: str = Field(description="The id or the name of what it was done to.")
    details: dict[str, Any] = Field(description="What the action has to tell; never a secret.")
    address: str | None = Field(description="Where the request came from; accounts are not told operators'.")


class ListenSessionView(BaseModel):
    """A stream of an account's events to a developer's machine."""

    id: str
    account: str | None = Field(default=None, description="Where the list spans accounts.")
    key: str = Field(description="The API key it was made with, and is streamed with.")
    description: str
    event_types: list[str] = Field(description="Names and `group.*`; empty: all.")
    connected: bool
    created_at: InstantText
    last_seen_at: InstantText = Field(description="When somebody was last connected.")
    expires_at: InstantText | None = Field(description="When it is removed unless somebody connects.")
    secret: str = Field(
        default="",
        description="Only in the answer to its creation: what its events are signed with on the developer's machine."
        " It is the same for all sessions of a key.",
    )


class ListenAnswerView(BaseModel):
    """What a developer's machine answered to an event."""

    event: str
    type: str
    at: InstantText
    status_code: int | None = Field(description="Null where the local server gave no answer.")
    duration_ms: int
    error: str | None
    body: str = Field(description="The beginning of what it answered.")
    redelivered: bool = Field(description="Whether the event had been handed over before.")


class ListenTestView(BaseModel):
    """An example that was sent to one listen session, and what came of it."""

    event: str
    type: str
    answer: ListenAnswerView | None = Field(description="Null where there was none in time.")


class ReplayView(BaseModel):
    """A job that sends many deliveries of an endpoint again."""

    id: str
    account: str | None = Field(default=None, description="Where the list spans accounts.")
    endpoint: str
    state: ReplayStateName
    reason: Wait | None = Field(description="While it runs: why nothing is sent now.")
    status: list[StatusName] = Field(description="How the deliveries had ended that it sends.")
    types: list[str] = Field(description="Names and `group.*`; empty: all.")
    created_after: InstantText | None
    created_before: InstantText | None
    rate_per_second: int
    total: int | None = Field(description="How many there were when it was made; null until they are counted.")
    sent: int = Field(description="`delivered` and `failed` together.")
    delivered: int
    failed: int = Field(description="Attempts that failed: those deliveries are what they were before.")
    skipped: int = Field(description="Expired, pruned, or resent or changed otherwise since it was made.")
    created_at: InstantText
    updated_at: InstantText
    completed_at: InstantText | None


class ReplayPreview(BaseModel):
    """What a replay would send."""

    count: int
    oldest_at: InstantText | None
    newest_at: InstantText | None
    complete: bool = Field(description="False: there are so many that only the older ones have been counted.")


class SourceIpsView(BaseModel):
    """The addresses requests come from."""

    current: list[str]
    upcoming: list[dict[str, str]]


class NumbersView(BaseModel):
    """What was counted. Deliveries stand where their event was created, attempts where they began."""

    deliveries: int
    delivered: int
    failed: int
    pending: int
    held: int
    cancelled: int
    attempts: int
    first_try_rate: float | None = Field(
        description="Which share of first attempts succeeded, 0 to 1; null where there was none."
    )
    p50_ms: float | None = Field(description="How long half of the attempts took at most; null where there was none.")
    p95_ms: float | None = Field(description="How long 95 % of the attempts took at most.")


class _Stretch(BaseModel):
    """What comes first in a bucket."""

    at: InstantText = Field(description="When it begins.")


class BucketView(NumbersView, _Stretch):
    """The numbers of a stretch of the period."""


class StatsView(BaseModel):
    """The numbers of a period."""

    period: PeriodName
    totals: NumbersView
    buckets: list[BucketView] = Field(description="The oldest first, none left out; the last one still fills.")
    failures: dict[str, int] = Field(description="How many attempts failed, by outcome.")
