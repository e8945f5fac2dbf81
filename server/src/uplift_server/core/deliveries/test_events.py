"""The event type and the data of test events."""

from collections.abc import Collection
from typing import Final

from uplift_server.core.events.catalog import MOVEMENT_ANALYTICS_CREATED, WEBHOOK_CREATED
from uplift_server.core.events.subscriptions import Subscription

DATA_WITHOUT_EXAMPLE: Final = b'{"object":{}}'
"""The data of a test event if the event type has no example, or if the example is not an object."""


def default_type(subscription: Subscription, names: Collection[str]) -> str | None:
    """Return the type of a test event for which the caller chose no type. Return None if `names` is empty.

    In order of preference, the type is MOVEMENT_ANALYTICS_CREATED if the endpoint is subscribed to it, another type
    that the endpoint is subscribed to, the type of the registration event, or any other type. If several types
    are possible, the function selects the first one in alphabetical order. `names` contains the types that accept
    events.
    """
    subscribed = sorted(name for name in names if subscription.matches(name) and name != WEBHOOK_CREATED)
    if MOVEMENT_ANALYTICS_CREATED in subscribed:
        return MOVEMENT_ANALYTICS_CREATED
    if subscribed:
        return subscribed[0]
    return WEBHOOK_CREATED if WEBHOOK_CREATED in names else min(names, default=None)


def data_from_example(example: str | None) -> bytes:
    """Return the data of a test event. `example` is the catalog's example as JSON text, if any."""
    return example.encode() if example is not None and example.startswith("{") else DATA_WITHOUT_EXAMPLE
