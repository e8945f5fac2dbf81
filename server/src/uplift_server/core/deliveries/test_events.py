"""Tests of endpoints: of which event type one is, and with what data.

In code a test is a trial: the word test is taken, by our own.
"""

from collections.abc import Collection
from typing import Final

from uplift_server.core.events.catalog import MOVEMENT_ANALYTICS_CREATED, WEBHOOK_CREATED
from uplift_server.core.events.subscriptions import Subscription

DATA_WITHOUT_EXAMPLE: Final = b'{"object":{}}'
"""The data of a test of a type of which the catalog has no example that could be an event's data."""


def default_type(subscription: Subscription, names: Collection[str]) -> str | None:
    """Of these event types the one an endpoint is tested with unless somebody says which; None if there are none.

    The one Uplift documents, where the endpoint wants it; else the first that it wants; else the greeting; else any.
    """
    wanted = sorted(name for name in names if subscription.matches(name) and name != WEBHOOK_CREATED)
    if MOVEMENT_ANALYTICS_CREATED in wanted:
        return MOVEMENT_ANALYTICS_CREATED
    if wanted:
        return wanted[0]
    return WEBHOOK_CREATED if WEBHOOK_CREATED in names else min(names, default=None)


def data_from_example(example: str | None) -> bytes:
    """The data of a test, from the catalog's example of its type (a JSON text)."""
    return example.encode() if example is not None and example.startswith("{") else DATA_WITHOUT_EXAMPLE
