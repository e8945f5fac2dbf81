"""Filters of endpoints: updates, errors, previews and explanations."""

import json
from typing import Any

import pytest

URL = "https://example.com/uplift"
TYPE = "movement.analytics.created"
FILTER = {"object": {"status": ["completed", {"prefix": "done-"}], "n": [{"numeric": [">=", 1.0]}]}}


def create(client: Any, **fields: Any) -> dict[str, Any]:
    """Create an endpoint."""
    response = client.post("/v1/endpoints", {"url": URL, **fields})
    assert response.status == 201, response.body
    return dict(response.json)


def test_an_endpoint_keeps_its_filter_until_it_is_cleared(server: Any) -> None:
    owner = server.owner(server.account())
    endpoint = create(owner, filter=FILTER)
    path = f"/v1/endpoints/{endpoint['id']}"
    assert endpoint["filter"] == FILTER
    assert json.dumps(owner.get(path).json["filter"]) == json.dumps(FILTER), "in the order and the form as sent"
    assert owner.patch(path, {"description": "x"}).json["filter"] == FILTER
    assert owner.patch(path, {"filter": {"a": [1]}}).json["filter"] == {"a": [1]}, "an update replaces all of it"
    assert owner.patch(path, {"filter": {"a": [True]}}).json["filter"] == {"a": [True]}
    assert owner.get(path).json["filter"]["a"][0] is True
    assert owner.put(path, {"url": URL}).json["filter"] == {"a": [True]}
    assert owner.patch(path, {"filter": None}).json["filter"] is None
    assert create(owner)["filter"] is None
    by_uid = owner.put("/v1/endpoints/filtered", {"url": URL, "filter": FILTER})
    assert (by_uid.status, by_uid.json["filter"]) == (201, FILTER)


def test_the_audit_log_shows_the_change_of_a_filter(server: Any) -> None:
    owner = server.owner(server.account())
    endpoint = create(owner, filter={"a": [1]})
    path = f"/v1/endpoints/{endpoint['id']}"
    owner.patch(path, {"filter": {"a": [2]}})
    owner.patch(path, {"filter": None})
    entries = owner.get(f"/v1/audit-log?subject={endpoint['id']}&order=asc").json["data"]
    created, changed, cleared = [each["details"] for each in entries]
    assert json.loads(created["filter"]) == {"a": [1]}
    assert changed["changed"] == cleared["changed"] == ["filter"]
    assert [json.loads(changed[side]["filter"]) for side in ("from", "to")] == [{"a": [1]}, {"a": [2]}]
    assert cleared["to"] == {"filter": None}


@pytest.mark.parametrize(
    ("sent", "problems"),
    [
        ("x", {("filter", "type_object")}),
        ([], {("filter", "type_object")}),
        ({}, {("filter", "filter_invalid")}),
        ({"a": 1, "b": [{"prefx": "x"}]}, {("filter.a", "filter_invalid"), ("filter.b.0.prefx", "filter_invalid")}),
        ({"a": list(range(65))}, {("filter", "filter_invalid")}),
        ({"a": ["x" * 9000]}, {("filter", "filter_invalid")}),
        ({"x" * 1000: 1}, {(f"filter.{'x' * 193}", "filter_invalid")}),
    ],
)
def test_an_invalid_filter_is_rejected_with_its_path(server: Any, sent: Any, problems: set[tuple[str, str]]) -> None:
    owner = server.owner(server.account())
    endpoint = create(owner)["id"]
    assert owner.post("/v1/endpoints", {"url": URL, "filter": sent}).problems == problems
    assert owner.patch(f"/v1/endpoints/{endpoint}", {"filter": sent}).problems == problems
    assert owner.put("/v1/endpoints/new", {"url": URL, "filter": sent}).problems == problems
    assert owner.post("/v1/endpoints/filter-preview", {"filter": sent}).problems == problems


def test_a_filtered_event_is_explained_with_the_path(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    filtered = create(owner, filter={"object": {"n": [2]}})["id"]
    deleted = create(owner, filter={"object": {"n": [3]}})["id"]
    event = server.event(account)
    owner.delete(f"/v1/endpoints/{deleted}")

    def explained(endpoint: str) -> dict[str, Any]:
        return dict(owner.get(f"/v1/events/{event}/explain?endpoint={endpoint}").json["data"][0])

    found = explained(filtered)
    assert (found["reason"], found["delivery"]) == ("filtered", None)
    assert "data.object.n" in found["text"]
    assert "filter" in found["hint"]
    assert explained(deleted)["reason"] == "filtered"
    owner.patch(f"/v1/endpoints/{filtered}", {"filter": {"object": {"n": [3]}}})
    assert "may have been different" in explained(filtered)["text"]
    owner.patch(f"/v1/endpoints/{filtered}", {"filter": {"object": {"n": [1]}}})
    assert explained(filtered)["reason"] == "not_subscribed"
    owner.patch(f"/v1/endpoints/{filtered}", {"filter": {"object": {"n": [2]}}, "event_types": ["export.*"]})
    assert explained(filtered)["reason"] == "not_subscribed"


def test_a_preview_shows_which_of_the_newest_events_match(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    create(owner)
    first = server.event(account, data=b'{"object":{"status":"completed","n":2}}')
    second = server.event(account, data=b'{"object":{"status":"started","n":2}}', type_name="athlete.created")
    third = server.event(account, data=b'{"object":{"status":"done-1","n":0}}')
    preview = owner.post("/v1/endpoints/filter-preview", {"filter": FILTER}).json
    assert preview == {
        "total": 3,
        "matched": 1,
        "events": [
            {"id": third, "type": TYPE, "matches": False, "path": "data.object.n"},
            {"id": second, "type": "athlete.created", "matches": False, "path": "data.object.status"},
            {"id": first, "type": TYPE, "matches": True, "path": None},
        ],
    }
    typed = owner.post("/v1/endpoints/filter-preview", {"filter": FILTER, "event_types": ["movement.*"]}).json
    assert [each["id"] for each in typed["events"]] == [third, first]
    newest = owner.post("/v1/endpoints/filter-preview", {"filter": FILTER, "limit": 2}).json
    assert (newest["total"], newest["matched"]) == (2, 0)
    everything = owner.post("/v1/endpoints/filter-preview", {"filter": None}).json
    assert (everything["total"], everything["matched"]) == (3, 3)


def test_a_preview_has_no_events_of_others_and_no_tests(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    server.event(server.account())
    create(owner)
    assert owner.post("/v1/endpoints/filter-preview", {"filter": None}).json == {"total": 0, "matched": 0, "events": []}
    erased, kept = server.event(account, object_id="a"), server.event(account)
    server.operator.post(f"/v1/accounts/{account}/erasures", {"event_ids": [erased]})
    acting = server.client(server.operator_key, account)
    events = acting.post("/v1/endpoints/filter-preview", {"filter": FILTER}).json["events"]
    assert kept in [each["id"] for each in events]
    assert acting.post("/v1/endpoints/filter-preview", {"event_types": ["webhook.created"]}).json["total"] == 0


def test_a_preview_reports_all_problems(server: Any) -> None:
    owner = server.owner(server.account())
    body = {"filter": {"a": []}, "event_types": ["no.such"], "limit": 101, "extra": 1}
    assert owner.post("/v1/endpoints/filter-preview", body).problems == {
        ("filter.a", "filter_invalid"),
        ("event_types", "event_type_unknown"),
        ("limit", "out_of_range"),
        ("extra", "unknown_field"),
    }
    assert server.operator.post("/v1/endpoints/filter-preview", {"filter": None}).code == "account_required"


def test_the_preview_of_a_replay_says_that_a_filter_may_reject_missing_events(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    endpoint = create(owner, filter={"object": {"n": [2]}})["id"]
    server.event(account)

    def previewed(**fields: Any) -> tuple[int, bool]:
        found = owner.post("/v1/replays", {"endpoint": endpoint, "dry_run": True, **fields}).json
        return found["missing"], found["filtered"]

    assert previewed() == (0, False)
    assert previewed(include_missing=True) == (1, True)
    owner.patch(f"/v1/endpoints/{endpoint}", {"filter": None})
    assert previewed(include_missing=True) == (1, False)
