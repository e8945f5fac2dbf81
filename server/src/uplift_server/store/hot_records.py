"""Records of the hot path. They are tuples or have slots, because every event creates several records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger


class OrderGroup(NamedTuple):
    """An endpoint, and an order group of its deliveries."""

    endpoint_seq: int
    order_group: int


class NewDelivery(NamedTuple):
    """A delivery to store with its event.

    If `lease_owner` is not 0, the delivery is stored as leased until `due_at`, with fence 1. If its order group has an
    earlier open delivery, a pending delivery is stored as blocked instead.
    """

    endpoint_seq: int
    status: int
    due_at: int | None
    lease_owner: int = 0
    order_group: int | None = None


class NewEvent(NamedTuple):
    """An event to store with its deliveries in one commit."""

    id: bytes
    account_seq: int
    type_seq: int
    created_at: int
    expires_at: int | None
    body: bytes
    deliveries: Sequence[NewDelivery] = ()
    idempotency_key: str | None = None
    caller_chose_id: bool = False
    data: bytes = b""
    """The caller's `data` within the body, to compare with repeats."""
    object_id: str | None = None
    ordering_key: str | None = None
    is_server_id: bool = False
    """Whether the server created the ID, although `caller_chose_id` is set.

    Only a repeat of the event can have the same ID.
    """


class Appended(NamedTuple):
    """The result for one event. If `duplicate` is true, the event was stored before, with this ID and timestamp."""

    seq: int
    id: bytes
    created_at: int
    duplicate: bool = False
    blocked: Sequence[int] = ()
    """The endpoints whose delivery was stored as blocked."""


def with_blocked(
    results: "Sequence[list[Appended] | IdempotencyConflict]", blocked: Mapping[int, Sequence[int]]
) -> "list[list[Appended] | IdempotencyConflict]":
    """Return the results of groups. Add to each new event the endpoints of its blocked deliveries."""
    return [
        [each if each.duplicate else each._replace(blocked=blocked.get(each.seq, ())) for each in result]
        if isinstance(result, list)
        else result
        for result in results
    ]


@dataclass(frozen=True, slots=True)
class IdempotencyConflict:
    """Rejection of a group of events: the key or ID of the event at `index` belongs to different content."""

    index: int
    field: str
    """The field that conflicts: `idempotency_key` or `id`."""
    event_id: bytes
    """The ID of the stored event with this key or chosen ID."""


class Lease(NamedTuple):
    """The key and fence of a leased delivery."""

    event_seq: int
    endpoint_seq: int
    fence: int


# Without `gc=False`, a garbage collection with 125,000 waiting deliveries stopped the server for 140 ms.
# No field may refer to a container, because Python would never free a cycle.
class LeasedDelivery(msgspec.Struct, gc=False):
    """A delivery that this process may attempt until `lease_until` (Unix ms)."""

    event_seq: int
    endpoint_seq: int
    fence: int
    lease_until: int
    attempts_made: int
    scheduled_attempts: int
    trigger: Trigger
    event_id: bytes
    type_seq: int
    created_at: int
    expires_at: int | None
    body: bytes
    resume_status: Status | None = None
    resume_due_at: int | None = None
    replay_seq: int | None = None
    """The replay of the delivery, if any."""
    order_group: int | None = None
    wrong_signature: bool = False
    """Whether to sign the request with a wrong key on purpose, for a test."""


class Settlement(NamedTuple):
    """The outcome of an attempt, or the end of a leased delivery without an attempt.

    The settlement is written only if the delivery still has `fence`.
    """

    event_seq: int
    endpoint_seq: int
    fence: int
    status: int
    due_at: int | None
    attempts_made: int
    scheduled_attempts: int
    last_outcome: int | None
    failed_reason: int | None
    completed_at: int | None
    attempt: "AttemptRow | None"
    replay_seq: int | None = None
    """The replay that counts this attempt, if any."""
    order_group: int | None = None


class AttemptRow(NamedTuple):
    """An attempt. The fields are in the order of the columns."""

    event_seq: int
    endpoint_seq: int
    number: int
    trigger: int
    started_at: int
    duration_us: int
    dns_ms: int | None
    connect_ms: int | None
    tls_ms: int | None
    first_byte_ms: int | None
    status_code: int | None
    outcome: int
    error: str | None
    location: str | None
    remote_address: str | None
    request_head: bytes
    response_head: bytes
    response_body: bytes
    body_truncated: bool


class HealthRow(NamedTuple):
    """The health of an endpoint after a batch of settlements."""

    endpoint_seq: int
    consecutive_failures: int
    failing_since: int | None
    last_success_at: int | None
    last_failure_at: int | None
    last_outcome: int | None
    excused_ms: int = 0
    last_status_code: int | None = None
    last_error: str | None = None
    last_location: str | None = None
    probe_at: int | None = None


class DueEndpoint(NamedTuple):
    """An endpoint with waiting deliveries, and the earliest due time; None if all deliveries are blocked."""

    endpoint_seq: int
    due_at: int | None


class HeldRequest(NamedTuple):
    """A request to release at most `limit` held deliveries of an endpoint, from the first event after `after`."""

    endpoint_seq: int
    after: int
    limit: int


class Released(NamedTuple):
    """The result of a HeldRequest."""

    released: int
    expired: int
    """The number of deliveries that failed because their event had expired."""
    is_blocked: bool
    """Whether nothing was released because the endpoint has due deliveries."""


class LeaseRequest(NamedTuple):
    """A request to lease at most `limit` due deliveries of an endpoint."""

    endpoint_seq: int
    limit: int


class Candidate(NamedTuple):
    """A delivery that a replay can lease, unless the delivery has changed since it was read."""

    delivery: LeasedDelivery
    """The delivery after its lease, without `lease_until` and `replay_seq`."""
    completed_at: int | None
    """The time when the delivery ended. None for an event without a delivery, for which the replay creates one."""
    ordering_key: str | None = None


class ReplayBatch(NamedTuple):
    """The next deliveries of a replay, in the order of events: all up to the event `through`."""

    candidates: Sequence[Candidate]
    through: int

    def after(self, event_seq: int) -> "ReplayBatch":
        """Return the batch without the deliveries of events up to the number `event_seq`."""
        if not self.candidates or self.candidates[0].delivery.event_seq > event_seq:
            return self
        return ReplayBatch([each for each in self.candidates if each.delivery.event_seq > event_seq], self.through)


class ReplayLease(NamedTuple):
    """The process and the time of the lease that a replay takes, and the limits of the replay."""

    now: int
    until: int
    process_id: int
    limit: int
    outstanding_max: int
    body_bytes_max: int
    """The maximum total size of the bodies of deliveries returned to the replay, in bytes.

    The limit for other deliveries applies when the batch is read.
    """
    missing_after: int = 0
    """The replay creates deliveries only for events after this time (Unix ms), because retention deletes older
    events."""
    ordering: Ordering = Ordering.NONE
    """The ordering of the deliveries that the replay creates."""


class ReplayRelease(NamedTuple):
    """The deliveries that a replay has released, and its progress."""

    state: ReplayState
    leased: Sequence[LeasedDelivery]
    """The leased deliveries. None of them is ordered."""
    ordered: int
    """The number of ordered deliveries. The dispatcher leases them in the order of their events."""
    outstanding: int
    """The number of the replay's deliveries that are waiting or in flight."""
    next_event_seq: int
