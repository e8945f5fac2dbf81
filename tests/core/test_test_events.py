"""The event type and the data of a test event."""

import pytest

from uplift_server.core.deliveries.test_events import DATA_WITHOUT_EXAMPLE, data_from_example, default_type
from uplift_server.core.events.subscriptions import Subscription

CATALOG = {"webhook.created", "movement.analytics.created", "athlete.created", "export.completed"}


@pytest.mark.parametrize(
    ("patterns", "names", "chosen"),
    [
        ([], CATALOG, "movement.analytics.created"),
        (["movement.*", "athlete.*"], CATALOG, "movement.analytics.created"),
        (["export.completed", "athlete.*"], CATALOG, "athlete.created"),
        (["webhook.created"], CATALOG, "webhook.created"),
        # The subscribed type is no longer in the catalog.
        (["gone.type"], CATALOG, "webhook.created"),
        (["gone.type"], {"b.c", "a.b"}, "a.b"),
        ([], set(), None),
    ],
)
def test_the_default_type_is_a_likely_one(patterns: list[str], names: set[str], chosen: str | None) -> None:
    assert default_type(Subscription(patterns), names) == chosen


def test_the_data_is_the_catalogs_example_if_it_is_an_object() -> None:
    assert data_from_example('{"object": {"name": "Tomás"}}') == '{"object": {"name": "Tomás"}}'.encode()
    for example in (None, "[1]", "5", '"text"', "null"):
        assert data_from_example(example) == DATA_WITHOUT_EXAMPLE
