"""Records for the hot path. The records are tuples or have slots to save memory and time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger


class OrderGroup(NamedTuple):
    """An order group, identified by its endpoint and its number."""

    endpoint_seq: int
    order_group: int


class NewDelivery(NamedTuple):
    """A delivery to store with its event.

    If `lease_owner` is not 0, the store leases the delivery to this process until `due_at`, with fence 1. However, if
    the order group of a pending delivery has an earlier open delivery, the store blocks the pending delivery and
    ignores its `due_at` and `lease_owner`.
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
    """The bytes of the caller's `data`, which are part of the body. Repeats of the event must have the same bytes."""
    object_id: str | None = None
    ordering_key: str | None = None
    is_server_id: bool = False
    """Whether the server, not the caller, chose the ID of an event from a stream.

    If true, `caller_chose_id` is also set, so that the server recognizes repeats of the event by the ID.
    """


class Appended(NamedTuple):
    """The result for one event. If `duplicate` is true, the event was already stored, with this ID and timestamp."""

    seq: int
    id: bytes
    created_at: int
    duplicate: bool = False
    blocked: Sequence[int] = ()
    """The numbers of the endpoints whose delivery for the event was stored as blocked."""


def with_blocked(
    results: "Sequence[list[Appended] | IdempotencyConflict]", blocked: Mapping[int, Sequence[int]]
) -> "list[list[Appended] | IdempotencyConflict]":
    """Return the results, with `blocked` set for each new event.

    The argument `blocked` contains, by event number, the endpoints whose delivery was stored as blocked.
    """
    return [
        [each if each.duplicate else each._replace(blocked=blocked.get(each.seq, ())) for each in result]
        if isinstance(result, list)
        else result
        for result in results
    ]


@dataclass(frozen=True, slots=True)
class IdempotencyConflict:
    """The rejection of a group: the event at `index` has the key or ID of a stored event with different content."""

    index: int
    field: str
    """The field with the conflict: `idempotency_key` or `id`."""
    event_id: bytes
    """The ID of the stored event that has this key or ID."""


class Lease(NamedTuple):
    """The key and fence of a leased delivery."""

    event_seq: int
    endpoint_seq: int
    fence: int


# Without `gc=False`, a garbage collection with 125,000 waiting deliveries stopped the server for 140 ms.
# No field may refer to a container, because Python would never free a cycle.
class LeasedDelivery(msgspec.Struct, gc=False):
    """A delivery that this process has leased, and may attempt until `lease_until` (Unix ms)."""

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
    """The number of the replay that resends the delivery, if any."""
    order_group: int | None = None
    wrong_signature: bool = False
    """Whether to sign the request with a wrong key, to test whether the receiver checks signatures."""


class Settlement(NamedTuple):
    """The new state of a leased delivery, after an attempt or without one.

    The store writes the settlement only if the delivery still has `fence`.
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
    """The number of the replay that counts this attempt, if any."""
    order_group: int | None = None


class AttemptRow(NamedTuple):
    """A row of the table `attempts`. The fields are in column order."""

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
    """An endpoint's health after a batch of settlements."""

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
    """An endpoint with waiting deliveries.

    `due_at` is the earliest due time (Unix ms), or None if all of these deliveries are blocked.
    """

    endpoint_seq: int
    due_at: int | None


class HeldRequest(NamedTuple):
    """A request to release up to `limit` held deliveries of an endpoint, for events with numbers above `after`."""

    endpoint_seq: int
    after: int
    limit: int


class Released(NamedTuple):
    """The result of a HeldRequest."""

    released: int
    expired: int
    """The number of deliveries that failed because their events had expired."""
    is_blocked: bool
    """Whether the endpoint still has due deliveries. If so, the request releases nothing."""


class LeaseRequest(NamedTuple):
    """A request to lease up to `limit` due deliveries of an endpoint."""

    endpoint_seq: int
    limit: int


class Candidate(NamedTuple):
    """A delivery that a replay has read. The replay can lease the delivery if it has not changed since the read."""

    delivery: LeasedDelivery
    """The delivery as it will be once it is leased, but without `lease_until` and `replay_seq`."""
    completed_at: int | None
    """The time when the delivery ended (Unix ms).

    None for an event without a delivery, for which the replay creates one.
    """
    ordering_key: str | None = None


class ReplayBatch(NamedTuple):
    """The next deliveries of a replay, sorted by event. The batch is complete up to the event number `through`."""

    candidates: Sequence[Candidate]
    through: int

    def after(self, event_seq: int) -> "ReplayBatch":
        """Return the batch with only the deliveries whose event number is higher than `event_seq`."""
        if not self.candidates or self.candidates[0].delivery.event_seq > event_seq:
            return self
        return ReplayBatch([each for each in self.candidates if each.delivery.event_seq > event_seq], self.through)


class ReplayLease(NamedTuple):
    """A request to lease deliveries for a replay: the process, the start and end of the lease, and the limits."""

    now: int
    until: int
    process_id: int
    limit: int
    outstanding_max: int
    body_bytes_max: int
    """The maximum total body size, in bytes, for deliveries that were returned to the replay unattempted.

    `read_replay_batch` limits the bodies of all other deliveries.
    """
    missing_after: int = 0
    """The replay creates missing deliveries only for events after this timestamp (Unix ms).

    Retention deletes older events.
    """
    ordering: Ordering = Ordering.NONE
    """The ordering setting for the deliveries that the replay creates."""


class ReplayRelease(NamedTuple):
    """The result of a ReplayLease: the leased deliveries, and the replay's progress once they are leased."""

    state: ReplayState
    leased: Sequence[LeasedDelivery]
    """The leased deliveries that have no order group."""
    ordered: int
    """The number of released deliveries that have an order group.

    The dispatcher leases them later, in event order.
    """
    outstanding: int
    """The number of the replay's deliveries that are waiting or in flight."""
    next_event_seq: int
