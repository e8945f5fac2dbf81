"""What processes do for each other: by which one a person is served is chance, and not who delivers to an endpoint.

A delivery changes hands by its lease: who asks gets it, or gives it, under the same fence. So whichever of the two ends
meanwhile, it is attempted once its lease is over.
"""

import asyncio
import sys
from collections.abc import Collection, Container, Coroutine, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from uplift_server.delivery.clock import Clock
from uplift_server.delivery.cluster.notifier import Answer, Post, Question
from uplift_server.delivery.endpoint_cache import Directory
from uplift_server.delivery.scheduling.lanes import DeliveryLanes, InMemory
from uplift_server.delivery.sending.test_deliveries import Busy, Trials
from uplift_server.store import deliveries
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Lease, LeasedDelivery

KNOWN_WITHIN_MS: Final = 500
KNOWN_EVERY_MS: Final = 20
TEST_COMES_WITHIN_MS: Final = 3_000
"""How long a slot is kept for a test that is being stored."""
ANSWER_WITHIN_MS: Final = 1_000
"""How long who asks waits for what needs no exchange with a receiver."""
TELL_WITHIN_MS: Final = 300
"""The same for how deliveries stand: whoever looks at them is shown what is known without that."""
TELLING_MAX: Final = 100
"""Of how many endpoints that is asked at a time."""
WAITING_TOLD_MAX: Final = 300
"""As many numbers of events as fit an answer."""
DONE: Final = 1


class Errand(StrEnum):
    """What is asked for."""

    LET_GO = "let_go"
    """Hand over a delivery that waits in memory."""
    ATTEMPT = "attempt"
    """Take a delivery over, and attempt it now."""
    BEGIN_TEST = "begin_test"
    """Take a slot for a test."""
    ABANDON_TEST = "abandon_test"
    SEND_TEST = "send_test"
    """Take a test over, and send it; the answer comes once its outcome is stored."""
    TELL_WAITING = "tell_waiting"
    """How the deliveries stand that it has leased, of events from a number on."""


class Doing(Protocol):
    """What an engine does about the deliveries of its own endpoints."""

    lanes: DeliveryLanes

    def resend_lease(self, now_ms: int) -> tuple[int, int]:
        """The end and the owner of a lease that begins now."""

    def start_now(self, delivery: LeasedDelivery) -> None:
        """Attempt a leased delivery, before anything that waits."""

    def give_back(self, delivery: Lease | LeasedDelivery) -> None:
        """Let a delivery wait in the database."""

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint whose breaker is open is tried next (Unix ms)."""

    def look_soon(self) -> None:
        """Read what other processes have changed."""


class Errands:
    """Answers what is asked about this process's endpoints."""

    def __init__(
        self, database: Database, directory: Directory, clock: Clock, post: Post, doing: Doing, trials: Trials
    ) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock
        self._doing = doing
        self._trials = trials
        self._expected: dict[int, int] = {}
        """By endpoint with a slot for a test that has not come yet: until when it is kept (Unix ms)."""
        post.answer = self._answer

    def _answer(self, question: Question) -> Coroutine[Any, Any, Answer] | None:
        if not self._directory.owns(question.endpoint_seq):
            return None
        answers = {
            Errand.LET_GO: self._let_go,
            Errand.ATTEMPT: self._attempt,
            Errand.BEGIN_TEST: self._begin_test,
            Errand.ABANDON_TEST: self._abandon_test,
            Errand.SEND_TEST: self._send_test,
            Errand.TELL_WAITING: self._tell_waiting,
        }
        return answers[Errand(question.what)](question)

    async def _let_go(self, question: Question) -> Answer:
        found = self._doing.lanes.withdraw(question.endpoint_seq, question.event_seq)
        if found is None:
            return None
        lease = Lease(found.event_seq, found.endpoint_seq, found.fence)
        try:
            if await self._database.write(lambda c: deliveries.hand_over(c, lease, to=question.asker)):
                return found.fence
        except Unavailable:
            self._doing.give_back(found)
            raise
        return None

    async def _attempt(self, question: Question) -> Answer:
        # Who asked, and has not heard the answer, gives back only what it leased itself.
        delivery = await self._taken_over(question, fence=question.fence + 1)
        if delivery is None:
            return None
        self._doing.start_now(delivery)
        return DONE

    async def _begin_test(self, question: Question) -> Answer:
        await self._told_of(question.endpoint_seq, self._directory.endpoints)
        busy = self._trials.begin(question.endpoint_seq)
        if busy is not None:
            return busy.value
        until = self._clock.now_ms() + TEST_COMES_WITHIN_MS
        self._expected[question.endpoint_seq] = until
        self._clock.call_at(until, lambda: self._lapse(question.endpoint_seq, until))
        return DONE

    async def _told_of(self, seq: int, known: Container[int]) -> None:
        """Wait for what may have been made so recently that this process is still to be told of it."""
        until = self._clock.now_ms() + KNOWN_WITHIN_MS
        while seq not in known and self._clock.now_ms() < until:
            self._doing.look_soon()
            await self._clock.wait(asyncio.Event(), KNOWN_EVERY_MS)

    async def _abandon_test(self, question: Question) -> Answer:
        self._abandon(question.endpoint_seq)
        return DONE

    async def _send_test(self, question: Question) -> Answer:
        if self._expected.pop(question.endpoint_seq, None) is None:
            return None
        try:
            delivery = await self._taken_over(question, fence=question.fence)
        except Unavailable:
            self._trials.abandon(question.endpoint_seq)
            raise
        if delivery is None:
            self._trials.abandon(question.endpoint_seq)
            return None
        await self._told_of(delivery.type_seq, self._directory.event_types_by_seq)
        self._trials.send(delivery)
        await self._trials.wait(question.endpoint_seq, TEST_COMES_WITHIN_MS)
        return DONE

    async def _tell_waiting(self, question: Question) -> Answer:
        waiting = self._doing.lanes.waiting_events(question.endpoint_seq)
        told = sorted(event_seq for event_seq in waiting if event_seq >= question.event_seq)[:WAITING_TOLD_MAX]
        return [self._doing.next_probe_at(question.endpoint_seq) or 0, *told]

    async def _taken_over(self, question: Question, *, fence: int) -> LeasedDelivery | None:
        until, owner = self._doing.resend_lease(self._clock.now_ms())
        lease = Lease(question.event_seq, question.endpoint_seq, question.fence)
        return await self._database.write(
            lambda c: deliveries.take_over(c, lease, lease_until=until, owner=owner, fence=fence)
        )

    def _lapse(self, endpoint_seq: int, until: int) -> None:
        # Another test of the same endpoint may be expected by now.
        if self._expected.get(endpoint_seq) == until:
            self._abandon(endpoint_seq)

    def _abandon(self, endpoint_seq: int) -> None:
        if self._expected.pop(endpoint_seq, None) is not None:
            self._trials.abandon(endpoint_seq)


class Requests:
    """Asks the process that an endpoint belongs to."""

    def __init__(self, clock: Clock, post: Post, give_back: "GiveBack") -> None:
        self._clock = clock
        self._post = post
        self._give_back = give_back
        self._tests: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: set[asyncio.Task[None]] = set()
        """Those of them that have something attempted."""

    async def withdraw(self, event_seq: int, endpoint_seq: int) -> Lease | None:
        """Get a delivery that waits in another process's memory. Raises Unavailable."""
        fence = await self._ask(Errand.LET_GO, endpoint_seq, event_seq)
        return Lease(event_seq, endpoint_seq, fence) if isinstance(fence, int) else None

    def attempt(self, delivery: LeasedDelivery) -> None:
        """Have a delivery attempted that was leased for that; it is due where nobody takes it over."""
        task = self.begin(self._attempt(delivery))
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)

    async def begin_test(self, endpoint_seq: int) -> Busy | None:
        """Have a slot taken for a test; why there is none. Raises Unavailable."""
        answer = await self._ask(Errand.BEGIN_TEST, endpoint_seq)
        return None if answer == DONE else Busy(answer)

    def abandon_test(self, endpoint_seq: int) -> None:
        """Have the slot of a test given back that could not be stored."""
        self.begin(self._quietly(Errand.ABANDON_TEST, endpoint_seq))

    def send_test(self, delivery: LeasedDelivery) -> None:
        """Have a test sent that was stored."""
        self._tests[delivery.endpoint_seq] = self.begin(self._send_test(delivery))

    async def wait_for_test(self, endpoint_seq: int, within_ms: int) -> None:
        """Until a test is over, but no longer than so."""
        task = self._tests.get(endpoint_seq)
        if task is not None:
            over = asyncio.Event()
            task.add_done_callback(lambda _: over.set())
            await self._clock.wait(over, within_ms)

    async def in_memory(self, endpoints: Mapping[int, int]) -> dict[int, InMemory]:
        """How what other processes have leased stands, of events from a number on, as far as it is told in time."""
        asked = list(endpoints.items())[:TELLING_MAX]
        answers = await asyncio.gather(*(self._in_memory(*each) for each in asked))
        return {seq: told for (seq, _), told in zip(asked, answers, strict=True) if told is not None}

    async def _in_memory(self, endpoint_seq: int, first: int) -> InMemory | None:
        try:
            answer = await self._post.ask(Question(Errand.TELL_WAITING, endpoint_seq, first), TELL_WITHIN_MS)
        except Unavailable:
            return None
        if not isinstance(answer, list):
            return None
        probe_at, *waiting = answer
        through = waiting[-1] if len(waiting) == WAITING_TOLD_MAX else sys.maxsize
        return InMemory(frozenset(waiting), probe_at or None, through)

    async def end_attempts(self) -> None:
        """Give back what was to be attempted, and nobody has said yet that it has it."""
        await _end(self._attempts)

    async def close(self) -> None:
        """Ask for nothing more."""
        await _end(self._tasks)

    async def _attempt(self, delivery: LeasedDelivery) -> None:
        try:
            taken = await self._ask(Errand.ATTEMPT, delivery.endpoint_seq, delivery.event_seq, delivery.fence)
        except Unavailable:
            taken = None
        except asyncio.CancelledError:
            self._give_back(delivery)
            raise
        if taken is None:
            self._give_back(delivery)

    async def _send_test(self, delivery: LeasedDelivery) -> None:
        endpoint_seq = delivery.endpoint_seq
        question = Question(Errand.SEND_TEST, endpoint_seq, delivery.event_seq, delivery.fence)
        try:
            await self._post.ask(question, TEST_COMES_WITHIN_MS + ANSWER_WITHIN_MS)
        except Unavailable:
            # Whoever took it over goes on; otherwise its lease ends, and it has failed.
            return
        finally:
            if self._tests.get(endpoint_seq) is asyncio.current_task():
                del self._tests[endpoint_seq]

    async def _quietly(self, errand: Errand, endpoint_seq: int) -> None:
        try:
            await self._ask(errand, endpoint_seq)
        except Unavailable:
            return

    async def _ask(self, errand: Errand, endpoint_seq: int, event_seq: int = 0, fence: int = 0) -> Answer:
        return await self._post.ask(Question(errand, endpoint_seq, event_seq, fence), ANSWER_WITHIN_MS)

    def begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something that ends by itself, or with this process."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class GiveBack(Protocol):
    """Lets a delivery wait in the database again."""

    def __call__(self, delivery: Lease | LeasedDelivery) -> None:
        """It is due at once."""
