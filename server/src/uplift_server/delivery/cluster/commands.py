"""Commands for endpoints that other processes own: the owner reads the commands from the database and executes them.

If a delivery has no lease, the process that receives the request cancels or resends the delivery directly in the
database. After a resend, a start command makes the owner attempt the delivery soon.

If the owner has leased the delivery, the process stores a command for the owner and waits for its result. The owner
cancels or resends the delivery if it waits in the owner's memory. While an attempt is in flight, the result is a
conflict. If there is no result in time, the API responds with 202, and the command stays in the database until an owner
executes it.
"""

import asyncio
from typing import Final

import structlog

from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import Clock, Peers, Shards
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.commands import LocalCommands, TestRejected
from uplift_server.delivery.sending.test_deliveries import Busy
from uplift_server.store import commands
from uplift_server.store.commands import AlreadyExecuted, Command, CommandKind, NewTest, PendingCommand, Result
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.errors import Conflict, InFlight, Missing, Unavailable
from uplift_server.store.idempotency import KeyReused

READ_EVERY_MS: Final = 1_000
REREAD_MS: Final = 50
"""The poll interval, in ms, while the owner's cache does not contain the endpoint or event type of a command. The owner
waits at most KNOWN_WITHIN_MS."""
KNOWN_WITHIN_MS: Final = 1_000
RESULT_WITHIN_MS: Final = 2_500
"""How long a caller waits for the result of a command, in ms."""
POLL_MS: Final = 100
UNAVAILABLE_WAIT_MS: Final = 500
_DEFECT: Final = "The server could not execute the command. See its log for the cause."
_log = structlog.get_logger()


class ClusteredCommands:
    """Executes commands for the endpoints of this process, and stores commands for other endpoints."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        clock: Clock,
        notifier: Notifier,
        local: LocalCommands,
        lanes: DeliveryLanes,
        peers: Peers,
        cache_sync: CacheSync,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._clock = clock
        self._notifier = notifier
        self._local = local
        self._lanes = lanes
        self._peers = peers
        self._cache_sync = cache_sync
        self._wake = asyncio.Event()
        self._result_stored = asyncio.Event()
        """The asyncio event for callers that wait for a result.

        If another process may have stored a result, `wake` sets the event and replaces it with a new event.
        """

    async def execute(self, command: Command) -> Result:
        """Execute a command, or store it for the process that owns the endpoint.

        Raises Conflict, Missing, TestRejected or Unavailable.
        """
        if self._shards.owns(command.endpoint_seq):
            return await self._local.execute(command)
        if command.test is None:
            try:
                await self._local.decide(command, lambda connection: self._start_soon(connection, command))
            except InFlight:
                pass
            else:
                self._notifier.notify_commands()
                self._notifier.notify_due([command.endpoint_seq])
                return Result()
        elif not self._any_process_sends():
            raise TestRejected(Busy.STOPPED)
        return await self._leave_to_owner(command)

    def _any_process_sends(self) -> bool:
        return not self._lanes.stopped or any(each.delivers for each in self._peers.others())

    async def wait_for_test(self, endpoint_seq: int, within_ms: int) -> None:
        """Wait for the outcome of the endpoint's test, for at most `within_ms`.

        The wait can end before the outcome is stored.
        """
        await self._local.wait_for_test(endpoint_seq, within_ms)

    def wake(self) -> None:
        """Read commands and results now, because another process has stored a command or a result."""
        self._wake.set()
        self._result_stored.set()
        self._result_stored = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Execute commands for the endpoints of this process until the process stops or the task is cancelled."""
        while not stopping.is_set():
            self._wake.clear()
            try:
                wait_ms = REREAD_MS if await self._execute_own() else READ_EVERY_MS
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            await self._clock.wait(self._wake, wait_ms)

    def _start_soon(self, connection: Transaction, command: Command) -> None:
        """If the command is a resend, also store a start command, so that the owner makes the attempt immediately."""
        if command.kind is CommandKind.RESEND:
            start = Command(
                CommandKind.START, command.account_seq, command.endpoint_seq, command.entry, command.event_seq
            )
            try:
                commands.add(connection, start, now=self._clock.now_ms())
            except commands.TooManyCommands:
                # The start command is optional, because the owner's dispatcher leases due deliveries anyway.
                return

    async def _leave_to_owner(self, command: Command) -> Result:
        now = self._clock.now_ms()
        seq = await self._database.write(lambda c: commands.add(c, command, now=now))
        self._notifier.notify_commands()
        until = now + RESULT_WITHIN_MS
        while (result := await self._result(seq)) is None:
            if self._clock.now_ms() >= until:
                if command.test is None:
                    return Result(is_executed=False)
                return await self._withdraw(seq)
            await self._clock.wait(self._result_stored, POLL_MS)
        return _checked(result)

    async def _withdraw(self, seq: int) -> Result:
        """Withdraw a test that the owner has not started in time, and raise TestRejected.

        If the owner has executed the command in the meantime, return its result or raise its error.
        """
        rejected = _result_of(TestRejected(Busy.STOPPED))
        try:
            await self._database.write(lambda c: commands.finish(c, seq, rejected, now=self._clock.now_ms()))
        except AlreadyExecuted:
            return _checked(await self._result(seq) or rejected)
        return _checked(rejected)

    async def _result(self, seq: int) -> Result | None:
        return await self._database.read_with_priority(lambda c: commands.get_result(c, seq))

    async def _execute_own(self) -> bool:
        """Execute the stored commands for the endpoints of this process.

        Return whether a command must wait because the cache does not contain its endpoint or event type.
        """
        now = self._clock.now_ms()
        found, have_expired = await self._database.read_with_priority(lambda c: commands.list_pending(c, now=now))
        if have_expired:
            await self._database.write(lambda c: commands.remove_expired(c, now=now))
        own = [each for each in found if self._shards.owns(each.command.endpoint_seq)]
        unknown = [each for each in own if not self._is_known(each.command)]
        new = [each for each in unknown if now - each.created_at < KNOWN_WITHIN_MS]
        # If the endpoint of an older command is still unknown, the endpoint was deleted.
        # Execute a cancel or resend even then, because it needs only the delivery.
        ready = [each for each in own if each not in unknown or (each not in new and each.command.test is None)]
        for each in ready:
            await self._execute(each)
        if ready:
            self._notifier.notify_commands()
        if new:
            self._cache_sync.wake()
        return bool(new)

    def _is_known(self, command: Command) -> bool:
        test: NewTest | None = command.test
        return command.endpoint_seq in self._cache.endpoints and (
            test is None or test.type_seq in self._cache.event_types_by_seq
        )

    async def _execute(self, waiting: PendingCommand) -> None:
        """Execute a command and store its result. Raises Unavailable."""
        try:
            result = await self._local.execute(
                waiting.command,
                lambda connection, done: commands.finish(connection, waiting.seq, done, now=self._clock.now_ms()),
            )
            if not result.repeated:
                return
        except AlreadyExecuted:
            return
        except Unavailable:
            raise
        except InFlight as error:
            if self._clock.now_ms() >= waiting.created_at + RESULT_WITHIN_MS:
                # The API has already responded with 202. Keep the command, and execute it after the attempt in flight.
                return
            result = _result_of(error)
        except Exception as error:
            if not isinstance(error, Conflict | Missing | TestRejected):
                _log.error("worker command failed", kind=waiting.command.kind.value, exc_info=error)
            result = _result_of(error)
        try:
            await self._database.write(lambda c: commands.finish(c, waiting.seq, result, now=self._clock.now_ms()))
        except AlreadyExecuted:
            return


def _result_of(error: Exception) -> Result:
    if isinstance(error, TestRejected):
        return Result("rejected", error.busy.value)
    if isinstance(error, Missing):
        return Result("missing")
    if isinstance(error, KeyReused):
        return Result("key taken", str(error))
    return Result("conflict", str(error) if isinstance(error, Conflict) else _DEFECT)


def _checked(result: Result) -> Result:
    """Return the result of an executed command. If the command was rejected, raise the corresponding error."""
    match result.error:
        case None:
            return result
        case "rejected":
            raise TestRejected(Busy(result.text))
        case "missing":
            raise Missing
        case "key taken":
            raise KeyReused(result.text)
        case _:
            raise Conflict(result.text)
