"""A tour of the API with the generated client: account, endpoint, event, delivery, attempts, resend.

Prints one JSON object.
"""

import json
import os
import time
from collections.abc import Callable
from typing import TypeVar

from uplift_client import AuthenticatedClient
from uplift_client.api.accounts import accounts_create, keys_create
from uplift_client.api.deliveries import deliveries_attempts, deliveries_get, deliveries_list, deliveries_resend
from uplift_client.api.endpoints import endpoints_create, endpoints_update
from uplift_client.api.events import events_deliveries, events_get, events_send
from uplift_client.models import (
    Account,
    AccountNew,
    ApiKey,
    AthleteCreatedEvent,
    Attempt,
    AttemptList,
    Delivery,
    DeliveryList,
    DeliveryStatus,
    Endpoint,
    EndpointChange,
    EndpointNew,
    EventAccepted,
    EventNew,
    EventNewData,
    EventWithBody,
    KeyNew,
    Problem,
)
from uplift_client.models.deliveries_list_status_item import DeliveriesListStatusItem
from uplift_client.types import Unset

T = TypeVar("T")
URL = os.environ["UPLIFT_API_URL"]


def connect(key: str) -> AuthenticatedClient:
    """Return a client with a key."""
    return AuthenticatedClient(URL, token=key)


def valid(result: object, kind: type[T]) -> T:
    """Return the result of a call. Fail if it is an error."""
    assert isinstance(result, kind), result
    return result


def until(get: Callable[[], T | None]) -> T:
    """Call a function until it returns a value, for at most 10 s. Return the value."""
    for _ in range(200):
        found = get()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("not within 10 s")


def attempts_of(client: AuthenticatedClient, delivery: str) -> list[Attempt]:
    """Return the attempts of a delivery, newest first."""
    return valid(deliveries_attempts.sync(delivery, client=client, limit=10), AttemptList).data


def main() -> None:
    """Run the tour."""
    operator = connect(os.environ["UPLIFT_API_KEY"])
    new = AccountNew("Python tour", contact_emails=["coach@example.com"])
    account = valid(accounts_create.sync(client=operator, body=new, idempotency_key="python tour"), Account)
    repeated = accounts_create.sync_detailed(client=operator, body=new, idempotency_key="python tour")
    scopes = [f"{noun}:{verb}" for noun in ("events", "endpoints", "deliveries") for verb in ("read", "write")]
    key = valid(keys_create.sync(account.id, client=operator, body=KeyNew("tour", scopes=scopes)), ApiKey)
    assert isinstance(key.key, str)

    client = connect(key.key)
    body = EndpointNew(os.environ["RECEIVER_URL"], event_types=["athlete.created"])
    endpoint = valid(endpoints_create.sync(client=client, body=body), Endpoint)
    change = EndpointChange(description="tour")
    changed = valid(endpoints_update.sync(endpoint.id, client=client, body=change), Endpoint)

    data = EventNewData.from_dict(
        {"object": {"id": "a1", "first_name": "Mara", "custom_attributes": {"team": "Rapids"}}}
    )
    event = valid(events_send.sync(client=client, body=EventNew("athlete.created", data)), EventAccepted)

    def delivered() -> Delivery | None:
        found = valid(events_deliveries.sync(str(event.id), client=client), DeliveryList).data
        return next((each for each in found if each.status is DeliveryStatus.DELIVERED), None)

    delivery = until(delivered)
    before = attempts_of(client, delivery.id)
    valid(deliveries_resend.sync(delivery.id, client=client), Delivery)

    def resent() -> list[Attempt] | None:
        found = attempts_of(client, delivery.id)
        return found if len(found) > len(before) else None

    after = until(resent)
    statuses = [DeliveriesListStatusItem.DELIVERED, DeliveriesListStatusItem.FAILED]
    filtered = valid(deliveries_list.sync(client=client, status=statuses, type_=["athlete.created"]), DeliveryList)
    sent = valid(events_get.sync(str(event.id), client=client), EventWithBody).body
    assert sent is not None
    assert not isinstance(sent, Unset)
    athlete = AthleteCreatedEvent.from_dict(sent.to_dict()).data.object_
    rejected = valid(endpoints_create.sync(client=client, body=EndpointNew("ftp://example.com")), Problem)
    assert not isinstance(rejected.errors, Unset)
    missing = deliveries_get.sync_detailed("dlv_none", client=client)
    print(
        json.dumps(
            {
                "account": account.id,
                "replayed": repeated.headers.get("Idempotency-Replayed"),
                "endpoint": endpoint.id,
                "secret": endpoint.secret,
                "description": changed.description,
                "event": str(event.id),
                "athlete": athlete.first_name,
                "delivery": delivery.id,
                "outcomes": [[each.number, each.trigger.value, each.outcome] for each in after],
                "filtered": [each.id for each in filtered.data],
                "rejected": [rejected.code.value, rejected.errors[0].field],
                "missing": [missing.status_code, valid(missing.parsed, Problem).code.value],
            }
        )
    )


main()
