"""Checks of all rows against the reference model, after every day or every few days, and at the end."""

from collections import Counter, defaultdict
from typing import Any

from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.operations.statistics import total
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.store.records import DisabledReason, EndpointState
from uplift_server.store.statistics import ALL_ACCOUNTS, by_bucket

from .clock import DAY, HOUR, MINUTE, SECOND
from .deployment import Deployment
from .model import Delivery, Endpoint, Model, Violation
from .owners import note_state

DELIVERIES = (
    "SELECT e.id, d.endpoint_seq, d.status, d.failed_reason, d.scheduled_attempts, d.attempts_made, d.due_at,"
    " d.trigger, d.event_seq FROM deliveries d JOIN events e ON e.seq = d.event_seq"
    " ORDER BY d.event_seq, d.endpoint_seq"
)
ATTEMPTS = "SELECT event_seq, endpoint_seq, number, outcome, trigger FROM attempts ORDER BY seq"
WARN_TO_DISABLE_MS = 2 * DAY
DISABLE_AFTER_MS = 5 * DAY
STALLED_MS = 2 * HOUR


class Checks:
    """Compares rows with the model."""

    def __init__(self, deployment: Deployment, model: Model, *, retention_ms: int, disable_after_ms: int) -> None:
        self._deployment = deployment
        self._model = model
        self._retention_ms = retention_ms
        self._disable_after_ms = disable_after_ms
        self.network_downs: list[tuple[int, int]] = []
        """The periods in which our own network fails."""
        self.disabled = 0
        """The number of endpoints that the engine disabled."""
        self.is_guarded = False
        """Whether the world has enough endpoints for the engine to detect a mass failure."""

    async def _rows(self, query: str) -> list[Any]:
        rows = await self._deployment.database.read(lambda c: c.exec_driver_sql(query).all())
        return list(rows)

    async def run(self, *, final: bool) -> None:
        """Check everything. Raises Violation."""
        if self._deployment.defects:
            raise Violation(f"a loop failed: {self._deployment.defects[0]!r}")
        await self.check_states()
        rows = await self._rows(DELIVERIES)
        attempts = await self._rows(ATTEMPTS)
        self._check_deliveries(rows, final=final)
        self._check_attempts(rows, attempts)
        await self._check_erasures()
        if not self._retention_ms:
            await self._check_statistics(rows, attempts)

    # ---- deliveries

    def _check_deliveries(self, rows: list[Any], *, final: bool) -> None:
        model, now = self._model, self._model.time.now
        endpoints = {endpoint.seq: endpoint for endpoint in model.endpoints.values()}
        events = {event.id: event for event in model.events.values() if event.id is not None}
        kept_since = now - self._retention_ms + DAY if self._retention_ms else 0
        stored = {(bytes(row[0]), row[1]): row for row in rows}
        for event in events.values():
            if event.accepted_at is None or event.accepted_at < kept_since:
                continue
            for endpoint in event.expected:
                if (event.id, endpoint.seq) not in stored:
                    raise Violation(f"lost: event {event.n} has no delivery to {endpoint.host}")
        for (event_id, endpoint_seq), row in stored.items():
            event, endpoint = events.get(event_id), endpoints.get(endpoint_seq)
            if endpoint is None or row[7] == Trigger.TEST:
                continue
            if event is None:
                # The event was accepted, but the response was lost. The model knows only that the deliveries must end.
                if final and Status(row[2]) in (Status.PENDING, Status.HELD):
                    raise Violation(f"a delivery to {endpoint.host} has not ended: {row}")
                continue
            self._check_delivery(model.delivery(event, endpoint), row, final=final)

    def _check_delivery(self, delivery: Delivery, row: Any, *, final: bool) -> None:
        event, endpoint, model, now = delivery.event, delivery.endpoint, self._model, self._model.time.now
        status, name = Status(row[2]), f"event {delivery.event.n} to {delivery.endpoint.host}"
        successes = [sent for sent in delivery.sent if sent.is_success and sent.ended_at is not None]
        is_certain = any(
            sent.is_reported and not model.has_fault(sent.at, (sent.ended_at or now) + MINUTE, process=sent.process)
            for sent in successes
        )
        is_manual = delivery.manual_at is not None
        if row[4] > endpoint.attempts_max():
            raise Violation(f"{row[4]} attempts, more than the schedule has: {name}")
        if status is Status.DELIVERED and not successes:
            raise Violation(f"delivered without a successful attempt: {name}")
        if is_certain and status is not Status.DELIVERED and not (is_manual or event.is_erased):
            raise Violation(f"{status.text} after a successful attempt: {name}")
        if status is Status.CANCELLED and not (
            delivery.may_have_ended or is_manual or event.is_erased or endpoint.deleted_at is not None
        ):
            raise Violation(f"cancelled without a user: {name}")
        is_exhausted = status is Status.FAILED and row[3] == FailedReason.EXHAUSTED
        # Ignore manual deliveries: a replay can create the delivery of a missing event, which fails after one attempt.
        if is_exhausted and row[4] < endpoint.attempts_min() and not is_manual:
            raise Violation(f"retries exhausted after {row[4]} attempts: {name}")
        if status is Status.FAILED and row[3] == FailedReason.EXPIRED and event.expires_at is None:
            raise Violation(f"expired without a time: {name}")
        if final and status in (Status.PENDING, Status.HELD):
            raise Violation(f"{status.text} at the end: {name} {tuple(row)}")
        if status is Status.PENDING and not is_manual and self._is_stalled(endpoint, row[6]):
            raise Violation(f"a delivery is due since {(now - row[6]) // SECOND} s: {name}")
        if not delivery.sent and model.must_be_prompt(delivery) and now - (event.accepted_at or now) > MINUTE:
            raise Violation(f"no attempt to a steady receiver: {name}")

    def _is_stalled(self, endpoint: Endpoint, due_at: int | None) -> bool:
        now = self._model.time.now
        return (
            due_at is not None and due_at < now - STALLED_MS and endpoint.is_steady and not endpoint.is_off
            and endpoint.changed_at < now - STALLED_MS and endpoint.ordering == "none"
            and not self._model.has_fault(now - STALLED_MS, now)
            # Without a network, all circuit breakers are open, and each endpoint has one attempt in 5 minutes.
            and not any(since <= now <= until for since, until in self.network_downs)
        )  # fmt: skip

    def _check_attempts(self, rows: list[Any], attempts: list[Any]) -> None:
        numbers: dict[tuple[int, int], list[int]] = defaultdict(list)
        for attempt in attempts:
            numbers[attempt[0], attempt[1]].append(attempt[2])
        for row in rows:
            found = numbers[row[8], row[1]]
            if found != list(range(1, row[5] + 1)):
                raise Violation(f"a delivery with {row[5]} attempts has these: {found}")

    async def _check_erasures(self) -> None:
        done = await self._rows("SELECT e.id, e.erased_at FROM events e WHERE e.erased_at IS NOT NULL")
        erased = {bytes(row[0]): row[1] for row in done}
        model = self._model
        for delivery in model.deliveries.values():
            at = erased.get(delivery.event.id or b"")
            if at is None:
                continue
            for sent in delivery.sent:
                if sent.at > at + model.seen_within_ms and not model.has_fault(at, sent.at, process=sent.process):
                    raise Violation(f"erased event {delivery.event.n} is sent")

    # ---- statistics

    async def _check_statistics(self, rows: list[Any], attempts: list[Any]) -> None:
        own = [row for row in rows if row[7] != Trigger.TEST]
        recorded = [row for row in attempts if row[4] != Trigger.TEST]
        buckets = await self._deployment.database.read(lambda c: by_bucket(c, [ALL_ACCOUNTS], since=0))
        totals = total(each for _, each in buckets[ALL_ACCOUNTS])
        if (totals.deliveries, totals.attempts) != (len(own), len(recorded)):
            found = (totals.deliveries, totals.attempts)
            raise Violation(f"statistics count {found} deliveries and attempts, not {(len(own), len(recorded))}")
        if totals.outcomes != Counter(row[3] for row in recorded):
            raise Violation(f"statistics count these outcomes: {totals.outcomes}")
        ended = Counter(Status(row[2]) for row in own)
        counted = {status: getattr(totals, status.text) for status in Status}
        if counted != {status: ended[status] for status in Status}:
            raise Violation(f"statistics count {counted}, not {ended}")

    # ---- endpoints

    async def check_states(self) -> None:
        """Note the endpoints that the engine disabled. Each must have failed for days, and must have had a warning."""
        model = self._model
        query = "SELECT seq, state, disabled_reason, state_since FROM endpoints WHERE deleted_at IS NULL ORDER BY seq"
        states = {row[0]: row for row in await self._rows(query)}
        for endpoint in model.endpoints.values():
            row = states.get(endpoint.seq)
            if endpoint.deleted_at is not None:
                continue
            if row is None:
                raise Violation(f"the endpoint {endpoint.host} is deleted without a user")
            state = EndpointState(row[1])
            if (state is not EndpointState.ENABLED) == endpoint.is_off:
                continue
            if state is not EndpointState.DISABLED or row[2] != DisabledReason.FAILING:
                raise Violation(f"the endpoint {endpoint.host} is {state.text} without a user")
            self.disabled += 1
            await self._check_disabled(endpoint, row[3])
            note_state(model, endpoint, state, row[3])

    async def _check_disabled(self, endpoint: Endpoint, at: int) -> None:
        name = endpoint.host
        self._model.note(f"the engine disabled {name}")
        # The engine does not know of a success before it has stored the outcome.
        successes = [each for each in endpoint.successes if each <= at - SECOND]
        if successes and at - successes[-1] < self._disable_after_ms - HOUR:
            raise Violation(f"{name} was disabled {(at - successes[-1]) // HOUR} h after a success")
        query = (
            "SELECT at FROM audit_log WHERE action = 'endpoint.warned' AND subject = 'ep_"
            f"{endpoint.id.hex()}' ORDER BY at DESC LIMIT 1"
        )
        warned = await self._rows(query)
        if not warned or at - warned[0][0] < WARN_TO_DISABLE_MS - MINUTE:
            raise Violation(f"{name} was disabled without an earlier warning")
        query = (
            f"SELECT count(*) FROM notices WHERE kind = {int(NotificationKind.ENDPOINT_WARNED)}"
            # The clock of the process that sent the email can be ahead of the clock of the process that disabled the
            # endpoint.
            f" AND sent_at IS NOT NULL AND sent_at <= {at + MINUTE} AND created_at >= {warned[0][0] - HOUR}"
        )
        if not (await self._rows(query))[0][0]:
            raise Violation(f"{name} was disabled before the warning email was sent")
        if self.is_guarded and any(since <= at <= until for since, until in self.network_downs):
            raise Violation(f"{name} was disabled during a mass failure")
