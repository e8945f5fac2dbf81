"""Settler: writes the outcomes of attempts to the store in batches, one batch at a time.

While one batch commits, the settler gathers the next batch, so batches grow with the load. The outcome of a replay
delivery waits up to BATCH_WAIT_MS for other outcomes, because extra commits delay new events. If the settler cannot
write a batch, it blocks new attempts and retries the batch. Otherwise, a crash could lose more outcomes, and the server
would repeat the attempts.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from uplift_server.core.limits import SETTLE_BATCH_MAX, SETTLEMENTS_WAITING_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.ports import Clock, Handle, Shards
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.observe.counters import EngineCounters, SetAside
from uplift_server.store.contract import Database
from uplift_server.store.errors import Rejected, Unavailable
from uplift_server.store.hot_records import HealthRow, Settlement

_log = structlog.get_logger()

RETRY_MS: Final = 250
BATCH_WAIT_MS: Final = 20
"""The maximum time that the outcome of a replay delivery waits for other outcomes, in ms."""
HEALTH_SAVED_EVERY_MS: Final = 2000
"""The minimum time, in ms, between two writes of the health of an endpoint that stays healthy."""


class Settler:
    """Gathers the outcomes of deliveries, and writes them to the store in batches."""

    def __init__(
        self,
        database: Database,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        shards: Shards,
        clock: Clock,
        counters: EngineCounters,
        on_lines: Callable[[Sequence[AttemptLine]], None],
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._due = due
        self._shards = shards
        self._clock = clock
        self._counters = counters
        self._on_lines = on_lines
        self._gathered: list[Settlement] = []
        self._is_urgent = False
        """Whether to write the gathered outcomes without waiting for further outcomes."""
        self._flush_timer: Handle | None = None
        """The timer after which the outcomes of replay deliveries are written if no other outcome arrives."""
        self._parts_left: list[tuple[list[Settlement], dict[int, LiveEndpoint]]] = []
        """The parts of a rejected batch that are still to be written."""
        self._lines: list[AttemptLine] = []
        self._health: dict[int, LiveEndpoint] = {}
        self._writing: list[Settlement] | None = None
        """The outcomes that are being written. None if no batch is being written."""
        self._is_failing = False
        self._is_scheduled = False
        self._health_membership = shards.membership_id
        """The membership ID of this process when the health in `_health` was gathered."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._when_written: dict[tuple[int, int], Callable[[], None]] = {}

    def call_when_written(self, event_seq: int, endpoint_seq: int, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the next outcome of a delivery is stored or cannot be stored."""
        self._when_written[event_seq, endpoint_seq] = callback

    def is_settling(self, event_seq: int, endpoint_seq: int) -> bool:
        """Return whether the outcome of a delivery waits to be stored, or is being stored."""
        batches = (self._gathered, self._writing or (), *(batch for batch, _ in self._parts_left))
        key = event_seq, endpoint_seq
        return any((each.event_seq, each.endpoint_seq) == key for batch in batches for each in batch)

    def add(self, settlement: Settlement, line: AttemptLine | None = None) -> None:
        """Add the outcome of a delivery to the next batch."""
        self._gathered.append(settlement)
        if line is not None:
            self._lines.append(line)
        self._idle.clear()
        if len(self._gathered) >= SETTLEMENTS_WAITING_MAX:
            self._lanes.block()
        elif settlement.replay_seq is not None:
            if self._flush_timer is None and not self._is_urgent:
                self._flush_timer = self._clock.call_at(self._clock.now_ms() + BATCH_WAIT_MS, self._on_flush_timer)
            return
        self._is_urgent = True
        self._schedule()

    def flush(self) -> None:
        """Write the gathered outcomes now, or after the batch that is being written."""
        if self._gathered:
            self._is_urgent = True
            if self._may_write:
                self._write()

    def write_health(self) -> None:
        """Write the health that waits for the next batch, even if there is no outcome to write."""
        if self._health:
            self._idle.clear()
            self._is_urgent = True
            self._schedule()

    def note_health(self, endpoint: LiveEndpoint, now_ms: int) -> None:
        """Store the health of an endpoint with the next batch if the endpoint is failing.

        Do the same if the endpoint was failing when its health was last stored.
        Store the health of any other endpoint at most once every HEALTH_SAVED_EVERY_MS.
        """
        health = endpoint.health
        if (
            health.failing_since is not None
            or endpoint.health_saved_failing
            or now_ms - endpoint.health_saved_at >= HEALTH_SAVED_EVERY_MS
        ):
            endpoint.health_saved_at = now_ms
            self.keep_health(endpoint)

    def keep_health(self, endpoint: LiveEndpoint) -> None:
        """Store the health of an endpoint with the next batch."""
        endpoint.health_saved_failing = endpoint.health.failing_since is not None
        self._discard_lost_health()
        self._health[endpoint.seq] = endpoint

    def _discard_lost_health(self) -> None:
        """Discard the health of endpoints that this process owned before it was evicted."""
        if self._health_membership != self._shards.membership_id:
            self._health_membership = self._shards.membership_id
            self._health.clear()
            self._parts_left = [(batch, {}) for batch, _ in self._parts_left if batch]

    async def drain(self) -> None:
        """Write all gathered outcomes, and wait until the store contains these outcomes."""
        self.flush()
        await self._idle.wait()

    def _on_flush_timer(self) -> None:
        self._flush_timer = None
        self._is_urgent = True
        self._schedule()

    @property
    def _may_write(self) -> bool:
        return not self._is_scheduled and self._writing is None and not self._is_failing

    def _schedule(self) -> None:
        if self._may_write:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_scheduled = False
        self._discard_lost_health()
        if self._parts_left:
            batch, health = self._parts_left.pop()
        else:
            batch, self._gathered = self._gathered[:SETTLE_BATCH_MAX], self._gathered[SETTLE_BATCH_MAX:]
            health, self._health = self._health, {}
            if self._gathered:
                # Store an endpoint's health with its last outcome, so that no outcome is counted twice after a restart.
                later = {settlement.endpoint_seq for settlement in self._gathered}
                self._health = {seq: endpoint for seq, endpoint in health.items() if seq in later}
                health = {seq: endpoint for seq, endpoint in health.items() if seq not in later}
            self._is_urgent = bool(self._gathered)
            if self._flush_timer is not None:
                self._flush_timer.cancel()
                self._flush_timer = None
        # Each outcome has at most one log line, and the lines are in outcome order.
        lines_max = len(batch) if self._gathered else len(self._lines)
        lines, self._lines = self._lines[:lines_max], self._lines[lines_max:]
        self._writing = batch
        rows = [health_row(endpoint) for endpoint in health.values()]
        membership_id = self._shards.membership_id
        written = asyncio.ensure_future(self._database.settle(batch, rows, process_id=membership_id))
        written.add_done_callback(lambda future: self._written(batch, lines, health, membership_id, future))

    def _written(
        self,
        batch: list[Settlement],
        lines: list[AttemptLine],
        health: dict[int, LiveEndpoint],
        membership_id: int,
        written: "asyncio.Future[frozenset[tuple[int, int]]]",
    ) -> None:
        self._writing = None
        if written.cancelled():
            # The process is stopping, and the database did not respond in time.
            return
        error = written.exception()
        if membership_id != self._shards.membership_id:
            # The process was evicted during the write. The new owners have newer health.
            health = {}
        if isinstance(error, Unavailable):
            self._keep(batch, lines, health, error)
            return
        if error is not None:
            if batch or health:
                self._split(batch, health, error)
        else:
            self._discount_lost(batch, written.result())
            self._note_due(batch)
            self._notify_written(batch)
        if self._is_failing:
            _log.warning("outcome storage recovered")
            self._is_failing = False
        self._on_lines(lines)
        if self._is_urgent or self._parts_left:
            self._schedule()
        elif not self._gathered:
            self._idle.set()
        if self._lanes.blocked and len(self._gathered) < SETTLEMENTS_WAITING_MAX // 2:
            self._lanes.unblock()

    def _note_due(self, batch: list[Settlement]) -> None:
        """Count the stored outcomes by status, and record the next due times of the deliveries."""
        ended = self._counters.ended
        for settlement in batch:
            ended[settlement.status] += 1
            if settlement.due_at is not None:
                self._due.note_due(settlement.endpoint_seq, settlement.due_at)
            elif settlement.order_group is not None:
                # The next delivery of the order group is due now.
                self._due.note_due(settlement.endpoint_seq)

    def _keep(
        self, batch: list[Settlement], lines: list[AttemptLine], health: dict[int, LiveEndpoint], error: Unavailable
    ) -> None:
        """Keep a batch that the store could not write, block new attempts, and write the batch again later."""
        self._gathered = batch + self._gathered
        self._is_urgent = True
        self._lines = lines + self._lines
        self._health = health | self._health
        if not self._is_failing:
            _log.error("outcome storage failed", cause=str(error))
        self._is_failing = True
        self._lanes.block()
        self._clock.call_at(self._clock.now_ms() + RETRY_MS, self._write)

    def _split(self, batch: list[Settlement], health: dict[int, LiveEndpoint], error: BaseException) -> None:
        """Bisect a batch that the store rejected, to skip the rejected rows and write the other rows.

        In a batch of n rows, each rejected row causes about log2(n) more writes. If the store rejects an outcome,
        write it without its attempt. If the store rejects this too, prevent further attempts of the delivery until a
        restart.
        """
        if batch and health:
            self._parts_left += [(batch, {}), ([], health)]
        elif len(batch) > 1:
            half = len(batch) // 2
            self._parts_left += [(batch[half:], {}), (batch[:half], {})]
        elif len(health) > 1:
            items = list(health.items())
            half = len(items) // 2
            self._parts_left += [([], dict(items[half:])), ([], dict(items[:half]))]
        elif health:
            [seq] = health
            self._set_aside(SetAside.HEALTH, error, endpoint_seq=seq)
        elif batch[0].attempt is not None:
            [rejected] = batch
            self._set_aside(SetAside.ATTEMPT, error, **_key(rejected), number=rejected.attempts_made)
            self._parts_left.append(([rejected._replace(attempt=None, attempts_made=rejected.attempts_made - 1)], {}))
        else:
            [rejected] = batch
            self._set_aside(SetAside.DELIVERY, error, **_key(rejected))
            self._lanes.park(rejected.event_seq, rejected.endpoint_seq)
            self._notify_written(batch)

    def _set_aside(self, kind: SetAside, error: BaseException, **fields: int) -> None:
        self._counters.set_aside[kind] += 1
        defect = None if isinstance(error, Rejected) else error
        _log.error("row not stored", kind=kind.text, **fields, cause=str(error), exc_info=defect)

    def _notify_written(self, batch: list[Settlement]) -> None:
        if not self._when_written:
            return
        for settlement in batch:
            call = self._when_written.pop((settlement.event_seq, settlement.endpoint_seq), None)
            if call is not None:
                call()

    def _discount_lost(self, batch: list[Settlement], lost: frozenset[tuple[int, int]]) -> None:
        if lost:
            # Another process settled these deliveries after their lease ended, or a user cancelled them.
            _log.warning("late outcomes dropped", count=len(lost), batch_size=len(batch))
            for settlement in batch:
                if (settlement.event_seq, settlement.endpoint_seq) in lost:
                    self._counters.ended[settlement.status] -= 1


def _key(settlement: Settlement) -> dict[str, int]:
    return {"event_seq": settlement.event_seq, "endpoint_seq": settlement.endpoint_seq}


def health_row(endpoint: LiveEndpoint) -> HealthRow:
    """Return the health of an endpoint as a database row."""
    health = endpoint.health
    return HealthRow(
        endpoint.seq,
        health.consecutive_failures,
        health.failing_since,
        health.last_success_at,
        health.last_failure_at,
        health.last_outcome,
        health.excused_ms,
        health.last_status_code,
        health.last_error,
        health.last_location,
        health.probe_at,
    )
