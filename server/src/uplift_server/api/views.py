"""Response models of the API. FastAPI generates their schemas in the OpenAPI document."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, WithJsonSchema

from uplift_server.api.endpoint_auth import AuthView
from uplift_server.api.setting_fields import shows_settings
from uplift_server.core.deliveries.explanations import Reason
from uplift_server.core.deliveries.replays import SkipReason, Wait
from uplift_server.core.deliveries.signature_checks import VerdictCode
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.core.scheduling.waiting import WaitingFor

V = TypeVar("V")

StatusName = Literal["pending", "delivered", "failed", "held", "cancelled"]
StateName = Literal["enabled", "paused", "disabled"]
ReasonName = Literal["failing", "gone", "operator"]
TriggerName = Literal["schedule", "resend", "replay", "test"]
ActorName = Literal["system", "operator", "key", "member"]
ReplayStateName = Literal["running", "paused", "completed", "cancelled"]
Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def _timestamp(description: str) -> Any:
    return WithJsonSchema({"type": "string", "format": "date-time", "description": description})


CreatedAt = Annotated[str, _timestamp("Time of creation.")]
UpdatedAt = Annotated[str, _timestamp("Time of the last update.")]
ExpiresAt = Annotated[str, _timestamp("Time of expiration.")]
_ACCOUNT = "Account ID. Present only if the list spans accounts."
_OBJECT_ID = "String or integer at `data.object.id`, as text. Null if it is absent or has more than 128 characters."
_PATTERNS = "Event types and `group.*` patterns. An empty list matches all event types except operational ones."


class Listed(BaseModel, Generic[V]):
    """One page of a list, with the cursors for the previous and next pages."""

    data: list[V] = Field(description="The objects on this page.")
    next_cursor: str | None = Field(description="Cursor for the next page. Null on the last page.")
    prev_cursor: str | None = Field(description="Cursor for the previous page. Null on the first page.")
    has_more: bool | None = Field(
        default=None,
        description="Whether the next page already has events. If false, wait before you request the page. Present only"
        " in the list of events with `order=asc`.",
    )


class AccountView(BaseModel):
    """An account."""

    id: str = Field(description="Account ID (`acc_…`).")
    uid: str | None = Field(description="Your own ID, unique on the server.")
    name: str = Field(description="Display name.")
    contact_emails: list[str] = Field(description="Email addresses that receive notifications about failing endpoints.")
    metadata: dict[str, str] = Field(description="Your own metadata, as strings.")
    created_at: CreatedAt
    updated_at: UpdatedAt


class RetentionView(BaseModel):
    """The result of a request to resume retention."""

    resumed_at: Timestamp = Field(description="When retention resumed.")


class EventTypeView(BaseModel):
    """An event type in the catalog."""

    name: str = Field(description="Name of the event type, such as `athlete.created`.")
    group: str = Field(description="Heading under which the catalog lists the event type.")
    description: str = Field(description="Description of the event: when it occurs and what it contains.")
    schema_: Any = Field(alias="schema", description="JSON Schema 2020-12 of `data`.")
    example: Any = Field(description="Example of `data`.")
    api_version: str = Field(description="The `api_version` of new events.")
    documented: bool = Field(description="Whether Uplift documents the event type. False for an extension.")
    archived: bool = Field(description="Whether the server rejects new events of this type.")
    archived_at: Timestamp | None = Field(description="When the event type was archived.")
    created_at: CreatedAt
    updated_at: UpdatedAt


class HealthView(BaseModel):
    """An endpoint's health."""

    status: Literal["unknown", "healthy", "failing", "warned"] = Field(description="Current health of the endpoint.")
    failing_since: Timestamp | None = Field(description="Time of the first failed attempt since the last success.")
    warned_at: Timestamp | None = Field(description="When the server warned the account's contacts.")
    disable_at: Timestamp | None = Field(
        description="When the server disables the endpoint, unless an attempt succeeds first."
    )
    last_success_at: Timestamp | None = Field(description="Time of the last successful attempt.")
    last_failure_at: Timestamp | None = Field(description="Time of the last failed attempt.")
    last_outcome: str | None = Field(description="Outcome of the last attempt.")
    last_status_code: int | None = Field(description="Status code of the last attempt, if it received a response.")
    last_error: str | None = Field(description="Error of the last attempt, if it did not receive a complete response.")
    last_response: str | None = Field(
        description="First line of the response to the last attempt, if the attempt failed. Secrets in it are masked."
    )
    cause: str | None = Field(description="Code of the [cause](/docs/outcomes) while the endpoint is failing.")
    hint: str | None = Field(description="Cause of the failure and how to fix it, while the endpoint is failing.")
    next_probe_at: Timestamp | None = Field(description="Time of the next probe while the circuit breaker is open.")


@shows_settings
class EndpointView(BaseModel):
    """An endpoint."""

    id: str = Field(description="Endpoint ID (`ep_…`).")
    uid: str | None = Field(description="Your own ID, unique in the account.")
    account: str | None = Field(default=None, description=_ACCOUNT)
    url: str = Field(description="URL that receives the events.")
    description: str = Field(description="Your description of the endpoint.")
    event_types: list[str] = Field(description=_PATTERNS)
    headers: dict[str, str] = Field(
        description="Custom request headers. Values are masked, except for some standard headers."
    )
    auth: AuthView | None = Field(description="How the server authenticates to the endpoint. Secrets are not included.")
    metadata: dict[str, str] = Field(description="Your own metadata, as strings.")
    filter: dict[str, Any] | None = Field(
        description="Pattern that the `data` of an event must match. Null: no filter."
    )
    state: StateName = Field(
        description="Current state of the endpoint. The server sends deliveries only if the endpoint is `enabled`."
    )
    disabled_reason: ReasonName | None = Field(description="Why the endpoint is disabled.")
    held_deliveries: int = Field(description=f"Number of held deliveries, counted up to {HELD_COUNTED_MAX}.")
    pending_deliveries: int | None = Field(
        description="Number of pending deliveries. The count is 1 to 5 seconds old, or up to 15 seconds while the"
        " server is busy. Null after an upgrade, until the server has counted them."
    )
    oldest_due_at: Timestamp | None = Field(
        description="When the oldest due delivery that is not in flight became due."
    )
    health: HealthView
    verified_at: Timestamp | None = Field(
        description="Time of the last successful signature check. Null if no check of the current URL has succeeded."
    )
    created_at: CreatedAt
    updated_at: UpdatedAt
    secret: str | None = Field(default=None, description="Signing secret. Returned only when you create the endpoint.")


class PreviewedEventView(BaseModel):
    """An event in a filter preview, and whether the filter matches the event."""

    id: str = Field(description="Event ID.")
    type: str = Field(description="Event type.")
    matches: bool = Field(description="Whether the event matches the filter.")
    path: str | None = Field(description="First path in the event that does not match. Null if the event matches.")


class FilterPreviewView(BaseModel):
    """The result of a filter preview: the newest events, and whether the filter matches each of them."""

    total: int = Field(description="Number of events that the server evaluated.")
    matched: int = Field(description="Number of evaluated events that match the filter.")
    events: list[PreviewedEventView] = Field(description="The events, newest first.")


class SecretView(BaseModel):
    """An endpoint's signing secrets."""

    secret: str | None = Field(default=None, description="Current secret. Absent if the response does not reveal it.")
    standard_webhooks_secret: str | None = Field(
        default=None, description="Current secret in the format that Standard Webhooks libraries use (`whsec_…`)."
    )
    created_at: Timestamp = Field(description="When the current secret was created.")
    previous_expires_at: Timestamp | None = Field(
        description="When the old secret expires. Null if only the current secret is active."
    )
    uplift_header: Literal["old", "new"] = Field(
        description="Secret that the server currently uses for `x-uplift-signature-256`."
    )


class EventView(BaseModel):
    """An accepted event."""

    id: str = Field(description="Event ID (UUID).")
    account: str | None = Field(default=None, description=_ACCOUNT)
    type: str = Field(description="Event type.")
    created_at: CreatedAt
    api_version: str = Field(description="The `api_version` of the envelope.")
    expires_at: Timestamp | None = Field(description="When the server stops sending the event.")
    object_id: str | None = Field(description=_OBJECT_ID)
    ordering_key: str | None = Field(
        description="Ordering key. Endpoints whose `ordering` is `key` receive events with the same ordering key in"
        " order."
    )
    test: bool = Field(description="Whether the event is a test event.")
    deliveries: dict[StatusName, int] = Field(description="Number of deliveries per status.")
    erased_at: Timestamp | None = Field(description="When the server erased the content of the event.")
    body: dict[str, Any] | None = Field(
        default=None,
        description="The envelope, exactly as the server signs and sends it. Lists contain it only with"
        " `include=body`.",
    )


class OneEventView(EventView):
    """An accepted event with its body."""

    body: dict[str, Any] | None = Field(
        default={}, description="The envelope, exactly as the server signs and sends it. Null if the event was erased."
    )


class DeliveryView(BaseModel):
    """The delivery of one event to one endpoint."""

    id: str = Field(description="Delivery ID (`dlv_…`).")
    account: str | None = Field(default=None, description=_ACCOUNT)
    event: str = Field(description="Event ID.")
    endpoint: str = Field(description="Endpoint ID.")
    type: str = Field(description="Event type.")
    object_id: str | None = Field(description=_OBJECT_ID)
    test: bool = Field(description="Whether the event is a test event.")
    status: StatusName = Field(description="Current status of the delivery.")
    attempts_made: int = Field(description="Number of attempts so far.")
    waiting_for: WaitingFor | None = Field(
        description="Why a pending delivery waits. `schedule`: the delivery is not due yet. `turn`: other deliveries"
        " are ahead in the queue. `order`: another delivery must end first. `probe`: the circuit breaker is open."
        " `worker`: another process has the delivery, in its queue or in flight. Null if the process that handles your"
        " request has an attempt of this delivery in flight."
    )
    blocked_by: str | None = Field(
        description="ID of the delivery that must end before this one, because the endpoint's deliveries are ordered."
    )
    next_attempt_at: Timestamp | None = Field(
        description="Earliest time of the next attempt. Null while an attempt is in flight or another delivery must end"
        " first."
    )
    last_outcome: str | None = Field(description="Outcome of the last attempt.")
    created_at: CreatedAt
    completed_at: Timestamp | None = Field(description="When the delivery succeeded, failed or was cancelled.")
    failed_reason: str | None = Field(description="Why the delivery failed: `exhausted` or `expired`.")


class TimingsView(BaseModel):
    """The duration of each phase of an attempt. A field is null if its phase did not happen."""

    dns_ms: int | None = Field(description="Duration of the DNS lookup in milliseconds.")
    connect_ms: int | None = Field(description="Time to open the TCP connection in milliseconds.")
    tls_ms: int | None = Field(description="Duration of the TLS handshake in milliseconds.")
    first_byte_ms: int | None = Field(
        description="Milliseconds from the start of the attempt to the first byte of the response."
    )


class RequestView(BaseModel):
    """An attempt's request."""

    headers: dict[str, str] = Field(
        description="Request headers. Values of custom headers are masked. Empty if the event was erased or the server"
        " had no access token."
    )


class ResponseView(BaseModel):
    """The response to an attempt."""

    headers: dict[str, str] = Field(description="Response headers. Secrets in them are masked.")
    body: str = Field(description="First part of the response body.")
    body_truncated: bool = Field(description="Whether the server truncated `body`.")
    first_line: str | None = Field(
        description="First part of the body as one readable line. Secrets in it are masked. Null if the body has no"
        " text."
    )


class AttemptView(BaseModel):
    """An attempt to deliver an event: its request, response and outcome."""

    id: str = Field(description="Attempt ID (`att_…`).")
    account: str | None = Field(default=None, description=_ACCOUNT)
    delivery: str = Field(description="Delivery ID.")
    event: str = Field(description="Event ID.")
    endpoint: str = Field(description="Endpoint ID.")
    number: int = Field(description="Number of the attempt: 1, 2, 3 …")
    trigger: TriggerName = Field(description="Reason for the attempt.")
    started_at: Timestamp = Field(description="When the attempt started.")
    duration_ms: float = Field(description="Duration of the attempt in milliseconds.")
    timings: TimingsView
    status_code: int | None = Field(description="Status code of the response. Null if there was no response.")
    outcome: str = Field(description="Result of the attempt. See [Outcomes of attempts](/docs/outcomes).")
    error: str | None = Field(description="Technical error message.")
    hint: str | None = Field(description="Cause of the failure and how to fix it.")
    remote_address: str | None = Field(description="IP address and port of your server.")
    request: RequestView
    response: ResponseView | None


class SignatureCheckView(BaseModel):
    """The result of a signature check."""

    verified: bool = Field(description="Whether your server rejected the wrong signature and accepted the valid one.")
    verified_at: Timestamp | None = Field(description="Time of this check. Null if the endpoint is not verified.")
    verdict: VerdictCode = Field(description="Result of the check.")
    text: str = Field(description="Description of the result.")
    hint: str | None = Field(description="How to fix the problem. Null if the endpoint is verified.")
    wrong_signature: AttemptView | None = Field(
        description="Attempt with the wrong signature. Null while the attempt is in flight."
    )
    valid_signature: AttemptView | None = Field(
        description="Attempt with the valid signature. Null while the attempt is in flight, or if the check did not"
        " need it."
    )


class ExplanationView(BaseModel):
    """The reason why an event did or did not reach an endpoint."""

    endpoint: str = Field(description="ID of the endpoint or listen session.")
    reason: Reason = Field(description="Status of the delivery, or the reason why there is no delivery.")
    text: str = Field(description="Description of the reason.")
    hint: str | None = Field(description="How to fix the problem. Null if you do not need to do anything.")
    delivery: str | None = Field(description="Delivery ID. Null if there is no delivery.")


class ExplanationsView(BaseModel):
    """Explanations of an event, one per endpoint."""

    data: list[ExplanationView] = Field(description="One explanation per endpoint.")


class ActorView(BaseModel):
    """The person or program that performed an action."""

    kind: ActorName = Field(description="Kind of actor.")
    id: str | None = Field(
        description="ID of the key or member. For an operator who used single sign-on: `oidc:` and the person's `sub`"
        " at the identity provider. Null if the server performed the action."
    )
    name: str = Field(description="Name of the key, member or operator.")


class AuditEntryView(BaseModel):
    """An audit log entry."""

    at: Timestamp = Field(description="Time of the action.")
    account: str | None = Field(default=None, description=_ACCOUNT)
    actor: ActorView
    action: str = Field(description="Action, such as `endpoint.changed`.")
    subject: str = Field(description="ID of the changed object, or the name of the changed event type.")
    details: dict[str, Any] = Field(description="Details of the action, without secrets.")
    address: str | None = Field(
        description="IP address that sent the request. Accounts cannot see operators' addresses."
    )


class ListenSessionView(BaseModel):
    """A stream of an account's events to a developer's machine."""

    id: str = Field(description="Listen session ID (`lsn_…`).")
    account: str | None = Field(default=None, description=_ACCOUNT)
    key: str = Field(
        description="ID of the API key that created the session. Only this key can receive the session's events."
    )
    description: str = Field(description="Description of the session, such as your computer's name.")
    event_types: list[str] = Field(description=_PATTERNS)
    connected: bool = Field(description="Whether a client is connected.")
    created_at: CreatedAt
    last_seen_at: Timestamp = Field(description="When a client was last connected.")
    expires_at: Timestamp | None = Field(description="When the server deletes the session if no client connects.")
    secret: str = Field(
        default="",
        description="Signing secret for all of the API key's sessions. Returned only when you create the session.",
    )


class ListenAnswerView(BaseModel):
    """The response of a developer's local server to an event."""

    event: str = Field(description="Event ID.")
    type: str = Field(description="Event type.")
    at: Timestamp = Field(description="Time of the response.")
    status_code: int | None = Field(description="Status code. Null if the local server did not respond.")
    duration_ms: int = Field(description="Duration of the request to the local server in milliseconds.")
    error: str | None = Field(description="Error message of the `uplift` command.")
    body: str = Field(description="First part of the response body.")
    redelivered: bool = Field(
        description="Whether `uplift listen` had already forwarded the event to the local server."
    )


class ListenTestView(BaseModel):
    """A test event for one listen session, and the response of the local server."""

    event: str = Field(description="Event ID.")
    type: str = Field(description="Event type.")
    answer: ListenAnswerView | None = Field(
        description="Response of the local server. Null if the local server did not respond in time."
    )


class ReplayView(BaseModel):
    """A job that resends many deliveries of an endpoint."""

    id: str = Field(description="Replay ID (`rpl_…`).")
    account: str | None = Field(default=None, description=_ACCOUNT)
    endpoint: str = Field(description="Endpoint ID.")
    state: ReplayStateName = Field(description="Current state of the replay.")
    reason: Wait | None = Field(description="Why a running replay is currently not sending deliveries.")
    status: list[StatusName] = Field(description="Statuses of the selected deliveries.")
    types: list[str] = Field(description="Event types and `group.*` patterns. An empty list matches all event types.")
    outcome: list[str] = Field(description="Outcomes of the last attempt. An empty list matches all outcomes.")
    status_code: list[str] = Field(
        description="Status codes of the last attempt. An empty list matches all status codes."
    )
    object_id: str | None = Field(
        description="Only events with this object ID. Empty if the object's events were erased."
    )
    created_after: Timestamp | None = Field(description="Only events accepted after this time.")
    created_before: Timestamp | None = Field(description="Only events accepted before this time.")
    rate_per_second: int = Field(description="Maximum number of deliveries per second.")
    include_missing: bool = Field(
        description="Whether the replay also sends events that had no delivery to the endpoint."
    )
    total: int | None = Field(description="Number of selected deliveries. Null until the server has counted them.")
    sent: int = Field(description="Sum of `delivered` and `failed`.")
    delivered: int = Field(description="Number of successful attempts.")
    failed: int = Field(
        description="Number of failed attempts. An existing delivery keeps its previous status. A delivery that the"
        " replay created becomes `failed`."
    )
    skipped: int = Field(
        description="Number of deliveries that the replay did not send. They expired, were erased or deleted, or"
        " changed after the replay was created."
    )
    created_at: CreatedAt
    updated_at: UpdatedAt
    completed_at: Timestamp | None = Field(description="When the replay completed or was cancelled.")


class ReplayPreview(BaseModel):
    """The number and age of the deliveries that a replay would send."""

    count: int = Field(description="Number of deliveries.")
    missing: int = Field(description="Number of deliveries that the replay would create. 0 without `include_missing`.")
    oldest_at: Timestamp | None = Field(description="Time of the oldest event.")
    newest_at: Timestamp | None = Field(description="Time of the newest event.")
    complete: bool = Field(description="False if the count stopped early and covers only the older deliveries.")
    filtered: bool = Field(
        description="Whether the endpoint's filter can exclude some of the events that have no delivery. If so, the"
        " counts are upper limits."
    )


class EndpointShareView(BaseModel):
    """The number of matching deliveries of one endpoint in a bulk resend.

    If the server skips the endpoint, the object contains the reason.
    """

    endpoint: str = Field(description="Endpoint ID.")
    count: int = Field(description="Number of deliveries.")
    reason: SkipReason | None = Field(
        description="Why the server does not resend the deliveries: the endpoint has an unfinished replay"
        " (`replay_unfinished`) or was deleted (`endpoint_deleted`). Null if the server resends them."
    )


class BulkResendPreview(BaseModel):
    """The number and age of the deliveries that a bulk resend would send."""

    count: int = Field(description="Number of deliveries to resend.")
    oldest_at: Timestamp | None = Field(description="Time of the oldest event.")
    newest_at: Timestamp | None = Field(description="Time of the newest event.")
    complete: bool = Field(description="False if the count stopped early. In this case, use a shorter time range.")
    endpoints: list[EndpointShareView] = Field(
        description="The endpoints. The endpoint with the most deliveries is first."
    )


class BulkResendView(BaseModel):
    """The result of a bulk resend."""

    count: int = Field(description="Number of deliveries to resend.")
    replays: list[ReplayView] = Field(description="The created replays, one for each endpoint.")
    skipped: list[EndpointShareView] = Field(
        description="Endpoints for which the server did not create a replay. Empty for a repeated request."
    )


class SourceIpsView(BaseModel):
    """The server's egress IPs."""

    current: list[str] = Field(description="Addresses in use.")
    upcoming: list[dict[str, str]] = Field(
        description="Upcoming addresses. `from` is when the server starts to use the address."
    )
