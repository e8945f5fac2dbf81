"""The first event an endpoint gets: `webhook.created`, about itself, whatever it subscribes to."""

import json
from collections.abc import Callable

from uplift_server.core import ids
from uplift_server.core.events import envelope
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.lifecycle import Status
from uplift_server.service.context import ServiceContext
from uplift_server.store.hot_records import NewDelivery, NewEvent
from uplift_server.store.records import Account, Endpoint


class RegistrationEvents:
    """Makes the greetings of new endpoints."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def prepare(self, account_seq: int) -> Callable[[Endpoint], list[NewEvent]]:
        """What greets an endpoint of an account once its number is known; to be called on any thread.

        An operator who took the type out of the catalog wants no greeting: then there is none.
        """
        event_type = self._context.cache.event_types.get(WEBHOOK_CREATED)
        account = self._context.cache.accounts.get(account_seq)
        now, event_id = self._context.now(), self._context.new_id()

        def greeting(endpoint: Endpoint) -> list[NewEvent]:
            if event_type is None or account is None or event_type.archived:
                return []
            data = _about(endpoint, account)
            body = envelope.build(ids.uuid_text(event_id), event_type.name, event_type.record.api_version, now, data)
            return [
                NewEvent(
                    id=event_id,
                    account_seq=account_seq,
                    type_seq=event_type.seq,
                    created_at=now,
                    expires_at=None,
                    body=body,
                    deliveries=[NewDelivery(endpoint.seq, Status.PENDING, now)],
                    data=data,
                )
            ]

        return greeting


def _about(endpoint: Endpoint, account: Account) -> bytes:
    subject = {
        "id": ids.prefixed(ids.ENDPOINT, endpoint.id),
        "accountId": ids.prefixed(ids.ACCOUNT, account.id),
        "eventTypeIds": list(endpoint.event_types),
        "hookUrl": endpoint.url,
        "description": endpoint.description,
    }
    return json.dumps({"object": subject}, ensure_ascii=False, separators=(",", ":")).encode()
