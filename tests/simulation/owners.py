"""Owners who create, pause, enable, change and delete endpoints, and rotate their secrets."""

import json
from dataclasses import replace
from typing import Any

from msgspec import structs

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.endpoint_settings import EndpointSettings
from uplift_server.service.secrets import RotationDraft
from uplift_server.store import endpoints as stored_endpoints
from uplift_server.store.records import EndpointState, HeldAction

from .clock import HOUR, MINUTE, SECOND
from .deployment import CIPHER, Process
from .model import Endpoint, Model, new_secret
from .services import DONE, LOST, REJECTED, Services, User

SUBSCRIPTIONS = ((), (), ("a.b",), ("a.*",), ("a.b", "x.y"))


class Owners(User):
    """The owners of all endpoints. Each method is one action."""

    # ---- endpoints

    async def create_endpoint(
        self, host: str, account: int, *, is_steady: bool, is_plain: bool = False
    ) -> Endpoint | None:
        """Create an endpoint with random settings, or a plain one, which receives all events."""
        draw = self.random
        secret = new_secret(draw.randbytes(32))
        types = draw.choice(SUBSCRIPTIONS)
        kinds = draw.choice((None, None, ("red",)))
        ordering = draw.choice(("none", "none", "none", "key", "endpoint"))
        own = draw.choice((None, None, (SECOND * 30, 10 * MINUTE, 6 * HOUR)))
        if is_plain:
            types, kinds, ordering, own = (), None, "none", None
        endpoint_id = self.deployment.random.randbytes(16)
        settings = replace(
            EndpointSettings(), ordering=Ordering[ordering.upper()], retry_schedule_ms=own,
            max_in_flight=draw.choice((None, 1, 4)) if not is_steady else None,
        )  # fmt: skip

        async def create(process: Process, _services: Services) -> Any:
            record = await process.link.write(
                lambda c: stored_endpoints.create(
                    c, endpoint_id=endpoint_id, account_seq=self.account_seqs[account], url=f"https://{host}/hook",
                    secret=CIPHER.encrypt(secret, endpoint_id, "secret"), headers=None, event_types=types,
                    description="", settings=settings, now=process.clock.now_ms(),
                    filter_text=None if kinds is None else json.dumps({"kind": list(kinds)}, separators=(",", ":")),
                )
            )  # fmt: skip
            process.parts.cache.put_endpoint(record)
            return record

        kind, record = await self.call("create endpoint", create)
        if kind == LOST:
            record = await self._stored(endpoint_id)
        if kind == REJECTED or record is None:
            return None
        schedule = self.deployment.settings.schedule.delays_ms if own is None else own
        endpoint = Endpoint(
            record.seq, endpoint_id, account, host, [secret], types, kinds, ordering, [schedule], is_steady,
            self._now, changed_at=self._now,
        )  # fmt: skip
        self.model.endpoints[host] = endpoint
        return endpoint

    async def _stored(self, endpoint_id: bytes) -> Any:
        return await self.deployment.database.read(lambda c: stored_endpoints.get(c, None, endpoint_id))

    async def pause(self) -> None:
        """Pause an endpoint."""
        endpoint = self.any_endpoint()
        began = self._now
        kind, _ = await self.call("pause", lambda _, s: s.states.pause(s.callers[endpoint.account], self._id(endpoint)))
        if kind != REJECTED:
            await self._observe(endpoint, began)

    async def enable(self) -> None:
        """Enable an endpoint, and send, drop or keep its held deliveries."""
        off = [each for each in self.model.endpoints.values() if each.is_off and each.deleted_at is None]
        if not off:
            return
        await self.enable_endpoint(self.random.choice(off), self.random.choice((*(HeldAction.SEND,) * 4, *HeldAction)))

    async def enable_endpoint(self, endpoint: Endpoint, action: HeldAction) -> str:
        """Enable an endpoint."""
        began, off_at = self._now, endpoint.off_at
        # Allow requests now, because the receiver may get some before the caller gets the response.
        endpoint.off_at = None
        if action is not HeldAction.SEND:
            for event in self.model.events.values():
                # A process that had not seen a change of the types yet may have created a delivery without a match.
                if event.account == endpoint.account:
                    self.model.delivery(event, endpoint).may_have_ended = True
        kind, _ = await self.call(
            f"enable {action.text}",
            lambda _, s: s.states.enable(s.callers[endpoint.account], self._id(endpoint), action),
        )
        if kind == REJECTED:
            endpoint.off_at = off_at
        else:
            await self._observe(endpoint, began)
        return kind

    async def _observe(self, endpoint: Endpoint, began: int) -> None:
        """Read the state of an endpoint, because the engine may have changed it too."""
        query = f"SELECT state FROM endpoints WHERE seq = {endpoint.seq}"
        state = await self.deployment.database.read(lambda c: c.exec_driver_sql(query).scalar())
        note_state(self.model, endpoint, EndpointState(state), began)

    async def change(self) -> None:
        """Change the event types, filter, ordering or retry schedule of an endpoint."""
        endpoint, draw = self.any_endpoint(), self.random
        what = draw.choice(("types", "filter", "ordering", "schedule"))
        types, kinds, ordering, schedule = endpoint.types, endpoint.kinds, endpoint.ordering, None
        if what == "types":
            types = draw.choice(SUBSCRIPTIONS)
        elif what == "filter":
            kinds = draw.choice((None, ("red",), ("blue",)))
        elif what == "ordering":
            ordering = draw.choice(("none", "key", "endpoint"))
        else:
            schedule = draw.choice(((5 * SECOND, MINUTE), (10 * SECOND, 10 * MINUTE, 2 * HOUR, 8 * HOUR)))

        def changed(old: Any) -> Any:
            settings = replace(old.settings, ordering=Ordering[ordering.upper()])
            if schedule is not None:
                settings = replace(settings, retry_schedule_ms=schedule)
            text = None if kinds is None else json.dumps({"kind": list(kinds)}, separators=(",", ":"))
            return structs.replace(old, event_types=types, filter=text, settings=settings)

        async def update(process: Process, _services: Services) -> Any:
            record = await process.link.write(lambda c: stored_endpoints.update(c, None, endpoint.id, changed))
            process.parts.changes.apply(record)

        kind, _ = await self.call(f"change {what}", update)
        endpoint.changed_at = self._now
        if kind == LOST:
            record = await self._stored(endpoint.id)
            assert record is not None
            if changed(record) != record:
                return
        elif kind == REJECTED:
            return
        if ordering != endpoint.ordering:
            endpoint.orderings += 1
        endpoint.types, endpoint.kinds, endpoint.ordering = types, kinds, ordering
        if schedule is not None:
            endpoint.schedules.append(schedule)

    async def rotate(self) -> None:
        """Rotate the secret of an endpoint."""
        endpoint = self.any_endpoint()
        if self._now < endpoint.previous_until + MINUTE or endpoint.rotated_at > self._now - HOUR:
            return
        secret, overlap = new_secret(self.random.randbytes(32)), self.random.choice((0, 3600, 86_400))
        draft = RotationDraft(secret=secret, overlap_seconds=overlap)
        endpoint.secrets.append(secret)
        endpoint.rotated_at, endpoint.previous_until = self._now, self._now + overlap * SECOND
        kind, _ = await self.call(
            "rotate", lambda _, s: s.secrets.rotate(s.callers[endpoint.account], self._id(endpoint), draft)
        )
        if kind == DONE:
            return
        query = f"SELECT previous_secret IS NOT NULL, secret FROM endpoints WHERE seq = {endpoint.seq}"
        stored = (await self.deployment.database.read(lambda c: c.exec_driver_sql(query).all()))[0][1]
        if CIPHER.decrypt(bytes(stored), endpoint.id, "secret") != secret:
            endpoint.secrets.pop()
            endpoint.previous_until = 0

    async def delete(self) -> None:
        """Delete an endpoint."""
        endpoint = self.any_endpoint()
        if sum(each.deleted_at is None for each in self.model.endpoints.values()) <= 3:
            return

        async def delete(process: Process, _services: Services) -> Any:
            now = process.clock.now_ms()
            await process.link.write(
                lambda c: stored_endpoints.delete(c, self.account_seqs[endpoint.account], endpoint.id, now=now)
            )
            process.parts.cache.drop_endpoint(endpoint.seq)
            process.parts.changes.deleted(endpoint.seq)

        kind, _ = await self.call("delete", delete)
        if kind == REJECTED:
            return
        query = f"SELECT deleted_at FROM endpoints WHERE seq = {endpoint.seq}"
        if await self.deployment.database.read(lambda c: c.exec_driver_sql(query).scalar()) is not None:
            endpoint.deleted_at = endpoint.changed_at = self._now

    async def test(self) -> None:
        """Send a test event to an endpoint."""
        endpoint = self.any_endpoint()
        await self.call("test", lambda _, s: s.tests.send(s.callers[endpoint.account], self._id(endpoint), None))


def note_state(model: Model, endpoint: Endpoint, state: EndpointState, since: int) -> None:
    """Note the state of an endpoint, which began after `since` (Unix ms)."""
    is_off, now = state is not EndpointState.ENABLED, model.time.now
    endpoint.changed_at = now
    if endpoint.offs and endpoint.offs[-1][1] is None:
        began, _ = endpoint.offs.pop()
        endpoint.offs.append((began, None if is_off else now))
    elif is_off:
        endpoint.offs.append((since, None))
    if not is_off:
        endpoint.off_at = None
    elif not endpoint.is_off or endpoint.off_at is None:
        endpoint.off_at = now
    if is_off != endpoint.is_off:
        # The engine resets the health when an endpoint is paused, disabled or enabled.
        endpoint.successes = [now]
    endpoint.is_off = is_off
