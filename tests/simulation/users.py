"""Users who send and erase events, and who cancel, resend and replay deliveries."""

import json
from typing import Any

from msgspec import structs

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.ids import delivery_id, prefixed
from uplift_server.core.lifecycle import Status
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service.erasures import ErasureDraft
from uplift_server.service.ingest import Incoming
from uplift_server.service.replays import ReplayDraft
from uplift_server.store.hot_records import IdempotencyConflict

from .clock import DAY, HOUR, MINUTE, SECOND
from .deployment import Process
from .model import Delivery, Endpoint, Event, Violation
from .owners import Owners
from .services import DONE, REJECTED, Services

KINDS = ("red", "blue")
TYPES = ("a.b", "a.c", "x.y")


class Users(Owners):
    """All users. Each method is one action."""

    # ---- events

    def _event(self, account: int) -> Event:
        draw, now = self.random, self.model.time.now
        n = self._numbers = self._numbers + 1
        kind = draw.choice(KINDS)
        data = {"n": n, "kind": kind, "object": {"id": f"o{draw.randrange(20)}"}, "pad": "x" * draw.randrange(50)}
        event = Event(
            n, account, draw.choice(TYPES), kind, json.dumps(data, separators=(",", ":")).encode(),
            f"key-{n}" if draw.random() < 0.4 else None,
            draw.choice(("k1", "k2", None)),
            now + draw.choice((20 * SECOND, HOUR, DAY)) if draw.random() < 0.08 else None,
            now,
        )  # fmt: skip
        self.model.events[n] = event
        return event

    def _incoming(self, event: Event) -> Incoming:
        return Incoming(
            event.type, event.data, idempotency_key=event.key, ordering_key=event.ordering_key,
            expires_at=None if event.expires_at is None else format_timestamp(event.expires_at),
            account=self.account_ids[event.account],
        )  # fmt: skip

    async def accept(self) -> None:
        """Send single events, or a batch. Repeat a lost request that has an idempotency key."""
        account = self.random.choice(list(self.account_seqs))
        events = [self._event(account) for _ in range(self.random.choice((1, 1, 1, 2, 3, 8)))]
        if self.random.random() < 0.3:
            await self._send(events)
        else:
            for event in events:
                await self._send([event])

    async def accept_for_each(self) -> None:
        """Send an event for each account."""
        for account in self.account_seqs:
            await self._send([self._event(account)])

    async def _send(self, events: list[Event]) -> None:
        async def send(_process: Process, services: Services) -> Any:
            accepting = await services.ingest.accept_batch(
                services.callers[events[0].account], [self._incoming(event) for event in events]
            )
            return await accepting

        for event in events:
            event.matching = [
                each
                for each in self.model.endpoints.values()
                if each.account == event.account and each.deleted_at is None and each.matches(event)
            ]
        for _ in range(3):
            kind, stored = await self.call("accept", send)
            if kind == DONE:
                if isinstance(stored, IdempotencyConflict):
                    raise Violation(f"a conflict of the idempotency keys of events {[each.n for each in events]}")
                for event, appended in zip(events, stored, strict=True):
                    self._accepted(event, appended)
                return
            if kind == REJECTED:
                # A repeated request can arrive after its event has expired.
                is_expired = any(event.expires_at is not None for event in events)
                assert stored is None or is_expired, f"an event was rejected: {stored}"
                return
            if any(event.key is None for event in events):
                return
            await self.deployment.advance(self.model.time.now + self.random.choice((SECOND, MINUTE)))

    def _accepted(self, event: Event, appended: Any) -> None:
        model, now = self.model, self.model.time.now
        if event.id is not None:
            if event.id != appended.id:
                raise Violation(f"a repeat of event {event.n} has another ID")
            return
        event.id, event.seq, event.accepted_at = appended.id, appended.seq, now
        self.events.append(event)
        if appended.duplicate:
            # The first response was lost, and the endpoints may have changed since, so no delivery is certain.
            event.expected = []
            return
        is_certain = not model.has_fault(event.sent_at - HOUR, now)
        for endpoint in event.matching:
            is_seen = is_certain and endpoint.changed_at + model.seen_within_ms <= event.sent_at
            if is_seen or endpoint.changed_at < event.sent_at - HOUR:
                event.expected.append(endpoint)
                model.join_group(event, endpoint)

    async def repeat(self) -> None:
        """Repeat an accepted event with its idempotency key, or use the key for another event."""
        # Exclude erased and old events, because an erasure or the retention deletes the keys of events.
        retention_ms = self.deployment.settings.retention_ms
        keyed = [
            event
            for event in self.events[-40:]
            if event.key is not None
            and not event.is_erased
            and (not retention_ms or event.sent_at > self._now - retention_ms + DAY)
        ]
        if not keyed:
            return
        event = self.random.choice(keyed)
        is_same = self.random.random() < 0.6
        incoming = self._incoming(event)
        if not is_same:
            incoming = structs.replace(incoming, data=event.data.replace(b'"n":', b'"m":'))

        async def send(_process: Process, services: Services) -> Any:
            return await (await services.ingest.accept_batch(services.callers[event.account], [incoming]))

        if event.expires_at is not None and event.expires_at <= self._now + MINUTE:
            return
        kind, stored = await self.call("repeat", send)
        if kind == DONE:
            if isinstance(stored, IdempotencyConflict) is is_same:
                raise Violation(f"a repeat of event {event.n}, same content: {is_same}, returned {stored}")
            if is_same and (stored[0].id != event.id or not stored[0].duplicate):
                raise Violation(f"a repeat of event {event.n} was stored as a new event")

    # ---- deliveries

    def _delivery(self, delivery: Delivery) -> str:
        assert delivery.event.id is not None
        return delivery_id(delivery.event.id, delivery.endpoint.id)

    async def cancel(self) -> None:
        """Cancel a delivery."""
        delivery = self.any_delivery()
        if delivery is None:
            return
        # Set this now: the next delivery of the order group may begin before the caller gets the response.
        before, delivery.may_have_ended = delivery.may_have_ended, True
        kind, result = await self.call(
            "cancel",
            lambda _, s: s.deliveries.cancel(s.callers[delivery.event.account], self._delivery(delivery)),
        )
        if kind == REJECTED:
            delivery.may_have_ended = before
        if kind == DONE and result[1] and result[0].delivery.status is Status.CANCELLED:
            delivery.cancelled_at = self._now

    async def resend(self) -> None:
        """Resend a delivery."""
        delivery = self.any_delivery()
        if delivery is None:
            return
        before, delivery.manual_at = delivery.manual_at, self._now
        kind, _ = await self.call(
            "resend", lambda _, s: s.deliveries.resend(s.callers[delivery.event.account], self._delivery(delivery))
        )
        if kind == REJECTED:
            delivery.manual_at = before
        else:
            delivery.cancelled_at = None

    async def replay(self) -> None:
        """Replay failed deliveries of an endpoint, with or without other ended deliveries and missing events."""
        endpoint, draw = self.any_endpoint(), self.random
        statuses = draw.choice((("failed",), ("failed", "cancelled"), ("delivered", "failed", "cancelled")))
        draft = ReplayDraft(
            endpoint=self._id(endpoint), status=statuses, created_after=self._now - draw.choice((HOUR, DAY, 4 * DAY)),
            rate_per_second=draw.choice((1, 10, 50)), include_missing=draw.random() < 0.3,
        )  # fmt: skip
        self._mark_replayed(endpoint)
        kind, shown = await self.call("replay", lambda _, s: s.replays.create(s.callers[endpoint.account], draft))
        if kind == DONE:
            self.replays.append((endpoint.account, prefixed("rpl", shown.replay.id)))

    def _mark_replayed(self, endpoint: Endpoint) -> None:
        endpoint.replays += 1
        # Include events whose response was lost, because the server may have stored them.
        for event in self.model.events.values():
            if event.account == endpoint.account:
                delivery = self.model.delivery(event, endpoint)
                delivery.manual_at, delivery.cancelled_at = self._now, None

    async def change_replay(self) -> None:
        """Pause, resume or cancel a replay."""
        if not self.replays:
            return
        account, replay = self.random.choice(self.replays[-4:])
        state = self.random.choice((ReplayState.PAUSED, ReplayState.RUNNING, ReplayState.CANCELLED))
        for endpoint in self.model.endpoints.values():
            if endpoint.account == account:
                self._mark_replayed(endpoint)
        await self.call(f"replay {state.value}", lambda _, s: s.replays.set_state(s.callers[account], replay, state))

    async def erase(self) -> None:
        """Erase an event, or the events about an object."""
        if not self.events:
            return
        event = self.random.choice(self.events[-40:])
        object_id = json.loads(event.data)["object"]["id"] if self.random.random() < 0.5 else None
        draft = ErasureDraft(object_id=object_id)
        if object_id is None:
            assert event.id is not None
            draft = ErasureDraft(event_ids=[_uuid(event.id)])
        for each in self.model.events.values():
            is_about = object_id is not None and each.account == event.account and _object(each) == object_id
            each.is_erased |= each is event or is_about
        self.deployment.touch(45 * SECOND)
        await self.call("erase", lambda _, s: s.erasures.create(s.operator, self.account_ids[event.account], draft))


def _object(event: Event) -> str:
    return str(json.loads(event.data)["object"]["id"])


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
