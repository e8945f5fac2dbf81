"""User commands for a delivery or an endpoint: cancel, resend, and test.

The process that owns the endpoint executes the commands.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from uplift_server.core import ids
from uplift_server.core.deliveries import test_events
from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.object_ids import object_id_of
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.test_deliveries import Busy, RunningTests
from uplift_server.observe.counters import EngineCounters
from uplift_server.store import audit, deliveries, endpoint_backlog, endpoints, idempotency, test_deliveries
from uplift_server.store.commands import Command, CommandKind, NewTest, Result
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.errors import Conflict, StoreError
from uplift_server.store.hot_records import LeasedDelivery, NewEvent

Finish = Callable[[Transaction, Result], None]
"""A function that runs in the same transaction as a command."""


class TestRejected(Exception):
    """The test cannot start now."""

    __test__ = False

    def __init__(self, busy: Busy) -> None:
        super().__init__(busy.value)
        self.busy = busy


class Commands(Protocol):
    """The interface that executes commands, in this process or another process."""

    async def execute(self, command: Command) -> Result:
        """Execute a command, or store it for the process that owns the endpoint.

        Raises Conflict, Missing, TestRejected or Unavailable.
        """

    async def wait_for_test(self, endpoint_seq: int, within_ms: int) -> None:
        """Wait for the outcome of the endpoint's test, for at most `within_ms`.

        The wait can end before the outcome is stored, so the caller must check the store for the outcome.
        """


class _SentBefore(Conflict):
    """The request repeats an earlier request that has already sent a test."""

    def __init__(self, event_id: bytes) -> None:
        super().__init__("sent before")
        self.event_id = event_id


class LocalCommands:
    """Executes commands for the endpoints of this process."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        dispatcher: Dispatcher,
        tests: RunningTests,
        clock: Clock,
        counters: EngineCounters,
        *,
        lease_ms: int,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._tests = tests
        self._clock = clock
        self._counters = counters
        self._lease_ms = lease_ms

    async def execute(self, command: Command, finish: Finish = lambda _connection, _result: None) -> Result:
        """Execute a command, and call `finish` in the transaction that stores the change.

        Raises InFlight (a subclass of Conflict) if an attempt is in flight or another process has leased the delivery.
        Also raises the other errors of `Commands.execute`.
        """
        if command.kind is CommandKind.START:
            return await self._start(command, finish)
        if command.test is not None:
            return await self._test(command, command.test, finish)
        withdrawn = self._lanes.withdraw(command.endpoint_seq, command.event_seq)
        fence, result = None if withdrawn is None else withdrawn.fence, Result()
        try:
            leased = await self.decide(command, lambda c: finish(c, result), fence, process_id=self._shards.process_id)
        except StoreError:
            if withdrawn is not None:
                self._dispatcher.release_lease(withdrawn)
            raise
        if command.kind is CommandKind.CANCEL:
            # The next delivery of the same order group may be due now.
            self._dispatcher.note_due(command.endpoint_seq)
        self._attempt_now(leased)
        return result

    async def decide(
        self, command: Command, also: Callable[[Transaction], None], fence: int | None = None, *, process_id: int = 0
    ) -> LeasedDelivery | None:
        """Cancel or resend a delivery. For a resend, return the delivery, leased to the process `process_id`.

        If `process_id` is 0, do not lease the delivery, but make it due now. Call `also` in the transaction that
        changes the delivery. Raises InFlight (a subclass of Conflict) if the delivery has a lease with a fence other
        than `fence`. Also raises Conflict, Missing or Unavailable.
        """
        now = self._clock.now_ms()
        endpoint_seq, event_seq = command.endpoint_seq, command.event_seq

        def change(connection: Transaction) -> LeasedDelivery | None:
            also(connection)
            audit.add(connection, replace(command.entry, at=now))
            if command.kind is CommandKind.CANCEL:
                endpoint_backlog.cancel(connection, event_seq, endpoint_seq, fence=fence, now=now)
                return None
            lease_until = now + self._lease_ms
            return deliveries.start_resend(
                connection,
                event_seq,
                endpoint_seq,
                fence=fence,
                now=now,
                lease_until=lease_until,
                process_id=process_id,
            )

        leased = await self._database.write(change)
        if command.kind is CommandKind.CANCEL:
            self._counters.ended[Status.CANCELLED] += 1
        return leased

    async def wait_for_test(self, endpoint_seq: int, within_ms: int) -> None:
        """Wait for the outcome of the endpoint's test, for at most `within_ms`.

        The wait can end before the outcome is stored, so the caller must check the store for the outcome.
        """
        await self._tests.wait(endpoint_seq, within_ms)

    async def _start(self, command: Command, finish: Finish) -> Result:
        def lease(connection: Transaction) -> LeasedDelivery | None:
            finish(connection, Result())
            return deliveries.lease_resend(
                connection,
                command.event_seq,
                command.endpoint_seq,
                lease_until=self._clock.now_ms() + self._lease_ms,
                process_id=self._shards.process_id,
            )

        self._attempt_now(await self._database.write(lease))
        return Result()

    async def _test(self, command: Command, test: NewTest, finish: Finish) -> Result:
        """Take a slot for a test, store the test, and send it."""
        event = self._event(command, test)
        busy = self._tests.take_slot(command.endpoint_seq)
        if busy is not None:
            raise TestRejected(busy)
        result = Result(event_id=test.event_id)

        def store_test(connection: Transaction, event_seq: int) -> LeasedDelivery:
            if not endpoints.exists(connection, command.endpoint_seq):
                raise TestRejected(Busy.DELETED)
            finish(connection, result)
            event_id, sent_before = idempotency.create_once(
                connection,
                test.request,
                object_id=event.id,
                now=event.created_at,
                create=lambda: event.id,
                load=lambda earlier: earlier,
            )
            if sent_before:
                raise _SentBefore(event_id)
            audit.add(connection, replace(command.entry, at=event.created_at))
            lease_until = event.created_at + self._lease_ms
            return test_deliveries.begin(
                connection,
                event,
                event_seq,
                lease_until=lease_until,
                process_id=self._shards.process_id,
                wrong_signature=test.wrong_signature,
            )

        try:
            leased = await self._database.append_then(event, store_test)
        except BaseException as error:
            self._tests.abandon(command.endpoint_seq)
            if isinstance(error, _SentBefore):
                return Result(event_id=error.event_id, repeated=True)
            raise
        self._tests.send(leased)
        return result

    def _event(self, command: Command, test: NewTest) -> NewEvent:
        now, event_type = self._clock.now_ms(), self._cache.event_types_by_seq[test.type_seq]
        data = test_events.data_from_example(event_type.record.example)
        return NewEvent(
            id=test.event_id,
            account_seq=command.account_seq,
            type_seq=event_type.seq,
            created_at=now,
            expires_at=None,
            body=envelope.build_test(
                ids.uuid_text(test.event_id), event_type.name, event_type.record.api_version, now, data
            ),
            deliveries=[test_deliveries.new_delivery(command.endpoint_seq)],
            data=data,
            object_id=object_id_of(data),
        )

    def _attempt_now(self, delivery: LeasedDelivery | None) -> None:
        """Start the attempt for a resend now, or queue the delivery. If neither is possible, release its lease."""
        if delivery is None:
            return
        endpoint = self._cache.endpoints.get(delivery.endpoint_seq)
        if endpoint is None or not self._lanes.start_now(self._lanes.of(endpoint), delivery):
            self._dispatcher.release_lease(delivery)
