"""Endpoints: create, read, update and delete."""

import base64
import json
from typing import Any

import pytest

from uplift_server.core import ids
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.store.hot_records import HealthRow

HEALTH = {
    "status": "unknown",
    "failing_since": None,
    "warned_at": None,
    "disable_at": None,
    "last_success_at": None,
    "last_failure_at": None,
    "last_outcome": None,
    "last_status_code": None,
    "last_error": None,
    "last_response": None,
    "cause": None,
    "hint": None,
    "next_probe_at": None,
}


def test_an_endpoint_is_created_updated_and_deleted(server: Any) -> None:
    """Only the first response has the secret. Updates apply to the cache at once."""
    owner = server.owner(server.account())
    created = owner.post(
        "/v1/endpoints",
        {
            "url": "https://example.com/uplift?team=1",
            "description": "Pitching",
            "event_types": ["movement.*", "athlete.updated"],
            "headers": {"X-Jwt": "Bearer abc", "Accept": "text/plain"},
            "rate_limit_per_second": 5,
            "max_in_flight": 2,
            "retry_schedule": ["5s", "60m"],
            "attempt_timeout": "10000ms",
        },
    )
    assert created.status == 201
    endpoint = created.json
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    # The registration event is due.
    assert endpoint["oldest_due_at"] is not None
    assert endpoint | {"id": "", "created_at": "", "updated_at": "", "oldest_due_at": ""} == {
        "id": "",
        "uid": None,
        "metadata": {},
        "oldest_due_at": "",
        "pending_deliveries": 0,
        "url": "https://example.com/uplift?team=1",
        "description": "Pitching",
        "event_types": ["movement.*", "athlete.updated"],
        "headers": {"X-Jwt": "********", "Accept": "text/plain"},
        "filter": None,
        "auth": None,
        "rate_limit_per_second": 5,
        "max_in_flight": 2,
        "retry_schedule": ["5s", "1h"],
        "attempt_timeout": "10s",
        "ordering": "none",
        "state": "enabled",
        "disabled_reason": None,
        "held_deliveries": 0,
        "health": HEALTH,
        "verified_at": None,
        "created_at": "",
        "updated_at": "",
    }
    path = f"/v1/endpoints/{endpoint['id']}"
    assert owner.get(path).json == endpoint
    assert owner.get("/v1/endpoints").json == {"data": [endpoint], "next_cursor": None, "prev_cursor": None}

    live = server.services.context.cache.endpoints_by_id[ids.parse_prefixed(ids.ENDPOINT, endpoint["id"])]
    assert live.subscription.matches("movement.x.y")
    changed = owner.patch(path, {"url": "https://example.com/b", "event_types": None, "max_in_flight": None})
    assert changed.status == 200
    assert (changed.json["url"], changed.json["event_types"]) == ("https://example.com/b", [])
    assert (changed.json["max_in_flight"], changed.json["rate_limit_per_second"]) == (None, 5)
    assert changed.json["headers"] == endpoint["headers"]
    assert live.subscription.matches("export.completed")
    assert b"X-Jwt: Bearer abc" in live.parts.head.custom
    assert owner.patch(path, {"headers": None, "description": None}).json["headers"] == {}
    assert owner.get(path).json["description"] == ""

    assert owner.delete(path).status == 204
    assert live.seq in server.deleted_endpoints
    for response in (owner.get(path), owner.delete(path), owner.patch(path, {}), owner.get(f"{path}/deliveries")):
        assert response.code == "not_found"
    assert owner.get("/v1/endpoints").json["data"] == []


def test_a_new_endpoint_gets_a_registration_event(server: Any) -> None:
    """A `webhook.created` event with the documented fields is due at once, regardless of the subscription."""
    account = server.account()
    owner = server.owner(account)
    body = {"url": "https://example.com/ü", "event_types": ["athlete.*"], "description": "Größe"}
    endpoint = owner.post("/v1/endpoints", body).json["id"]
    [delivery] = owner.get(f"/v1/endpoints/{endpoint}/deliveries").json["data"]
    assert (delivery["type"], delivery["status"]) == ("webhook.created", "pending")
    event = owner.get(f"/v1/events/{delivery['event']}").json
    assert event["body"]["data"]["object"] == {
        "id": endpoint,
        "accountId": account,
        "eventTypeIds": ["athlete.*"],
        "hookUrl": "https://example.com/ü",
        "description": "Größe",
    }
    assert event["body"]["id"] == event["id"]
    assert server.services.context.cache.endpoints_by_id[ids.parse_prefixed("ep", endpoint)].seq in server.due


def test_a_custom_secret_is_accepted_and_encrypted(server: Any) -> None:
    """The response contains the secret, and the database has only the encrypted value."""
    owner = server.owner(server.account())
    secret = "7f3a-team-secret-7f3a-0123456789"
    created = owner.post(
        "/v1/endpoints", {"url": "https://example.com/a", "secret": secret, "headers": {"X-K": secret}}
    )
    assert created.json["secret"] == secret
    contents = server.place.contents()
    assert b"https://example.com/a" in contents
    assert secret.encode() not in contents
    short = owner.post("/v1/endpoints", {"url": "https://example.com/a", "secret": "short"})
    assert short.problems == {("secret", "secret_invalid")}


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "url_invalid"),
        ("example.com/x", "url_invalid"),
        ("https://exa mple.com/", "url_invalid"),
        ("https://example.com/" + "x" * 2048, "url_invalid"),
        ("ftp://example.com/", "url_scheme"),
        ("https://user:pw@example.com/", "url_userinfo"),
        ("https://@example.com/", "url_userinfo"),
        ("https://example.com/#a", "url_fragment"),
        ("https://example.com:0/", "url_port"),
        ("https://example.com:65536/", "url_port"),
        ("https:///x", "url_host"),
        ("https://1.2.3.4.5/", "url_host"),
        ("http://example.com/", "https_required"),
        ("https://127.0.0.1/", "address_not_allowed"),
        ("https://0x7f000001/", "address_not_allowed"),
        ("https://[::ffff:169.254.169.254]/", "address_not_allowed"),
        ("https://localhost/", "address_not_allowed"),
        ("https://intranet/", "address_not_allowed"),
        ("https://inside.example.com/", "address_not_allowed"),
    ],
)
def test_invalid_urls_are_rejected(server: Any, url: str, code: str) -> None:
    """Creation and update report the same code."""
    server.resolved_names["inside.example.com"] = ["10.0.0.8"]
    owner = server.owner(server.account())
    assert owner.post("/v1/endpoints", {"url": url}).problems == {("url", code)}
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    assert owner.patch(f"/v1/endpoints/{endpoint}", {"url": url}).problems == {("url", code)}


def test_host_names_are_checked_by_their_addresses(server: Any) -> None:
    """One allowed address is enough. A name that does not resolve in time is accepted."""
    owner = server.owner(server.account())
    server.resolved_names["mixed.example.com"] = ["10.0.0.8", "93.184.215.14"]
    for host in ("mixed.example.com", "unknown.example.com", "hangs.example.com", "bücher.example.com"):
        assert owner.post("/v1/endpoints", {"url": f"https://{host}/"}).status == 201


def test_all_problems_of_an_endpoint_are_reported_together(server: Any) -> None:
    """Covers wrong types, values out of range, unknown fields and invalid values."""
    owner = server.owner(server.account())
    body = {
        "url": "http://example.com/",
        "description": 5,
        "event_types": ["nothing.like.this", "movement.*", "no good", 7],
        "secret": "short",
        "headers": {"Host": "x", "X-A": 1, "webhook-id": "x"},
        "rate_limit_per_second": 0,
        "max_in_flight": 257,
        "retry_schedule": ["5s", "often", 5, "0s"],
        "attempt_timeout": "31s",
        "hookUrl": "x",
    }
    assert owner.post("/v1/endpoints", body).problems == {
        ("url", "https_required"),
        ("description", "type_text"),
        ("event_types", "event_type_unknown"),
        ("event_types", "event_type_invalid"),
        ("event_types.3", "type_text"),
        ("secret", "secret_invalid"),
        ("headers.Host", "header_forbidden"),
        ("headers.webhook-id", "header_forbidden"),
        ("headers.X-A", "type_text"),
        ("rate_limit_per_second", "out_of_range"),
        ("max_in_flight", "out_of_range"),
        ("retry_schedule", "duration_invalid"),
        ("retry_schedule.2", "type_text"),
        ("retry_schedule", "out_of_range"),
        ("attempt_timeout", "out_of_range"),
        ("hookUrl", "unknown_field"),
    }
    assert owner.post("/v1/endpoints", {}).problems == {("url", "required")}
    many = {"url": "https://example.com/", "event_types": ["movement.*"] * 101, "max_in_flight": "3"}
    assert owner.post("/v1/endpoints", many).problems == {("event_types", "too_many"), ("max_in_flight", "type_number")}
    assert owner.get("/v1/endpoints").json["data"] == []


def test_event_types_are_deduplicated_and_hosts_are_lowercased(server: Any) -> None:
    owner = server.owner(server.account())
    body = {
        "url": "HTTPS://Hooks.Example.COM/Path",
        "event_types": ["movement.*", "athlete.updated", "movement.*", "athlete.updated"],
    }
    created = owner.post("/v1/endpoints", body).json
    assert (created["url"], created["event_types"]) == (
        "https://hooks.example.com/Path",
        ["movement.*", "athlete.updated"],
    )
    change = {"url": "https://EXAMPLE.com:8443/B", "event_types": ["athlete.updated", "movement.*"] * 2}
    changed = owner.patch(f"/v1/endpoints/{created['id']}", change).json
    assert (changed["url"], changed["event_types"]) == (
        "https://example.com:8443/B",
        ["athlete.updated", "movement.*"],
    )
    session = owner.post("/v1/listen-sessions", {"event_types": ["movement.*", "movement.*"]}).json
    assert session["event_types"] == ["movement.*"]


@pytest.mark.parametrize(
    ("given", "field", "code"),
    [
        ({"secret": "sk_" + "a" * 32}, "secret", "secret_invalid"),
        ({"secret": "whsk_" + "a" * 32}, "secret", "secret_invalid"),
        ({"headers": {"X-Team": ""}}, "headers.X-Team", "header_invalid"),
        ({"headers": {"_team": "a"}}, "headers._team", "header_invalid"),
        ({"headers": {"-team": "a"}}, "headers.-team", "header_invalid"),
        ({"headers": {"User-Agent": "a"}}, "headers.User-Agent", "header_forbidden"),
    ],
)
def test_invalid_values_are_rejected(server: Any, given: dict[str, Any], field: str, code: str) -> None:
    owner = server.owner(server.account())
    assert owner.post("/v1/endpoints", {"url": "https://example.com/", **given}).problems == {(field, code)}


def test_an_update_rejects_a_secret_and_masked_values(server: Any) -> None:
    """Only separate calls can change a secret. If the server stored a mask, the actual value would be lost."""
    owner = server.owner(server.account())
    created = owner.post("/v1/endpoints", {"url": "https://example.com/a", "headers": {"x-token": "abc"}}).json
    response = owner.patch(f"/v1/endpoints/{created['id']}", {"secret": "x" * 20, "headers": created["headers"]})
    assert response.problems == {("secret", "unknown_field"), ("headers.x-token", "header_invalid")}


def test_an_endpoint_shows_its_health(server: Any) -> None:
    """A failing endpoint has a cause and a hint, even in lists, and even if its newest deliveries had no attempt."""
    owner = server.owner(account := server.account())
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    for _ in range(25):
        server.event(account, {endpoint: Status.PENDING})
    seq = server.services.context.cache.endpoints_by_id[ids.parse_prefixed("ep", endpoint)].seq
    server.run(
        lambda: server.database.settle(
            [], [HealthRow(seq, 3, 1_764_000_000_000, None, 1_764_000_000_500, Outcome.SERVER_ERROR, 0, 500)]
        )
    )
    health = owner.get(f"/v1/endpoints/{endpoint}").json["health"]
    hint = health.pop("hint")
    assert "500" in hint
    assert health == {
        "status": "failing",
        "failing_since": "2025-11-24T16:00:00.000Z",
        "warned_at": None,
        "disable_at": None,
        "last_success_at": None,
        "last_failure_at": "2025-11-24T16:00:00.500Z",
        "last_outcome": "server_error",
        "last_status_code": 500,
        "last_error": None,
        "last_response": None,
        "cause": "status_500",
        "next_probe_at": None,
    }
    assert owner.get("/v1/endpoints").json["data"][0]["health"] == health | {"hint": hint}
    server.run(
        lambda: server.database.settle(
            [], [HealthRow(seq, 0, None, 1_764_000_001_000, 1_764_000_000_500, Outcome.DELIVERED)]
        )
    )
    assert owner.get(f"/v1/endpoints/{endpoint}").json["health"]["status"] == "healthy"
    # An update by the owner does not change the health.
    assert owner.patch(f"/v1/endpoints/{endpoint}", {"description": "x"}).json["health"]["status"] == "healthy"


def test_a_page_of_failing_endpoints_takes_two_reads(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = server.owner(server.account())
    created = [owner.post("/v1/endpoints", {"url": f"https://example.com/{n}"}).json["id"] for n in range(5)]
    for endpoint in created[:4]:
        seq = server.services.context.cache.endpoints_by_id[ids.parse_prefixed("ep", endpoint)].seq
        row = HealthRow(seq, 1, 1_764_000_000_000, None, 1_764_000_000_500, Outcome.SERVER_ERROR)
        server.run(lambda row=row: server.database.settle([], [row]))
    read = server.database.read
    reads = []

    def count_read(body: Any) -> Any:
        reads.append(body)
        return read(body)

    monkeypatch.setattr(server.database, "read", count_read)
    page = owner.get("/v1/endpoints").json["data"]
    assert len(reads) == 2
    assert [each["health"]["hint"] is None for each in page] == [True, False, False, False, False]


def test_operators_select_an_account_or_see_all(server: Any) -> None:
    """Without an account, lists contain the endpoints of all accounts. Creation requires an account."""
    one, two = server.account(), server.account()
    created = [
        server.owner(each).post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"] for each in (one, two)
    ]
    spanning = server.operator.get("/v1/endpoints?limit=2").json["data"]
    assert [(each["id"], each["account"]) for each in spanning] == [(created[1], two), (created[0], one)]
    assert server.operator.get(f"/v1/endpoints/{created[0]}").json["account"] == one
    acting = server.client(server.operator_key, one)
    [shown] = acting.get("/v1/endpoints").json["data"]
    assert shown["id"] == created[0]
    assert "account" not in shown
    assert acting.get(f"/v1/endpoints/{created[1]}").code == "not_found"
    rejected = server.operator.post("/v1/endpoints", {"url": "https://example.com/a"})
    assert (rejected.status, rejected.code) == (422, "account_required")
    assert acting.post("/v1/endpoints", {"url": "https://example.com/b"}).status == 201
    assert server.operator.patch(f"/v1/endpoints/{created[1]}", {"description": "x"}).json["account"] == two


def test_the_registration_event_contains_the_endpoint(server: Any) -> None:
    """After parsing, characters that JSON must escape are unchanged."""
    owner = server.owner(server.account())
    description = 'quotes " and \\ and \n lines'
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a", "description": description}).json["id"]
    [delivery] = owner.get(f"/v1/endpoints/{endpoint}/deliveries").json["data"]
    body = json.loads(owner.get(f"/v1/events/{delivery['event']}").body)["body"]
    assert body["data"]["object"]["description"] == description


def test_lists_are_filtered_by_state_and_text(server: Any) -> None:
    owner = server.owner(server.account())
    one = owner.post("/v1/endpoints", {"url": "https://example.com/one", "description": "Ana's"}).json["id"]
    two = owner.post("/v1/endpoints", {"url": "https://example.com/two"}).json["id"]
    owner.post(f"/v1/endpoints/{two}/pause")

    def found(query: str) -> list[str]:
        return [each["id"] for each in owner.get(f"/v1/endpoints?{query}").json["data"]]

    assert found("state=paused") == [two]
    assert found("state=enabled&text=ana") == [one]
    assert found("state=failing") == found("state=disabled") == found("text=three") == []
    assert found("text=EXAMPLE") == [two, one]
    owner.patch(f"/v1/endpoints/{one}", {"description": "École Ünal"})
    assert found("text=%C3%89cole") == found("text=%C3%A9COLE%20%C3%BC") == [one]
    assert owner.get("/v1/endpoints?state=gone").problems == {("state", "value_unknown")}
    assert owner.get("/v1/endpoints?text=%00").problems == {("text", "characters_invalid")}
    assert owner.get(f"/v1/endpoints?text={'a' * 201}").problems == {("text", "too_long")}


def test_endpoints_are_listed_by_id_state_and_event_type(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    every, group, other = (
        owner.post("/v1/endpoints", {"url": f"https://example.com/{number}", "event_types": types}).json["id"]
        for number, types in enumerate(([], ["athlete.*"], ["export.completed"]))
    )
    theirs = server.owner(server.account()).post("/v1/endpoints", {"url": "https://example.com/"}).json["id"]
    owner.post(f"/v1/endpoints/{group}/pause")

    def listed(query: str) -> list[str]:
        return [each["id"] for each in owner.get(f"/v1/endpoints?{query}").json["data"]]

    assert listed("event_type=athlete.created") == [group, every]
    assert listed("event_type=athlete.created&event_type=export.completed") == [other, group, every]
    assert listed("event_type=webhook.created") == [every]
    assert listed(f"id={every}&id={other}&id={theirs}") == [other, every]
    assert listed("state=paused&state=failing") == [group]
    assert listed("state=paused&state=enabled&event_type=athlete.updated&order=asc") == [every, group]
    assert owner.get("/v1/endpoints?event_type=no.such&id=x&state=lost").problems == {
        ("event_type", "event_type_unknown"),
        ("id", "id_invalid"),
        ("state", "value_unknown"),
    }


def test_a_paused_endpoint_holds_its_registration_event_until_it_is_enabled(server: Any) -> None:
    owner = server.owner(server.account())
    due = len(server.due)
    for created in (
        owner.post("/v1/endpoints", {"url": "https://example.com/a", "state": "paused"}),
        owner.put("/v1/endpoints/main", {"url": "https://example.com/b", "state": "paused"}),
    ):
        assert (created.status, created.json["state"], created.json["held_deliveries"]) == (201, "paused", 1)
        path = f"/v1/endpoints/{created.json['id']}"
        assert [each["status"] for each in owner.get(f"{path}/deliveries").json["data"]] == ["held"]
        assert server.lease(created.json["id"]) == []
        assert owner.post(f"{path}/enable", {}).json["state"] == "enabled"
    assert server.due[due:] == []
    assert (
        owner.put("/v1/endpoints/main", {"url": "https://example.com/b", "state": "paused"}).json["state"] == "enabled"
    )
    enabled = owner.post("/v1/endpoints", {"url": "https://example.com/a", "state": "enabled"}).json
    assert (enabled["state"], enabled["held_deliveries"]) == ("enabled", 0)
    for state in ("disabled", "off"):
        assert owner.post("/v1/endpoints", {"url": "https://example.com/a", "state": state}).problems == {
            ("state", "value_unknown")
        }


def test_unknown_query_parameters_are_rejected(server: Any) -> None:
    owner = server.owner(server.account())
    path = f"/v1/endpoints/{owner.post('/v1/endpoints', {'url': 'https://example.com/a'}).json['id']}"
    for response in (
        owner.delete(f"{path}?dry_run=true"),
        owner.patch(f"{path}?dry_run=", {"description": "b"}),
        owner.get(f"{path}?dry_run=true"),
    ):
        assert (response.status, response.problems) == (422, {("dry_run", "unknown_field")})
    assert owner.get(path).json["description"] == ""
    assert owner.get("/v1/events?test=maybe").problems == {("test", "type_boolean")}
