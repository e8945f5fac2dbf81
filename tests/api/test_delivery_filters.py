"""Filters of delivery lists in the API. `tests/store/test_delivery_filters.py` tests which deliveries they find."""

from typing import Any, get_args

import pytest

from uplift_server.api.bodies import OutcomeName, StatusName
from uplift_server.core import ids
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.service.context import Listing
from uplift_server.service.delivery_queries import DeliveryQuery

from .test_deliveries import Owner


@pytest.fixture
def owner(server: Any) -> Owner:
    """A new account."""
    return Owner(server)


def ids_of(client: Any, query: str, path: str = "/v1/deliveries") -> set[str]:
    """Return the IDs on one page."""
    return {each["id"] for each in client.get(f"{path}?{query}").json["data"]}


def test_the_documented_names_are_all_names() -> None:
    assert set(get_args(OutcomeName)) == {each.text for each in Outcome}
    assert set(get_args(StatusName)) == {each.text for each in Status}


def test_values_of_one_filter_are_alternatives_and_filters_combine(owner: Owner) -> None:
    failed, held = owner.failed(), owner.delivery(Status.HELD, object_id="a")
    pending = owner.delivery(object_id="a")
    for path in ("/v1/deliveries", f"/v1/endpoints/{owner.endpoint}/deliveries"):
        assert ids_of(owner.client, "status=failed&status=held", path) == {failed, held}
        assert ids_of(owner.client, "object_id=a", path) == {held, pending}
        assert ids_of(owner.client, "object_id=a&status=held&status=failed", path) == {held}
        assert ids_of(owner.client, "outcome=server_error&outcome=timeout", path) == {failed}
        assert (
            ids_of(owner.client, "status_code=5xx", path) == ids_of(owner.client, "status_code=500", path) == {failed}
        )
        assert ids_of(owner.client, "status_code=404", path) == set()
        assert ids_of(owner.client, "type=movement.analytics.created&type=webhook.created&status=held", path) == {held}
    other = owner.new_endpoint()
    both = f"endpoint={owner.endpoint}&endpoint={other}"
    assert ids_of(owner.client, f"{both}&status=pending") == {pending}
    assert {each["object_id"] for each in owner.client.get("/v1/deliveries?object_id=a").json["data"]} == {"a"}


def test_wrong_values_are_problems_of_their_field(owner: Owner) -> None:
    wrong = owner.client.get(
        "/v1/deliveries?status=failed&status=lost&outcome=lost&status_code=4x&status_code=600&type=lost&endpoint=ep_1"
        f"&object_id={'a' * 129}&limit=1&limit=2"
    )
    assert wrong.status == 422
    assert wrong.problems == {
        ("status", "value_unknown"),
        ("outcome", "value_unknown"),
        ("status_code", "characters_invalid"),
        ("type", "event_type_unknown"),
        ("endpoint", "endpoint_unknown"),
        ("object_id", "too_long"),
        ("limit", "repeated"),
    }
    many = owner.client.get("/v1/deliveries?" + "&".join(["status_code=404"] * 101))
    assert many.problems == {("status_code", "too_many")}


def test_accounts_do_not_see_deliveries_about_each_others_objects(server: Any, owner: Owner) -> None:
    other = Owner(server)
    mine, theirs = owner.delivery(object_id="shared_1"), other.delivery(object_id="shared_1")
    assert ids_of(owner.client, "object_id=shared_1") == {mine}
    assert ids_of(other.client, "object_id=shared_1") == {theirs}
    assert ids_of(server.operator, "object_id=shared_1") == {mine, theirs}
    for wrong in (f"endpoint={other.endpoint}", f"endpoint={owner.endpoint}&endpoint={other.endpoint}"):
        assert owner.client.get(f"/v1/deliveries?{wrong}").problems == {("endpoint", "endpoint_unknown")}


def test_deliveries_of_a_deleted_endpoint_are_found_by_its_id(server: Any, owner: Owner) -> None:
    failed = owner.failed()
    assert owner.client.delete(f"/v1/endpoints/{owner.endpoint}").status == 204
    assert ids_of(owner.client, f"endpoint={owner.endpoint}&status=failed") == {failed}
    assert Owner(server).client.get(f"/v1/deliveries?endpoint={owner.endpoint}").problems == {
        ("endpoint", "endpoint_unknown")
    }


def test_a_search_continues_until_its_time_is_over(server: Any, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that ends early says how far the search went, and the next page continues there."""
    old = owner.delivery(Status.HELD, created_at=1_500_000_000_000)
    for number in range(12):
        owner.delivery(created_at=1_500_000_001_000 + number)
    caller = server.services.authenticator.caller(f"Bearer {owner.client.key}".encode(), None)
    query = DeliveryQuery(outcome=[Outcome.TLS_ERROR.text])
    search = server.services.deliveries.search
    monkeypatch.setattr("uplift_server.store.delivery_search.WINDOW_ROWS", 4)

    monkeypatch.setattr("uplift_server.service.deliveries.SEARCH_MS", 60_000)
    whole = server.run(lambda: search(caller, query, Listing(5)))
    assert (whole.page.items, whole.page.next_key, whole.searched_to) == ([], None, None)

    monkeypatch.setattr("uplift_server.service.deliveries.SEARCH_MS", 0)
    page = server.run(lambda: search(caller, query, Listing(5)))
    assert page.page.items == []
    assert page.page.next_key is not None
    assert page.searched_to >= 1_500_000_001_000
    held = server.run(lambda: search(caller, DeliveryQuery(status=["held"]), Listing(5)))
    assert [ids.delivery_id(each.delivery.event_id, each.delivery.endpoint_id) for each in held.page.items] == [old]
    assert held.searched_to is None
