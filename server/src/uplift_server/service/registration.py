"""Endpoint registration: the URL check, and the registration event `webhook.created`."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from uplift_server.core import ids
from uplift_server.core.events import envelope
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.urls import check_resolved, parse_endpoint_url
from uplift_server.core.lifecycle import Status
from uplift_server.core.problems import Problem
from uplift_server.delivery.object_ids import object_id_of
from uplift_server.delivery.targets import to_ascii
from uplift_server.service.context import ServiceContext
from uplift_server.store.hot_records import NewDelivery, NewEvent
from uplift_server.store.records import Account, Endpoint, EndpointState

RESOLVE_SECONDS_MAX: Final = 2.0

Resolver = Callable[[str], Awaitable[Iterable[str]]]
"""Resolves a host name to addresses. Raises an exception if the name does not resolve."""


class UrlChecker:
    """Checks endpoint URLs. For every connection, the HTTP client checks the IP address again."""

    def __init__(self, policy: AddressPolicy, resolve: Resolver) -> None:
        self._policy = policy
        self._resolve = resolve

    async def check(self, text: str) -> Problem | None:
        """Return a problem if the URL is not allowed.

        A host name that does not resolve within RESOLVE_SECONDS_MAX is not a problem.
        """
        url = parse_endpoint_url(text, self._policy, to_ascii=to_ascii)
        if isinstance(url, Problem):
            return url
        addresses = () if url.known_addresses else await self._addresses(url.host)
        return check_resolved(url, addresses, self._policy)

    async def _addresses(self, host: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS_MAX):
                return tuple(await self._resolve(host))
        except Exception:
            # The failure may be temporary, and the name may resolve by the time of the first delivery.
            return ()


class RegistrationEvents:
    """Builds the `webhook.created` event, which a new endpoint receives regardless of its subscription."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def prepare(self, account_seq: int) -> Callable[[Endpoint], list[NewEvent]]:
        """Return a function, callable from any thread, that builds the registration event for a new endpoint.

        The function returns no event if the operator deleted or archived the event type.
        """
        event_type = self._context.cache.event_types.get(WEBHOOK_CREATED)
        account = self._context.cache.accounts.get(account_seq)
        now, event_id = self._context.now(), self._context.new_id()

        def build(endpoint: Endpoint) -> list[NewEvent]:
            if event_type is None or account is None or event_type.archived:
                return []
            data = _data(endpoint, account)
            delivery = (
                NewDelivery(endpoint.seq, Status.PENDING, now)
                if endpoint.state is EndpointState.ENABLED
                else NewDelivery(endpoint.seq, Status.HELD, None)
            )
            body = envelope.build(ids.uuid_text(event_id), event_type.name, event_type.record.api_version, now, data)
            return [
                NewEvent(
                    id=event_id,
                    account_seq=account_seq,
                    type_seq=event_type.seq,
                    created_at=now,
                    expires_at=None,
                    body=body,
                    deliveries=[delivery],
                    data=data,
                    object_id=object_id_of(data),
                )
            ]

        return build


def _data(endpoint: Endpoint, account: Account) -> bytes:
    subject = {
        "id": ids.prefixed(ids.ENDPOINT, endpoint.id),
        "accountId": ids.prefixed(ids.ACCOUNT, account.id),
        "eventTypeIds": list(endpoint.event_types),
        "hookUrl": endpoint.url,
        "description": endpoint.description,
    }
    return json.dumps({"object": subject}, ensure_ascii=False, separators=(",", ":")).encode()
