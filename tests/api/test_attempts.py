"""Attempts across deliveries: lists, filters, single attempts, and isolation of accounts."""

from typing import Any

import pytest

from uplift_server.core import ids
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status

from .test_deliveries import Owner


class Sender(Owner):
    """An account with deliveries that have several attempts."""

    def attempted(self, *outcomes: Outcome, endpoint: str | None = None, **event: Any) -> str:
        """Create a delivery whose attempts have these outcomes and which then ends as delivered. Return its ID."""
        endpoint = endpoint or self.endpoint
        name = self.server.event(self.account, {endpoint: Status.PENDING}, **event)
        for outcome in outcomes:
            [leased] = self.server.lease(endpoint)
            is_last = outcome is outcomes[-1]
            status = Status.PENDING if not is_last else Status.DELIVERED
            self.server.settle(leased, outcome, status, None if is_last else 1)
        [delivery] = self.client.get(f"/v1/events/{name}/deliveries").json["data"]
        return str(delivery["id"])

    def listed(self, query: str = "") -> list[tuple[str, int]]:
        """Return the delivery and the number of each attempt on all pages."""
        found, cursor = [], ""
        while True:
            page = self.client.get(f"/v1/attempts?limit=2&{query}{cursor}").json
            found += [(each["delivery"], each["number"]) for each in page["data"]]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"


@pytest.fixture
def sender(server: Any) -> Sender:
    """A new account."""
    return Sender(server)


def test_attempts_are_listed_by_their_own_fields(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filters `outcome` and `status_code` apply to each attempt, not to the delivery."""
    first = sender.attempted(Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.DELIVERED, object_id="a")
    other = sender.new_endpoint()
    second = sender.attempted(Outcome.SERVER_ERROR, Outcome.DELIVERED, endpoint=other, type_name="athlete.updated")
    newest_first = [(second, 2), (second, 1), (first, 3), (first, 2), (first, 1)]
    own = "type=movement.analytics.created&type=athlete.updated"
    for rows in (10_000, 1):
        monkeypatch.setattr("uplift_server.store.delivery_search.WINDOW_ROWS", rows)
        assert sender.listed(own) == newest_first
        assert sender.listed(f"{own}&order=asc") == newest_first[::-1]
        assert sender.listed("outcome=server_error") == [(second, 1), (first, 1)]
        assert sender.listed("outcome=server_error&outcome=timeout") == [(second, 1), (first, 2), (first, 1)]
        assert sender.listed("status_code=5xx") == [(second, 1), (first, 1)]
        assert sender.listed(f"endpoint={other}&status_code=500") == [(second, 1)]
        assert sender.listed(f"delivery={first}") == newest_first[2:]
        assert sender.listed(f"delivery={first}&delivery={second}&outcome=delivered") == [(second, 2), (first, 3)]
        assert sender.listed("object_id=a&outcome=timeout") == [(first, 2)]
        assert sender.listed("type=athlete.updated") == newest_first[:2]
        assert sender.listed("status_code=404") == []


def test_an_attempt_is_found_by_its_id(server: Any, sender: Sender) -> None:
    delivery = sender.attempted(Outcome.SERVER_ERROR, Outcome.DELIVERED)
    [second, first] = sender.client.get(f"/v1/attempts?delivery={delivery}").json["data"]
    assert sender.client.get(f"/v1/attempts/{first['id']}").json == first
    assert sender.client.get(f"/v1/deliveries/{delivery}/attempts").json["data"] == [second, first]
    assert (first["endpoint"], first["response"]["body"]) == (sender.endpoint, "oh no \ufffd")
    assert server.operator.get(f"/v1/attempts/{first['id']}").json == {**first, "account": sender.account}
    for wrong in (f"{first['id'][:-1]}9", "att_1", delivery, Sender(server).attempted(Outcome.DELIVERED)):
        assert sender.client.get(f"/v1/attempts/{wrong}").code == "not_found"


def test_accounts_do_not_see_each_others_attempts(server: Any, sender: Sender) -> None:
    """This includes accounts that chose the same event ID."""
    other = Sender(server)
    shared = server.services.context.new_id()
    mine = sender.attempted(Outcome.DELIVERED, event_id=shared)
    theirs = other.attempted(Outcome.TIMEOUT, event_id=shared)
    both = f"delivery={mine}&delivery={theirs}"
    assert sender.listed(both) == [(mine, 1)]
    assert other.listed(both) == [(theirs, 1)]
    found = server.operator.get(f"/v1/attempts?{both}").json["data"]
    assert {(each["delivery"], each["account"]) for each in found} == {(mine, sender.account), (theirs, other.account)}
    [attempt] = other.client.get(f"/v1/attempts?delivery={theirs}").json["data"]
    assert sender.client.get(f"/v1/attempts/{attempt['id']}").status == 404
    assert sender.client.get(f"/v1/attempts?endpoint={other.endpoint}").problems == {("endpoint", "endpoint_unknown")}
    keyless = server.owner(sender.account, ["endpoints:read"])
    assert keyless.get("/v1/attempts").code == keyless.get(f"/v1/attempts/{attempt['id']}").code == "forbidden"


def test_wrong_filters_are_problems_of_their_parameter(sender: Sender) -> None:
    wrong = sender.client.get("/v1/attempts?delivery=dlv_1&outcome=lost&status_code=99&status=failed&cursor=AAAA")
    assert wrong.problems == {
        ("delivery", "id_invalid"), ("outcome", "value_unknown"), ("status_code", "characters_invalid"),
        ("status", "unknown_field"), ("cursor", "cursor_invalid"),
    }  # fmt: skip


def test_deliveries_are_found_by_their_ids(server: Any, sender: Sender) -> None:
    first, second = sender.delivery(), sender.delivery(Status.HELD)
    theirs = Sender(server).delivery()
    query = f"/v1/deliveries?id={first}&id={second}&id={theirs}"
    assert [each["id"] for each in sender.client.get(query).json["data"]] == [second, first]
    assert [each["id"] for each in sender.client.get(f"{query}&status=held").json["data"]] == [second]
    unknown = ids.delivery_id(bytes(16), bytes(16))
    assert sender.client.get(f"/v1/deliveries?id={unknown}").json["data"] == []
    assert sender.client.get(f"/v1/deliveries?id={sender.endpoint}").problems == {("id", "id_invalid")}
