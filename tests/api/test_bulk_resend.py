"""Bulk resends: one replay for each endpoint with matching deliveries."""

from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status

from .test_deliveries import Owner

PATH = "/v1/deliveries/resend"


@pytest.fixture
def owner(server: Any) -> Owner:
    """A new account."""
    return Owner(server)


def failed(owner: Owner, endpoint: str, outcome: Outcome = Outcome.SERVER_ERROR, object_id: str | None = None) -> None:
    """Create a failed delivery to an endpoint, with one attempt."""
    owner.server.event(owner.account, {endpoint: Status.PENDING}, object_id=object_id)
    [leased] = owner.server.lease(endpoint)
    owner.server.settle(leased, outcome, Status.FAILED)


def counts(shares: list[dict[str, Any]]) -> dict[str, tuple[int, str | None]]:
    """Return, by endpoint, the number of deliveries to resend and the reason if there is no replay."""
    return {each["endpoint"]: (each["count"], each["reason"]) for each in shares}


def test_a_dry_run_counts_what_the_resend_replays(owner: Owner) -> None:
    second = owner.new_endpoint()
    failed(owner, owner.endpoint, object_id="a")
    failed(owner, owner.endpoint, Outcome.TIMEOUT)
    failed(owner, second, object_id="a")
    owner.delivery(Status.HELD, object_id="a")

    preview = owner.client.post(PATH, {"dry_run": True})
    assert preview.status == 200
    assert (preview.json["count"], preview.json["complete"]) == (3, True)
    assert counts(preview.json["endpoints"]) == {owner.endpoint: (2, None), second: (1, None)}
    assert preview.json["oldest_at"] <= preview.json["newest_at"]
    for filters, expected in (
        ({"object_id": "a"}, {owner.endpoint: (1, None), second: (1, None)}),
        ({"outcome": ["timeout"]}, {owner.endpoint: (1, None)}),
        ({"status_code": ["5xx"], "endpoint": [second]}, {second: (1, None)}),
        ({"status_code": ["404"]}, {}),
        ({"status": ["cancelled"]}, {}),
    ):
        assert counts(owner.client.post(PATH, {**filters, "dry_run": True}).json["endpoints"]) == expected, filters

    created = owner.client.post(PATH, {"object_id": "a", "status_code": ["500"], "rate_per_second": 7})
    assert created.status == 201
    assert created.json["count"] == 2
    assert {each["endpoint"]: each["total"] for each in created.json["replays"]} == {owner.endpoint: 1, second: 1}
    for each in created.json["replays"]:
        shown = owner.client.get(f"/v1/replays/{each['id']}").json
        assert (shown["object_id"], shown["status_code"], shown["outcome"]) == ("a", ["500"], [])
        assert (shown["status"], shown["rate_per_second"], shown["state"]) == (["failed"], 7, "running")
    [entry] = owner.client.get("/v1/audit-log?action=deliveries.resent").json["data"]
    assert entry["details"]["count"] == 2


def test_endpoints_that_cannot_be_replayed_are_skipped(owner: Owner) -> None:
    busy, deleted = owner.new_endpoint(), owner.new_endpoint()
    for endpoint in (owner.endpoint, busy, deleted):
        failed(owner, endpoint)
    assert owner.client.post("/v1/replays", {"endpoint": busy}).status == 201
    assert owner.client.delete(f"/v1/endpoints/{deleted}").status == 204
    expected = {owner.endpoint: (1, None), busy: (1, "replay_unfinished"), deleted: (1, "endpoint_deleted")}
    preview = owner.client.post(PATH, {"dry_run": True}).json
    assert counts(preview["endpoints"]) == expected
    assert preview["count"] == 1
    created = owner.client.post(PATH, {}).json
    assert [each["endpoint"] for each in created["replays"]] == [owner.endpoint]
    del expected[owner.endpoint]
    assert counts(created["skipped"]) == expected


def test_a_repeated_request_creates_nothing(owner: Owner) -> None:
    failed(owner, owner.endpoint)
    first = owner.client.post(PATH, {}, idempotency_key="once")
    again = owner.client.post(PATH, {}, idempotency_key="once")
    assert (first.status, again.status) == (201, 201)
    assert [each["id"] for each in again.json["replays"]] == [each["id"] for each in first.json["replays"]]
    assert len(owner.client.get("/v1/replays").json["data"]) == 1


def test_other_accounts_are_not_resent(server: Any, owner: Owner) -> None:
    other = Owner(server)
    failed(owner, owner.endpoint, object_id="shared_2")
    failed(other, other.endpoint, object_id="shared_2")
    preview = owner.client.post(PATH, {"object_id": "shared_2", "dry_run": True}).json
    assert counts(preview["endpoints"]) == {owner.endpoint: (1, None)}
    assert owner.client.post(PATH, {"endpoint": [other.endpoint]}).problems == {("endpoint", "endpoint_unknown")}
    assert server.operator.post(PATH, {"dry_run": True}).code == "account_required"
    operator = server.client(server.operator_key, other.account)
    assert counts(operator.post(PATH, {"dry_run": True}).json["endpoints"]) == {other.endpoint: (1, None)}


def test_wrong_filters_are_problems_of_their_field(owner: Owner) -> None:
    wrong = owner.client.post(
        PATH,
        {
            "status": ["pending"], "outcome": ["lost"], "type": ["lost"], "rate_per_second": 0,
            "created_after": "2026-02-01T00:00:00Z", "created_before": "2026-01-01T00:00:00Z",
        },
    )  # fmt: skip
    assert wrong.status == 422
    assert {field for field, _ in wrong.problems} == {
        "status", "outcome.0", "type", "rate_per_second", "created_before"
    }  # fmt: skip
    assert ("status", "status_not_replayable") in wrong.problems


def test_a_count_that_takes_too_long_resends_nothing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(owner, owner.endpoint)
    monkeypatch.setattr("uplift_server.service.bulk_resends.COUNT_WAIT_MS", 0)
    assert owner.client.post(PATH, {"dry_run": True}).json["complete"] is False
    assert owner.client.post(PATH, {}).problems == {("created_after", "range_too_large")}
    assert owner.client.get("/v1/replays").json["data"] == []
