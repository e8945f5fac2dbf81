"""Converts records to API models."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from uplift_server.api.endpoint_auth import auth_view
from uplift_server.api.views import (
    AccountView,
    ActorName,
    ActorView,
    AttemptView,
    AuditEntryView,
    BulkResendPreview,
    BulkResendView,
    DeliveryView,
    EndpointShareView,
    EndpointView,
    EventTypeView,
    EventView,
    ExplanationView,
    FilterPreviewView,
    HealthView,
    Listed,
    PreviewedEventView,
    ReasonName,
    ReplayPreview,
    ReplayStateName,
    ReplayView,
    RequestView,
    ResponseView,
    SecretView,
    SignatureCheckView,
    StateName,
    StatusName,
    TimingsView,
    TriggerName,
)
from uplift_server.core import ids
from uplift_server.core.deliveries.causes import cause_of, explain_attempt
from uplift_server.core.deliveries.outcomes import RESPONDED, Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.deliveries.responses import first_line
from uplift_server.core.http.headers import mask
from uplift_server.core.http.response_headers import mask_response_headers
from uplift_server.core.lifecycle import OPEN, Status, Trigger
from uplift_server.core.own_data import metadata_of
from uplift_server.core.people.audit import ActorKind, AuditEntry
from uplift_server.core.security.signing import standard_form
from uplift_server.core.timestamps import format_optional_timestamp, format_timestamp
from uplift_server.service.bulk_resends import BulkPreview, BulkResend, EndpointShare
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoint_tests import EndpointTest, SignatureCheck
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.explanations import Explained
from uplift_server.service.filter_previews import PreviewedEvent
from uplift_server.service.replays import Preview, ShownReplay
from uplift_server.service.secrets import ShownSecrets
from uplift_server.service.waiting_reasons import ShownDelivery
from uplift_server.store.records import (
    Account,
    Attempt,
    Delivery,
    DisabledReason,
    EndpointState,
    Event,
    EventType,
    Page,
    StreamPage,
)

V = TypeVar("V")
R = TypeVar("R")

_STATUS_NAMES: Final[dict[Status, StatusName]] = {
    Status.PENDING: "pending",
    Status.DELIVERED: "delivered",
    Status.FAILED: "failed",
    Status.HELD: "held",
    Status.CANCELLED: "cancelled",
}
_REASON_NAMES: Final[dict[DisabledReason, ReasonName]] = {
    DisabledReason.FAILING: "failing",
    DisabledReason.GONE: "gone",
    DisabledReason.OPERATOR: "operator",
}
_STATE_NAMES: Final[dict[EndpointState, StateName]] = {
    EndpointState.ENABLED: "enabled",
    EndpointState.PAUSED: "paused",
    EndpointState.DISABLED: "disabled",
}
_TRIGGER_NAMES: Final[dict[Trigger, TriggerName]] = {
    Trigger.SCHEDULE: "schedule",
    Trigger.RESEND: "resend",
    Trigger.REPLAY: "replay",
    Trigger.TEST: "test",
}
_ACTOR_KINDS: Final[dict[ActorKind, ActorName]] = {
    ActorKind.SYSTEM: "system",
    ActorKind.OPERATOR: "operator",
    ActorKind.KEY: "key",
    ActorKind.MEMBER: "member",
}
_REPLAY_STATE_NAMES: Final[dict[ReplayState, ReplayStateName]] = {
    ReplayState.RUNNING: "running",
    ReplayState.PAUSED: "paused",
    ReplayState.COMPLETED: "completed",
    ReplayState.CANCELLED: "cancelled",
}


def listed(page: Page[R] | StreamPage[R], view: Callable[[R], V], context: ServiceContext) -> Listed[V]:
    """Return the API model of one page of a list."""
    next_cursor, prev_cursor = context.page_cursors(page)
    found = Listed(data=[view(item) for item in page.items], next_cursor=next_cursor, prev_cursor=prev_cursor)
    if isinstance(page, StreamPage):
        found.has_more = page.more
    return found


def account_view(account: Account) -> AccountView:
    """Return the API model of an account."""
    return AccountView(
        id=ids.prefixed(ids.ACCOUNT, account.id),
        uid=account.uid,
        name=account.name,
        contact_emails=list(account.contact_emails),
        metadata=metadata_of(account.metadata),
        created_at=format_timestamp(account.created_at),
        updated_at=format_timestamp(account.updated_at),
    )


def event_type_view(event_type: EventType) -> EventTypeView:
    """Return the API model of an event type."""
    return EventTypeView(
        name=event_type.name,
        group=event_type.group,
        description=event_type.description,
        schema=_decoded(event_type.schema),
        example=_decoded(event_type.example),
        api_version=event_type.api_version,
        documented=event_type.documented,
        archived=event_type.archived_at is not None,
        archived_at=format_optional_timestamp(event_type.archived_at),
        created_at=format_timestamp(event_type.created_at),
        updated_at=format_timestamp(event_type.updated_at),
    )


def endpoint_view(shown: ShownEndpoint, account: str | None) -> EndpointView:
    """Return the API model of an endpoint. `account` is the account's public ID, or None if the response omits it."""
    endpoint = shown.endpoint
    return EndpointView(
        id=ids.prefixed(ids.ENDPOINT, endpoint.id),
        uid=endpoint.uid,
        **_only(account=account, secret=shown.secret),
        url=endpoint.url,
        description=endpoint.description,
        event_types=list(endpoint.event_types),
        headers={name: mask(name, value) for name, value in shown.headers.items()},
        auth=auth_view(shown.auth),
        metadata=metadata_of(endpoint.metadata),
        filter=_decoded(endpoint.filter),
        **endpoint.settings.as_json(),
        state=_STATE_NAMES[endpoint.state],
        disabled_reason=None if endpoint.disabled_reason is None else _REASON_NAMES[endpoint.disabled_reason],
        held_deliveries=shown.held_deliveries,
        pending_deliveries=shown.backlog.pending,
        oldest_due_at=format_optional_timestamp(shown.backlog.oldest_due_at),
        health=health_view(shown),
        verified_at=format_optional_timestamp(endpoint.verified_at),
        created_at=format_timestamp(endpoint.created_at),
        updated_at=format_timestamp(endpoint.updated_at),
    )


def filter_preview_view(found: Sequence[PreviewedEvent]) -> FilterPreviewView:
    """Return the API model of a filter preview."""
    return FilterPreviewView(
        total=len(found),
        matched=sum(each.mismatch is None for each in found),
        events=[
            PreviewedEventView(
                id=ids.uuid_text(each.event.id),
                type=each.event.type,
                matches=each.mismatch is None,
                path=each.mismatch,
            )
            for each in found
        ],
    )


def health_view(shown: ShownEndpoint) -> HealthView:
    """Return the API model of an endpoint's health."""
    health = shown.endpoint.health
    cause = cause_of(health)
    return HealthView(
        status=health.status,
        failing_since=format_optional_timestamp(health.failing_since),
        warned_at=format_optional_timestamp(health.warned_at if health.warned else None),
        disable_at=format_optional_timestamp(shown.disable_at),
        last_success_at=format_optional_timestamp(health.last_success_at),
        last_failure_at=format_optional_timestamp(health.last_failure_at),
        last_outcome=_outcome_text(health.last_outcome),
        last_status_code=health.last_status_code,
        last_error=None if health.last_outcome in RESPONDED else health.last_error,
        last_response=health.last_response,
        cause=None if cause is None else cause.code,
        hint=None if cause is None else cause.hint,
        next_probe_at=format_optional_timestamp(shown.next_probe_at),
    )


def secret_view(shown: ShownSecrets) -> SecretView:
    """Return the API model of an endpoint's secrets.

    The model contains the secrets themselves only if the response reveals them.
    """
    secret, pair = shown.secret, shown.pair
    return SecretView(
        **_only(secret=secret, standard_webhooks_secret=None if secret is None else standard_form(secret)),
        created_at=format_timestamp(pair.created_at),
        previous_expires_at=format_optional_timestamp(pair.previous_expires_at),
        uplift_header=pair.uplift_header,
    )


def event_view(event: Event, *, spans: bool) -> EventView:
    """Return the API model of an event without its body. If `spans` is true, the model contains the account."""
    return EventView(
        id=ids.uuid_text(event.id),
        **account_field(event.account_id, spans=spans),
        type=event.type,
        created_at=format_timestamp(event.created_at),
        api_version=event.api_version,
        expires_at=format_optional_timestamp(event.expires_at),
        object_id=event.object_id,
        ordering_key=event.ordering_key,
        erased_at=format_optional_timestamp(event.erased_at),
        test=event.is_test,
        deliveries={name: event.deliveries.get(status, 0) for status, name in _STATUS_NAMES.items()},
    )


def one_event(event: Event, *, spans: bool) -> bytes:
    """Return an event with its body as JSON. If `spans` is true, the result contains the account.

    Copy the bytes of the body, because parsing would reformat its numbers.
    """
    rest = event_view(event, spans=spans).model_dump_json(exclude_unset=True).encode()
    return rest[:-1] + b',"body":' + (b"null" if event.body is None else event.body) + b"}"


def events_with_bodies(page: Page[Event] | StreamPage[Event], context: ServiceContext, *, spans: bool) -> bytes:
    """Return one page of events with their bodies as JSON. If `spans` is true, each event contains its account."""
    nothing: list[Event] = []
    rest = listed(page.of(nothing), str, context).model_dump_json(exclude_unset=True).encode()
    start = b'{"data":['
    return start + b",".join(one_event(event, spans=spans) for event in page.items) + rest.removeprefix(start)


def delivery_view(shown: ShownDelivery, *, spans: bool) -> DeliveryView:
    """Return the API model of a delivery. If `spans` is true, the model contains the account."""
    delivery, waiting = shown.delivery, shown.waiting
    is_open = delivery.status in OPEN
    failed = delivery.status is Status.FAILED and delivery.failed_reason is not None
    return DeliveryView(
        id=ids.delivery_id(delivery.event_id, delivery.endpoint_id),
        **account_field(delivery.account_id, spans=spans),
        event=ids.uuid_text(delivery.event_id),
        endpoint=ids.prefixed(ids.ENDPOINT, delivery.endpoint_id),
        type=delivery.type,
        object_id=delivery.object_id,
        test=delivery.is_test,
        status=_STATUS_NAMES[delivery.status],
        attempts_made=delivery.attempts_made,
        waiting_for=None if waiting is None else waiting.what,
        blocked_by=delivery.blocked_by,
        next_attempt_at=None if waiting is None else format_optional_timestamp(waiting.until),
        last_outcome=_outcome_text(delivery.last_outcome),
        created_at=format_timestamp(delivery.created_at),
        completed_at=None if is_open else format_optional_timestamp(delivery.completed_at),
        failed_reason=delivery.failed_reason.text if failed and delivery.failed_reason is not None else None,
    )


def attempt_view(attempt: Attempt, delivery: Delivery, *, spans: bool = False) -> AttemptView:
    """Return the API model of an attempt. If `spans` is true, the model contains the account."""
    answered = bool(attempt.response_head)
    return AttemptView(
        id=ids.attempt_id(delivery.event_id, delivery.endpoint_id, attempt.number),
        **account_field(delivery.account_id, spans=spans),
        delivery=ids.delivery_id(delivery.event_id, delivery.endpoint_id),
        event=ids.uuid_text(delivery.event_id),
        endpoint=ids.prefixed(ids.ENDPOINT, delivery.endpoint_id),
        number=attempt.number,
        trigger=_TRIGGER_NAMES[attempt.trigger],
        started_at=format_timestamp(attempt.started_at),
        duration_ms=round(attempt.duration_us / 1000, 1),
        timings=TimingsView(
            dns_ms=attempt.dns_ms,
            connect_ms=attempt.connect_ms,
            tls_ms=attempt.tls_ms,
            first_byte_ms=attempt.first_byte_ms,
        ),
        status_code=attempt.status_code,
        outcome=attempt.outcome.text,
        error=attempt.error,
        hint=_hint(attempt),
        remote_address=attempt.remote_address,
        request=RequestView(headers=headers_of(attempt.request_head)),
        response=ResponseView(
            headers=headers_of(mask_response_headers(attempt.response_head)),
            body=attempt.response_body.decode("utf-8", "replace"),
            body_truncated=attempt.body_truncated,
            first_line=first_line(attempt.response_body),
        )
        if answered
        else None,
    )


def signature_check_view(check: SignatureCheck) -> SignatureCheckView:
    """Return the API model of a signature check."""

    def view(test: EndpointTest | None) -> AttemptView | None:
        return None if test is None or test.attempt is None else attempt_view(test.attempt, test.delivery)

    return SignatureCheckView(
        verified=check.verified_at is not None,
        verified_at=format_optional_timestamp(check.verified_at),
        verdict=check.verdict.code,
        text=check.verdict.text,
        hint=check.verdict.hint,
        wrong_signature=view(check.wrong),
        valid_signature=view(check.valid),
    )


def explanation_view(explained: Explained) -> ExplanationView:
    """Return the API model of the explanation for an event and an endpoint."""
    delivery = explained.delivery
    return ExplanationView(
        endpoint=explained.endpoint,
        reason=explained.why.reason,
        text=explained.why.text,
        hint=explained.why.hint,
        delivery=None if delivery is None else ids.delivery_id(delivery.event_id, delivery.endpoint_id),
    )


def audit_view(entry: AuditEntry, *, spans: bool) -> AuditEntryView:
    """Return the API model of an audit log entry. If `spans` is true, the model contains the account, if any."""
    return AuditEntryView(
        at=format_timestamp(entry.at),
        **({} if entry.account_id is None else account_field(entry.account_id, spans=spans)),
        actor=ActorView(kind=_ACTOR_KINDS[entry.actor.kind], id=entry.actor.id, name=entry.actor.name),
        action=entry.action,
        subject=entry.subject,
        details=dict(entry.details),
        address=entry.actor.address,
    )


def replay_view(shown: ShownReplay, *, spans: bool) -> ReplayView:
    """Return the API model of a replay. If `spans` is true, the model contains the account."""
    replay, selection = shown.replay, shown.replay.selection
    return ReplayView(
        id=ids.prefixed(ids.REPLAY, replay.id),
        **account_field(replay.account_id, spans=spans),
        endpoint=ids.prefixed(ids.ENDPOINT, replay.endpoint_id),
        state=_REPLAY_STATE_NAMES[replay.state],
        reason=shown.reason,
        status=[_STATUS_NAMES[status] for status in selection.statuses],
        types=list(replay.types),
        outcome=[outcome.text for outcome in selection.outcomes],
        status_code=[status_code_text(*codes) for codes in selection.status_codes],
        object_id=selection.object_id,
        created_after=format_optional_timestamp(selection.created_after),
        created_before=format_optional_timestamp(selection.created_before),
        rate_per_second=replay.rate_per_second,
        include_missing=selection.missing is not None,
        total=replay.total if replay.is_counted else None,
        sent=replay.delivered + replay.failed,
        delivered=replay.delivered,
        failed=replay.failed,
        skipped=replay.skipped,
        created_at=format_timestamp(replay.created_at),
        updated_at=format_timestamp(replay.updated_at),
        completed_at=format_optional_timestamp(replay.completed_at),
    )


def replay_preview(preview: Preview) -> ReplayPreview:
    """Return the API model of a replay preview."""
    return ReplayPreview(
        count=preview.count,
        missing=preview.missing,
        oldest_at=format_optional_timestamp(preview.oldest_at),
        newest_at=format_optional_timestamp(preview.newest_at),
        complete=preview.complete,
        filtered=preview.filtered,
    )


def bulk_resend_preview(preview: BulkPreview) -> BulkResendPreview:
    """Return the API model of a bulk resend preview."""
    return BulkResendPreview(
        count=preview.count,
        oldest_at=format_optional_timestamp(preview.oldest_at),
        newest_at=format_optional_timestamp(preview.newest_at),
        complete=preview.complete,
        endpoints=[_share_view(each) for each in preview.endpoints],
    )


def bulk_resend_view(resend: BulkResend, *, spans: bool) -> BulkResendView:
    """Return the API model of a bulk resend. If `spans` is true, each replay in the model contains its account."""
    return BulkResendView(
        count=sum(each.replay.total for each in resend.replays),
        replays=[replay_view(each, spans=spans) for each in resend.replays],
        skipped=[_share_view(each) for each in resend.skipped],
    )


def _share_view(share: EndpointShare) -> EndpointShareView:
    return EndpointShareView(endpoint=share.endpoint, count=share.number, reason=share.reason)


def status_code_text(low: int, high: int) -> str:
    """Return a range of status codes in filter notation: a code, or a class such as `5xx`."""
    return str(low) if low == high else f"{low // 100}xx"


def headers_of(head: bytes) -> dict[str, str]:
    """Parse the headers of a request or response.

    Return the values by lowercase name. Join the values of repeated headers.
    """
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return headers


def _hint(attempt: Attempt) -> str | None:
    explanation = explain_attempt(attempt)
    return None if explanation is None else explanation.hint


def _outcome_text(outcome: Outcome | None) -> str | None:
    return None if outcome is None else outcome.text


def account_field(account_id: bytes, *, spans: bool) -> dict[str, Any]:
    """Return a dictionary with the field `account`, or an empty dictionary if `spans` is false.

    `spans` is true if the response can contain objects from several accounts.
    """
    return {"account": ids.prefixed(ids.ACCOUNT, account_id)} if spans else {}


def _only(**fields: str | None) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _decoded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
