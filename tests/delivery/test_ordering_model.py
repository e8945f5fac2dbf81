"""Seeded episodes of filters and ordered delivery, compared with a reference model of filters and order.

Each seed is one endpoint with a few events, and random filters, outcomes, pauses, cancellations, resends, replays,
expiries, kills and restarts. To run more seeds, set UPLIFT_TEST_ORDERING_EPISODES to the number of seeds per test.
On PostgreSQL, the default number is lower, because each seed takes four times as long.
"""

import contextlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import structs
from tests.engines import Place, chosen
from tests.filters import expected, random_data, random_filter

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.events.filters import filter_text
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.ids import parse_uuid
from uplift_server.core.lifecycle import ENDED, OPEN, Status, Trigger
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.sending.http.request import Request
from uplift_server.service import errors
from uplift_server.store import endpoints
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Endpoint, HeldAction
from uplift_server.store.schema import deliveries

from .owner import Owner
from .test_engine import header
from .test_replays import change_state, replay, stored
from .world import MINUTE, SECOND, World, respond

EPISODES = int(os.environ.get("UPLIFT_TEST_ORDERING_EPISODES", "10" if chosen().name == "sqlite" else "5"))
WORLDS = 10
STEPS = 14
DELAYS_MS = (2 * SECOND, 6 * SECOND)
ATTEMPTS_MAX = len(DELAYS_MS) + 1
RETRY_MS_MAX = 8 * SECOND
KEYS = (None, "a", "b")
UNFINISHED = {ReplayState.RUNNING, ReplayState.PAUSED}


@dataclass
class Sent:
    """An attempt, as the receiver sees it."""

    event_id: bytes
    began_at: int
    ended_at: int
    succeeded: bool


@dataclass
class Accepted:
    """An accepted event, in the order of acceptance."""

    event_id: bytes
    seq: int
    data: dict[str, Any]
    matched: bool
    """Whether the filter matched when the event was accepted. If it matched, the event has a delivery."""
    may_have_delivery: bool
    """Whether `matched` is true, or a replay may have created a delivery because the event matches a later filter."""
    group: str | None
    """The order group of the delivery in the reference model; None if the delivery is not ordered."""
    expires_at: int | None


@dataclass
class MissingReplay:
    """A replay that also sends events without a delivery."""

    seq: int
    events: list[Accepted]
    """The events that were accepted before the replay."""
    expected: list[Accepted]
    """The events for which the replay must create a delivery."""


class Episode:
    """One endpoint with its own account."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.host = f"r{seed}.test"
        self.success_rate = self.random.choice((1.0, 0.7, 0.3))
        self.filter = self.any_filter()
        self.accepted: list[Accepted] = []
        self.sent: list[Sent] = []
        self.ends: dict[bytes, int] = {}
        """The time when the delivery of an event was first cancelled or dropped (ms), by event ID."""
        self.resent: set[bytes] = set()
        self.is_paused = False
        self.replays: list[int] = []
        self.missing_replays: list[MissingReplay] = []
        self.cancelled_replays: set[int] = set()
        self.seq = 0

    async def run(self) -> None:
        self.world.account = await self.world.new_account()
        ordering = self.random.choice((Ordering.KEY, Ordering.ENDPOINT))
        text = None if self.filter is None else filter_text(self.filter)
        endpoint = await self.world.endpoint(self.host, self.receive, ordering=ordering, filter_text=text)
        self.seq = endpoint.seq
        self.world.sender.latency_ms[self.host] = self.random.choice((0, 0, 700))
        for _ in range(self.random.randrange(4, STEPS)):
            with contextlib.suppress(Conflict, errors.ServiceError):
                await self.step()
            await self.world.run_for(self.random.choice((0, 0, 300, SECOND, 4 * SECOND)))
            await self.check_rows()
        await self.finish()
        self.check_order()

    @property
    def endpoint(self) -> LiveEndpoint:
        return self.world.cache.endpoints[self.seq]

    def receive(self, request: Request) -> Exchange | None:
        event_id = parse_uuid(header(request, "webhook-id"))
        assert event_id is not None
        assert not self.is_paused, "an attempt to a paused endpoint"
        succeeded = self.random.random() < self.success_rate
        now = self.world.clock.now
        self.sent.append(Sent(event_id, now, now + self.world.sender.latency_ms[self.host], succeeded))
        return respond(200 if succeeded else 503)

    # ---- steps

    async def step(self) -> None:
        steps = (
            *(self.accept,) * 6, *(self.pause,) * 2, *(self.enable,) * 3, *(self.cancel,) * 2, *(self.resend,) * 2,
            *(self.replay,) * 2, self.stop_replay, self.change_ordering, self.change_filter, *(self.backfill,) * 2,
            *(self.kill,) * 2, self.restart,
        )  # fmt: skip
        await self.random.choice(steps)()

    async def accept(self) -> None:
        expires_in = self.random.choice((None, None, None, None, 1, 3 * SECOND))
        expires_at = None if expires_in is None else self.world.clock.now + expires_in
        for _ in range(self.random.randrange(1, 3)):
            key, ordering = self.random.choice(KEYS), self.endpoint.record.settings.ordering
            group = {Ordering.NONE: None, Ordering.KEY: key, Ordering.ENDPOINT: "the endpoint"}[ordering]
            data = [random_data(self.random, levels=1) for _ in range(self.random.randrange(1, 4))]
            stored = await self.world.accept_drafts(
                [self.world.draft(json.dumps(each).encode(), ordering_key=key, expires_at=expires_at) for each in data],
                self.world.account,
            )
            for one, each in zip(stored, data, strict=True):
                matches = self.matches(each)
                self.accepted.append(Accepted(one.id, one.seq, each, matches, matches, group, expires_at))

    async def pause(self) -> None:
        await Owner(self.world).pause(self.seq)
        self.is_paused = True

    async def enable(self) -> None:
        action = self.random.choice((HeldAction.SEND, HeldAction.SEND, HeldAction.DROP, HeldAction.KEEP))
        if action is HeldAction.DROP:
            self.ends = {each.event_id: self.world.clock.now for each in self.accepted} | self.ends
        self.is_paused = False
        await Owner(self.world).enable(self.seq, action)

    async def cancel(self) -> None:
        event_id = await self.any_event()
        at = self.world.clock.now
        await Owner(self.world).cancel(event_id, self.seq)
        self.ends.setdefault(event_id, at)

    async def resend(self) -> None:
        event_id = await self.any_event()
        self.resent.add(event_id)
        await Owner(self.world).resend(event_id, self.seq)

    async def replay(self) -> None:
        await self.start_replay(missing=self.random.random() < 0.2)

    async def backfill(self) -> None:
        await self.change_filter()
        await self.start_replay(missing=True)

    async def start_replay(self, *, missing: bool) -> None:
        before = {row.event_seq for row in await self.rows()}
        seq = await replay(self.world, self.endpoint, statuses=ENDED, missing=missing)
        self.replays.append(seq)
        if missing:
            matching = [each for each in self.accepted if self.matches(each.data)]
            for each in matching:
                each.may_have_delivery = True
            expected = [each for each in matching if each.seq not in before and each.expires_at is None]
            self.missing_replays.append(MissingReplay(seq, list(self.accepted), expected))

    async def stop_replay(self) -> None:
        if self.replays:
            state = self.random.choice((ReplayState.PAUSED, ReplayState.RUNNING, ReplayState.CANCELLED))
            seq = self.random.choice(self.replays)
            await change_state(self.world, seq, state)
            if state is ReplayState.CANCELLED:
                self.cancelled_replays.add(seq)

    async def change_ordering(self) -> None:
        ordering = self.random.choice(list(Ordering))
        await self.change(lambda old: structs.replace(old, settings=replace(old.settings, ordering=ordering)))

    async def change_filter(self) -> None:
        self.filter = self.any_filter()
        for job in self.missing_replays:
            if (await stored(self.world, job.seq)).state in UNFINISHED:
                job.expected.clear()
                for each in job.events:
                    each.may_have_delivery |= self.matches(each.data)
        text = None if self.filter is None else filter_text(self.filter)
        await self.change(lambda old: structs.replace(old, filter=text))

    async def change(self, update: Callable[[Endpoint], Endpoint]) -> None:
        record = await self.world.database.write(lambda c: endpoints.update(c, None, self.endpoint.record.id, update))
        assert record is not None
        self.world.cache.put_endpoint(record)

    async def kill(self) -> None:
        now = self.world.clock.now
        self.sent = [
            each if each.ended_at <= now else replace(each, ended_at=now, succeeded=False) for each in self.sent
        ]
        await self.world.kill()

    async def restart(self) -> None:
        await self.world.restart()

    def any_filter(self) -> dict[str, Any] | None:
        patterns = [random_filter(self.random, levels=1) for _ in range(3)]
        return self.random.choice((None, None, patterns[0], {"$or": patterns}))

    def matches(self, data: dict[str, Any]) -> bool:
        return self.filter is None or expected(self.filter, data)

    async def any_event(self) -> bytes:
        stored = {row.event_seq for row in await self.rows()}
        found = [each.event_id for each in self.accepted if each.seq in stored]
        if not found:
            raise Conflict("no event has a delivery")
        return self.random.choice(found)

    # ---- checks

    async def rows(self) -> list[sa.Row[Any]]:
        own = sa.select(deliveries).where(deliveries.c.endpoint_seq == self.seq).order_by(deliveries.c.event_seq)
        return await self.world.database.read(lambda c: list(c.execute(own).all()))

    async def check_rows(self) -> None:
        """Check that deliveries match the filters, and that groups neither stall nor send two deliveries at a time.

        Resends do not count.
        """
        groups = defaultdict(list)
        rows = await self.rows()
        stored = {row.event_seq for row in rows}
        for each in self.accepted:
            assert each.seq in stored or not each.matched, f"{each} has no delivery"
            assert each.seq not in stored or each.may_have_delivery, f"{each} has a delivery, but no filter matched"
        may_have_delivery = {each.event_id for each in self.accepted if each.may_have_delivery}
        assert {each.event_id for each in self.sent} <= may_have_delivery, (
            "an attempt of an event that the filter rejects"
        )
        for row in rows:
            if row.order_group is not None and row.status in OPEN:
                groups[row.order_group].append(row)
            else:
                assert row.status != Status.PENDING or row.due_at is not None, "an unordered delivery is blocked"
        for group in groups.values():
            ready = [row for row in group if row.status == Status.PENDING and row.due_at is not None]
            assert len([row for row in ready if row.trigger != Trigger.RESEND]) <= 1, "two deliveries of a group"
            assert ready or group[0].status == Status.HELD, "a group stalls"

    async def finish(self) -> None:
        """Let all deliveries end."""
        self.success_rate = 1.0
        for seq in self.replays:
            if (await stored(self.world, seq)).state is ReplayState.PAUSED:
                await change_state(self.world, seq, ReplayState.RUNNING)
        self.is_paused = False
        await Owner(self.world).enable(self.seq, HeldAction.SEND)
        for _ in range(20):
            await self.world.run_for(10 * SECOND)
            await self.check_rows()
            replays = [(await stored(self.world, seq)).state for seq in self.replays]
            if not UNFINISHED & set(replays) and not any(row.status in OPEN for row in await self.rows()):
                break
        assert not UNFINISHED & set(replays), "a replay has not ended"
        statuses = {row.event_seq: Status(row.status) for row in await self.rows()}
        for each in self.accepted:
            if each.seq not in statuses:  # `check_rows` has checked that this is correct.
                continue
            status = statuses[each.seq]
            if status is Status.CANCELLED:
                assert each.event_id in self.ends
            elif status is Status.FAILED:
                # A delivery that a replay created gets one attempt, or possibly none after a cancellation.
                is_cancelled = bool(self.cancelled_replays) or each.event_id in self.ends
                attempts = ATTEMPTS_MAX if each.matched else int(not is_cancelled)
                assert each.expires_at is not None or len(self.attempts_of(each)) >= attempts
            else:
                assert status is Status.DELIVERED, f"{each} has not ended"

        for job in self.missing_replays:
            if job.seq not in self.cancelled_replays:
                assert all(each.seq in statuses for each in job.expected), "a replay has created no delivery"

    def attempts_of(self, of: Accepted) -> list[Sent]:
        return [each for each in self.sent if each.event_id == of.event_id]

    def may_have_ended(self, of: Accepted, at: int) -> bool:
        """Whether a delivery may have ended by `at`, according to its attempts, cancellation and expiry."""
        if self.ends.get(of.event_id, at + 1) <= at or (of.expires_at or at + MINUTE) <= at + RETRY_MS_MAX:
            return True
        past = [each for each in self.attempts_of(of) if each.ended_at <= at]
        return any(each.succeeded for each in past) or len(past) >= ATTEMPTS_MAX

    def check_order(self) -> None:
        groups = defaultdict(list)
        for each in self.accepted:
            if each.matched and each.group is not None and each.event_id not in self.resent:
                groups[each.group].append(each)
        for group in groups.values():
            places = {each.event_id: place for place, each in enumerate(group)}
            own = [each for each in self.sent if each.event_id in places]
            for one, other in pairwise(own):
                assert one.ended_at <= other.began_at, "two attempts of a group at the same time"
            for each in own:
                for earlier in group[: places[each.event_id]]:
                    assert self.may_have_ended(earlier, each.began_at), f"{each} overtook {earlier}"


@pytest.mark.parametrize("first", range(0, WORLDS * EPISODES, EPISODES))
async def test_order_groups_keep_their_order(first: int, place: Place) -> None:
    async with World(place, delays_ms=DELAYS_MS) as world:
        for seed in range(first, first + EPISODES):
            try:
                await Episode(world, seed).run()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
