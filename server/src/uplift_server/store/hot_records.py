"""What the hot verbs take and give: made for every event, hence tuples and slots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger


class NewDelivery(NamedTuple):
    """A delivery to be stored with its event.

    `lease_owner` other than 0 stores it already leased until `due_at`, with fence 1.
    """

    endpoint_seq: int
    status: int
    due_at: int | None
    lease_owner: int = 0


class NewEvent(NamedTuple):
    """An event to be stored with its deliveries, in one commit."""

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
    """The caller's `data` within the body: what a repeat is compared with."""


class Appended(NamedTuple):
    """What became of one event: `duplicate` ones were stored before, under this id and instant."""

    seq: int
    id: bytes
    created_at: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class IdempotencyConflict:
    """Why a group of events was refused: the key (or id) of the event at `index` belongs to other content."""

    index: int
    field: str
    """`idempotency_key` or `id`."""
    event_id: bytes
    """The event that has it."""


class Lease(NamedTuple):
    """A lease that a process holds, without what it is for."""

    event_seq: int
    endpoint_seq: int
    fence: int


@dataclass(slots=True)
class LeasedDelivery:
    """A delivery this process may attempt until `lease_until` (Unix ms)."""

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
    """The replay it belongs to, if any."""


class Settlement(NamedTuple):
    """What is to be written after an attempt, or when a leased delivery ends without one.

    Written only while the delivery still has `fence`.
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


class AttemptRow(NamedTuple):
    """One attempt as it is stored, in the order of its columns."""

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
    """An endpoint's health as it stands after a batch of settlements."""

    endpoint_seq: int
    consecutive_failures: int
    failing_since: int | None
    last_success_at: int | None
    last_failure_at: int | None
    last_outcome: int | None
    excused_ms: int = 0


class DueEndpoint(NamedTuple):
    """An endpoint with waiting deliveries and the instant of its earliest."""

    endpoint_seq: int
    due_at: int


class HeldRequest(NamedTuple):
    """A request to release held deliveries of an endpoint: at most `limit`, of events after the event `after`."""

    endpoint_seq: int
    after: int
    limit: int


class Released(NamedTuple):
    """The result of a HeldRequest."""

    released: int
    expired: int
    """How many failed instead, since their event had expired."""
    waits: bool
    """Whether nothing was done, since something due waits for the endpoint already."""


class LeaseRequest(NamedTuple):
    """A request to lease due deliveries of an endpoint, at most `limit`."""

    endpoint_seq: int
    limit: int


class Candidate(NamedTuple):
    """A delivery that a replay may lease as it was read, unless it has changed since."""

    delivery: LeasedDelivery
    """As it will be leased, but for `lease_until` and `replay_seq`."""
    completed_at: int


class Ahead(NamedTuple):
    """What a replay comes to next, in order of the events; there is nothing else up to the event `through`."""

    candidates: Sequence[Candidate]
    through: int

    def after(self, event_seq: int) -> "Ahead":
        """What comes after an event."""
        if not self.candidates or self.candidates[0].delivery.event_seq > event_seq:
            return self
        return Ahead([each for each in self.candidates if each.delivery.event_seq > event_seq], self.through)


class ReplayLease(NamedTuple):
    """Until when and for whom a replay leases deliveries, and how many it may have then."""

    now: int
    until: int
    owner: int
    limit: int
    outstanding_max: int
    body_bytes_max: int
    """Of what it takes again; what lies ahead has been bounded by whoever read it."""


class ReplayRelease(NamedTuple):
    """What a replay has let go, and how it stands then."""

    state: ReplayState
    leased: Sequence[LeasedDelivery]
    outstanding: int
    """How many wait for their attempt or have it."""
    next_event_seq: int
