"""Erasures in the API: input, receipts and the audit log. `tests/e2e/test_erasure.py` tests the erased data."""

from typing import Any
from uuid import uuid4

import pytest

from uplift_server.core.lifecycle import Status

from .test_deliveries import Owner


@pytest.fixture
def owner(server: Any) -> Owner:
    """A new account."""
    return Owner(server)


def path(owner: Owner) -> str:
    """Return the path of the account's erasures."""
    return f"/v1/accounts/{owner.account}/erasures"


def test_a_dry_run_counts_and_creates_nothing(owner: Owner) -> None:
    for object_id in ("athlete-1", "athlete-1", "athlete-2"):
        owner.server.event(owner.account, {owner.endpoint: Status.PENDING}, object_id=object_id)
    other = Owner(owner.server)
    other.server.event(other.account, {other.endpoint: Status.PENDING}, object_id="athlete-1")
    operator = owner.server.operator
    counted = operator.post(path(owner), {"object_id": "athlete-1", "dry_run": True})
    assert counted.status == 200
    assert (counted.json["events"], counted.json["missing"], counted.json["complete"]) == (2, 0, True)
    assert counted.json["oldest_at"] <= counted.json["newest_at"]
    foreign = operator.post(path(other), {"object_id": "athlete-1", "dry_run": True}).json
    assert foreign["object_id_digest"] != counted.json["object_id_digest"]
    ids = [each["id"] for each in owner.client.get("/v1/events").json["data"]]
    strange = other.client.get("/v1/events").json["data"][0]["id"]
    by_id = operator.post(path(owner), {"event_ids": [*ids, ids[0], strange, str(uuid4())], "dry_run": True}).json
    assert (by_id["events"], by_id["missing"], by_id["object_id_digest"]) == (len(ids), 2, None)
    assert operator.get(path(owner)).json["data"] == []


def test_an_erasure_is_audited_without_the_object_id(owner: Owner) -> None:
    operator = owner.server.operator
    made = operator.call("POST", path(owner), {"object_id": "athlete-1"}, idempotency_key="k")
    assert made.status == 202
    assert made.json["state"] == "running"
    assert operator.get(f"{path(owner)}/{made.json['id']}").json == made.json
    assert operator.get(path(owner)).json["data"] == [made.json]
    again = operator.call("POST", path(owner), {"object_id": "athlete-1"}, idempotency_key="k")
    assert again.json == made.json
    assert operator.call("POST", path(owner), {"object_id": "athlete-2"}, idempotency_key="k").status == 409
    [entry] = operator.get(f"/v1/audit-log?action=erasure.created&subject={made.json['id']}").json["data"]
    assert entry["details"] == {"object_id_digest": made.json["object_id_digest"]}
    assert "athlete-1" not in str(entry)


def test_operators_erase_events_of_deleted_accounts(owner: Owner) -> None:
    """The events of a deleted account stay until they are erased or retention deletes them."""
    operator = owner.server.operator
    owner.server.event(owner.account, {owner.endpoint: Status.PENDING}, object_id="athlete-1")
    assert operator.delete(f"/v1/accounts/{owner.account}").status == 204
    counted = operator.post(path(owner), {"object_id": "athlete-1", "dry_run": True})
    assert counted.json["events"] == 1
    made = operator.post(path(owner), {"object_id": "athlete-1"})
    assert made.status == 202
    assert operator.get(f"{path(owner)}/{made.json['id']}").json == made.json
    assert operator.get(path(owner)).json["data"] == [made.json]
    unknown = f"/v1/accounts/acc_{'0' * 32}/erasures"
    assert operator.post(unknown, {"object_id": "athlete-1"}).code == "not_found"


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, {"object_id": "required"}),
        ({"object_id": ""}, {"object_id": "required"}),
        ({"object_id": "x" * 129}, {"object_id": "too_long"}),
        ({"object_id": "x", "event_ids": [str(uuid4())]}, {"object_id": "conflicting"}),
        ({"event_ids": []}, {"event_ids": "required"}),
        ({"event_ids": [str(uuid4())] * 1001}, {"event_ids": "too_many"}),
        ({"event_ids": [str(uuid4()), "evt_1"]}, {"event_ids.1": "id_invalid"}),
    ],
)
def test_wrong_input_is_explained(owner: Owner, body: Any, problems: dict[str, str]) -> None:
    rejected = owner.server.operator.post(path(owner), body)
    assert rejected.status == 422
    assert {each["field"]: each["code"] for each in rejected.json["errors"]} == problems


def test_running_erasures_are_limited(owner: Owner) -> None:
    operator = owner.server.operator
    statuses = [operator.post(path(owner), {"object_id": f"athlete-{number}"}).status for number in range(21)]
    assert statuses == [202] * 20 + [409]
