"""Commands about endpoints."""

import json

import pytest
from tests.cli.commands import DELIVERY, ENDPOINT, failure, output, page, run
from tests.cli.fake_api import FakeApi

from uplift_webhooks.cli.kit import views


def test_endpoints(api: FakeApi) -> None:
    assert output("endpoints", "--account", "Rapids")["id"] == "ep_0e11"
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    assert run("endpoints").stdout.splitlines()[1] == "ep_0e11\thttps://x.example/\tenabled\thealthy\tall"
    assert "uplift-account" not in api.requests[-1].headers
    assert "--state" not in run("endpoints", "--state", "failing", "--text", "x.example").stderr
    assert api.requests[-1].query == {"limit": "50", "state": "failing", "text": "x.example"}
    assert output("endpoints", "ep_0e")["url"] == "https://x.example/"
    arguments = [
        "endpoints",
        "create",
        "https://x.example/",
        "--account",
        "Rapids",
        "--type",
        "a.*",
        "--description",
        "d",
    ]
    assert output(*arguments)["secret"] == "whsec_shown_once"
    body = {"url": "https://x.example/", "event_types": ["a.*"], "description": "d"}
    assert api.requests[-1].body == body
    output(*arguments, "--max-in-flight", "4")
    assert api.requests[-1].body == {**body, "max_in_flight": 4}
    oauth = ("--oauth-token-url", "https://t.example/", "--oauth-client-id", "c", "--oauth-client-secret-file", "-")
    assert run(*arguments, *oauth, stdin="s3cret\n").exit_code == 0
    auth = {"token_url": "https://t.example/", "client_id": "c", "client_secret": "s3cret"}
    assert api.requests[-1].body == {**body, "auth": {"type": "oauth2_client_credentials", **auth}}
    unconfirmed = run("endpoints", "delete", "ep_0e")
    assert (unconfirmed.exit_code, "--yes" in unconfirmed.stderr) == (2, True)
    assert all(request.method != "DELETE" for request in api.requests)
    assert output("endpoints", "delete", "ep_0e", "--yes") == {"id": "ep_0e11", "deleted": True}
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"


def test_an_endpoint_is_a_block_that_ends_with_its_health(api: FakeApi) -> None:
    health = {"status": "failing", "failing_since": None, "hint": "Too slow."}
    api.responses["GET /v1/endpoints"] = page({**ENDPOINT, "health": health})
    lines = run("endpoints", "ep_0e").stdout.splitlines()
    assert [line.split(None, 1) for line in lines][-4:] == [
        ["account", "acc_0a11"], ["health"], ["status", "failing"], ["hint", "Too slow."]
    ]  # fmt: skip
    assert ["event_types", "all"] in [line.split(None, 1) for line in lines]
    assert output("endpoints")["health"] == output("endpoints", "ep_0e")["health"] == health
    assert "event_types" in output("endpoints")
    assert output("endpoints")["event_types"] == []


def test_an_endpoint_is_paused_enabled_and_disabled(api: FakeApi) -> None:
    for verb, state in (("pause", "paused"), ("enable", "enabled"), ("disable", "disabled")):
        assert output("endpoints", verb, "ep_0e")["state"] == state
        assert (api.requests[-1].path, api.requests[-1].headers["uplift-account"]) == (
            f"/v1/endpoints/ep_0e11/{verb}",
            "acc_0a11",
        )
    assert "state" in run("endpoints", "pause", "0e11", "--account", "Rapids").stdout
    for held in ("send", "drop", "keep"):
        output("endpoints", "enable", "ep_0e", "--held", held)
        assert api.requests[-1].body == {"held": held}
    output("endpoints", "enable", "ep_0e")
    assert api.requests[-1].body == {"held": "send"}
    missing = run("endpoints", "pause", "ep_0f")
    assert missing.exit_code == 4
    assert "uplift-server endpoints" in missing.stderr


def test_an_invalid_held_action_names_its_option(api: FakeApi) -> None:
    wrong = {"errors": [{"field": "held", "code": "value_unknown", "message": "Use one of 'send', 'drop' or 'keep'."}]}
    api.responses["POST /v1/endpoints/ep_0e11/enable"] = (422, {"code": "validation_failed", **wrong}, {})
    result = run("endpoints", "enable", "ep_0e", "--held", "burn")
    assert result.exit_code == 2
    assert "Use one of 'send', 'drop' or 'keep'." in result.stderr
    assert "correct --held" in result.stderr


def test_an_endpoint_is_tested(api: FakeApi) -> None:
    attempt = {"id": "att_1", "delivery": "dlv_0f11", "outcome": "delivered", "hint": None}
    api.responses["POST /v1/endpoints/ep_0e11/test"] = attempt
    assert output("endpoints", "test", "ep_0e") == attempt
    assert api.requests[-1].body == {}
    output("endpoints", "test", "0e11", "--type", "athlete.created")
    assert api.requests[-1].body == {"type": "athlete.created"}
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    failed = {**attempt, "outcome": "timeout", "hint": "Answer at once."}
    api.responses["POST /v1/endpoints/ep_0e11/test"] = failed
    result = run("endpoints", "test", "ep_0e", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, failed)
    assert json.loads(result.stderr)["error"] == {
        "cause": "the test attempt failed: timeout",
        "remedy": "Answer at once.",
        "exit_code": 1,
    }
    unknown = {"errors": [{"field": "type", "code": "event_type_unknown", "message": "The catalog has none."}]}
    api.responses["POST /v1/endpoints/ep_0e11/test"] = (422, {"code": "validation_failed", **unknown}, {})
    assert "--type" in run("endpoints", "test", "ep_0e", "--type", "no.such").stderr


def test_a_slow_test_is_polled_until_its_end(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "LOOK_SECONDS", 0.01)
    attempt = {"id": "att_1", "outcome": "delivered", "hint": None}
    states = iter(["pending", "pending", "delivered"])
    api.responses["POST /v1/endpoints/ep_0e11/test"] = (202, {**DELIVERY, "id": "dlv_0f11"}, {})
    api.responses["GET /v1/deliveries/dlv_0f11"] = lambda _: {**DELIVERY, "status": next(states)}
    api.responses["GET /v1/deliveries/dlv_0f11/attempts"] = page(attempt)
    assert output("endpoints", "test", "ep_0e") == attempt
    api.responses["GET /v1/deliveries/dlv_0f11"] = {**DELIVERY, "status": "failed"}
    api.responses["GET /v1/deliveries/dlv_0f11/attempts"] = page()
    unfinished = run("endpoints", "test", "ep_0e")
    assert unfinished.exit_code == 1
    assert "uplift-server deliveries dlv_0f11" in unfinished.stderr
    monkeypatch.setattr(views, "TEST_SECONDS_MAX", 0.0)
    api.responses["GET /v1/deliveries/dlv_0f11"] = {**DELIVERY, "status": "pending"}
    assert "has no result yet" in run("endpoints", "test", "ep_0e").stderr


def test_filters(api: FakeApi) -> None:
    api.responses["PATCH /v1/endpoints/ep_0e11"] = {**ENDPOINT, "filter": {"a": [1]}}
    event = {"id": "e1", "type": "athlete.created", "matches": False, "path": "data.a"}
    api.responses["POST /v1/endpoints/filter-preview"] = {"total": 1, "matched": 0, "events": [event]}
    assert output("endpoints", "update", "ep_0e11", "--filter", '{"a": [1]}')["filter"] == {"a": [1]}
    assert api.requests[-1].body == {"filter": {"a": [1]}}
    output("endpoints", "create", "https://x.example/", "--account", "Rapids", "--filter", '{"a": [1]}')
    assert api.requests[-1].body["filter"] == {"a": [1]}
    shown = output("endpoints", "preview-filter", '{"a": [1]}', "--account", "Rapids", "--type", "athlete.*")
    assert shown["events"] == [event]
    assert api.requests[-1].body == {"filter": {"a": [1]}, "event_types": ["athlete.*"], "limit": 20}
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    assert failure("endpoints", "preview-filter", "{", "--account", "Rapids")[0] == 2
