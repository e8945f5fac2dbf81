"""The services of a process, as its API uses them, and a user who calls them.

A call has one of three results: done, rejected, or lost. After a lost call, the user reads the state as in the
dashboard, and the model allows for a change that was made and for one that was not.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from uplift_server.core.cursors import Cursors
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.ids import prefixed
from uplift_server.core.security.scopes import Scope
from uplift_server.service import errors
from uplift_server.service.backlogs import Backlogs
from uplift_server.service.context import ServiceContext
from uplift_server.service.deliveries import Deliveries
from uplift_server.service.endpoint_states import EndpointStates
from uplift_server.service.endpoint_tests import EndpointTests
from uplift_server.service.endpoints import Endpoints
from uplift_server.service.erasures import Erasures
from uplift_server.service.ingest import Ingest
from uplift_server.service.principals import Caller, Principal
from uplift_server.service.readiness import Readiness
from uplift_server.service.registration import RegistrationEvents, UrlChecker
from uplift_server.service.replays import Replays
from uplift_server.service.secrets import Secrets
from uplift_server.store.errors import StoreError, Unavailable

from .deployment import CIPHER, Deployment, Lost, Process
from .model import Delivery, Endpoint, Event, Model

DONE, REJECTED, LOST = "done", "rejected", "lost"


async def _resolve_nothing(_host: str) -> list[str]:
    return []


class Services:
    """The services of one process."""

    def __init__(self, deployment: Deployment, process: Process, account_seqs: dict[int, int]) -> None:
        parts = process.parts
        context = ServiceContext(
            process.link, parts.cache, process.clock, parts.link(), Cursors(bytes(32)),  # type: ignore[arg-type]
            random_bytes=deployment.random.randbytes, id_sequence=parts.event_ingest.ids,
        )  # fmt: skip
        url_checker = UrlChecker(AddressPolicy(allow_private_networks=False), _resolve_nothing)
        self.endpoints = Endpoints(
            context, CIPHER, Backlogs(context, Readiness(context)), url_checker, RegistrationEvents(context),
            deployment.settings.timeouts,
        )  # fmt: skip
        self.states = EndpointStates(context, self.endpoints)
        self.deliveries = Deliveries(context)
        self.tests = EndpointTests(context, self.endpoints)
        self.secrets = Secrets(context, CIPHER, self.endpoints)
        self.replays = Replays(context)
        self.erasures = Erasures(context, bytes(32))
        self.ingest = Ingest(parts.cache, parts.event_ingest, process.clock)
        self.callers = {
            number: Caller(Principal.of_key(b"k" * 16, seq, frozenset(Scope), "owner"), seq)
            for number, seq in account_seqs.items()
        }
        self.operator = Caller(Principal.of_key(b"o" * 16, None, frozenset(Scope), "operator"), None)


class User:
    """A user who calls the services of any living process."""

    def __init__(self, rng: random.Random, deployment: Deployment, model: Model) -> None:
        self.random = rng
        self.deployment = deployment
        self.model = model
        self.account_seqs: dict[int, int] = {}
        self.account_ids: dict[int, str] = {}
        self.replays: list[tuple[int, str]] = []
        self.events: list[Event] = []
        """The accepted events, newest last."""
        self.counts: dict[str, int] = {}
        self._numbers = 0
        self._services: dict[int, Services] = {}

    @property
    def _now(self) -> int:
        return self.model.time.now

    async def call(self, name: str, work: Callable[[Process, Services], Awaitable[Any]]) -> tuple[str, Any]:
        """Call a service in a random process. Return the kind of the result, and the result."""
        living = self.deployment.living
        if not living:
            return REJECTED, None
        process = self.random.choice(living)
        if process.number not in self._services:
            self._services[process.number] = Services(self.deployment, process, self.account_seqs)
        services = self._services[process.number]
        self.deployment.touch()
        kind, result = DONE, None
        try:
            result = await self.deployment.call(process, work(process, services))
        except (Unavailable, Lost):
            kind = LOST
        except (errors.ServiceError, StoreError) as error:
            kind, result = REJECTED, error
        self.counts[f"{name} {kind}"] = self.counts.get(f"{name} {kind}", 0) + 1
        self.model.note(f"{name} in process {process.number}: {kind}")
        return kind, result

    def any_endpoint(self) -> Endpoint:
        """Return a random endpoint that is not deleted."""
        return self.random.choice([each for each in self.model.endpoints.values() if each.deleted_at is None])

    def any_delivery(self) -> Delivery | None:
        """Return a random delivery of a recent event, or None if there is no recent event with deliveries."""
        recent = [event for event in self.events[-60:] if event.expected]
        if not recent:
            return None
        event = self.random.choice(recent)
        return self.model.delivery(event, self.random.choice(event.expected))

    def _id(self, endpoint: Endpoint) -> str:
        return prefixed("ep", endpoint.id)
