"""The first event an endpoint gets: `webhook.created`, about itself, whatever it subscribes to."""

import json

from uplift_server.core import envelope, ids
from uplift_server.core.catalog import WEBHOOK_CREATED
from uplift_server.core.deliveries import Status
from uplift_server.service.means import Means
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import Endpoint, NewDelivery, NewEvent


class Greeter:
    """Greets new endpoints."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def greet(self, endpoint: Endpoint) -> None:
        """Owe the endpoint its first event. An operator who took the type out of the catalog wants none."""
        event_type = self._means.directory.event_types.get(WEBHOOK_CREATED)
        account = self._means.directory.accounts.get(endpoint.account_seq)
        if event_type is None or account is None or event_type.archived:
            return
        subject = {
            "id": ids.prefixed(ids.ENDPOINT, endpoint.id),
            "accountId": ids.prefixed(ids.ACCOUNT, account.id),
            "eventTypeIds": list(endpoint.event_types),
            "hookUrl": endpoint.url,
            "description": endpoint.description,
        }
        data = json.dumps({"object": subject}, ensure_ascii=False, separators=(",", ":")).encode()
        now, event_id = self._means.now(), self._means.new_id()
        body = envelope.build(ids.uuid_text(event_id), event_type.name, event_type.record.api_version, now, data)
        event = NewEvent(
            id=event_id,
            account_seq=endpoint.account_seq,
            type_seq=event_type.seq,
            created_at=now,
            expires_at=None,
            body=body,
            deliveries=[NewDelivery(endpoint.seq, Status.PENDING, now)],
            data=data,
        )
        try:
            await self._means.database.append([[event]])
        except Unavailable:
            # The endpoint is stored and its secret can be shown only now: that matters more than a greeting.
            return
        self._means.on_due(endpoint.seq)
