"""An owner of endpoints in a test `World`, who acts through the same services as the API."""

import asyncio
from collections.abc import Sequence

from uplift_server.core.cursors import Cursors
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.ids import delivery_id, prefixed
from uplift_server.core.security.scopes import Scope
from uplift_server.service.backlogs import Backlogs
from uplift_server.service.context import ServiceContext
from uplift_server.service.deliveries import Deliveries
from uplift_server.service.endpoint_states import EndpointStates
from uplift_server.service.endpoint_tests import EndpointTest, EndpointTests, SignatureCheck
from uplift_server.service.endpoints import Endpoints
from uplift_server.service.idempotency import IdempotencyKey
from uplift_server.service.principals import Caller, Principal
from uplift_server.service.readiness import Readiness
from uplift_server.service.registration import RegistrationEvents, UrlChecker
from uplift_server.store.encryption import Cipher
from uplift_server.store.records import Delivery, HeldAction

from .world import World


async def _resolve_nothing(_host: str) -> list[str]:
    return []


class Owner:
    """The services that an owner of endpoints uses. Create a new `Owner` after a restart of the world."""

    def __init__(self, world: World) -> None:
        cursors, sequence = Cursors(bytes(32)), world.parts.event_ingest.ids
        context = ServiceContext(
            world.database, world.cache, world.clock, world.parts.link(), cursors, id_sequence=sequence
        )
        url_checker = UrlChecker(AddressPolicy(allow_private_networks=False), _resolve_nothing)
        backlogs = Backlogs(context, Readiness(context))
        registration_events, timeouts = RegistrationEvents(context), world.settings.timeouts
        endpoints = Endpoints(context, Cipher(b"k" * 32), backlogs, url_checker, registration_events, timeouts)
        self._world = world
        self._states = EndpointStates(context, endpoints)
        self._deliveries = Deliveries(context)
        self._endpoint_tests = EndpointTests(context, endpoints)
        seq = world.account.seq
        self.caller = Caller(Principal.of_key(b"k" * 16, seq, frozenset(Scope), "owner"), seq)

    def _endpoint(self, seq: int) -> str:
        return self._world.cache.endpoints[seq].id_text

    async def pause(self, seq: int) -> None:
        """Pause an endpoint."""
        await self._states.pause(self.caller, self._endpoint(seq))

    async def enable(self, seq: int, held: HeldAction = HeldAction.SEND) -> None:
        """Enable an endpoint."""
        await self._states.enable(self.caller, self._endpoint(seq), held)

    async def cancel(self, event_id: bytes, seq: int) -> Delivery:
        """Cancel a delivery."""
        return (await self._deliveries.cancel(self.caller, self.delivery(event_id, seq)))[0]

    async def resend(self, event_id: bytes, seq: int) -> Delivery:
        """Resend a delivery."""
        return await self._deliveries.resend(self.caller, self.delivery(event_id, seq))

    async def test(self, seq: int, *, key: str | None = None) -> EndpointTest:
        """Send a test event to an endpoint, and advance the clock until the test ends."""
        key_or_none = None if key is None else IdempotencyKey(key, b"")
        task = asyncio.ensure_future(
            self._endpoint_tests.send(self.caller, self._endpoint(seq), None, idempotency_key=key_or_none)
        )
        self._world.callers.add(task)
        await self._world.stepping(asyncio.wait([task]))
        self._world.callers.remove(task)
        return task.result()

    async def verify(self, seq: int) -> SignatureCheck:
        """Check whether an endpoint verifies signatures, and advance the clock until the check ends."""
        task = asyncio.ensure_future(self._endpoint_tests.verify(self.caller, self._endpoint(seq)))
        self._world.callers.add(task)
        await self._world.stepping(asyncio.wait([task]))
        self._world.callers.remove(task)
        return task.result()

    async def test_concurrently(self, seqs: Sequence[int]) -> list[EndpointTest | BaseException]:
        """Test many endpoints concurrently. Return the outcome or error of each."""
        tasks = [
            asyncio.ensure_future(self._endpoint_tests.send(self.caller, self._endpoint(seq), None)) for seq in seqs
        ]
        self._world.callers.update(tasks)
        await self._world.stepping(asyncio.wait(tasks))
        self._world.callers.difference_update(tasks)
        return await asyncio.gather(*tasks, return_exceptions=True)

    def delivery(self, event_id: bytes, seq: int) -> str:
        """Return the ID of a delivery."""
        return delivery_id(event_id, self._world.cache.endpoints[seq].record.id)

    def endpoint_id(self, seq: int) -> str:
        """Return the ID of an endpoint."""
        return prefixed("ep", self._world.cache.endpoints[seq].record.id)
