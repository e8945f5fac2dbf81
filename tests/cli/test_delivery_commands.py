"""Commands about deliveries and replays."""

import re
from typing import Any

import pytest
from tests.cli.commands import DELIVERY, REPLAY, check_closed_pipe, failure, output, page, run
from tests.cli.fake_api import FakeApi

from uplift_server.cli import replays
from uplift_server.cli.deliveries import stands


def test_deliveries(api: FakeApi) -> None:
    assert output("deliveries", "--status", "pending", "--endpoint", "ep_0e", "--type", "athlete.created") == DELIVERY
    assert api.requests[-1].query == {
        "limit": "50", "status": "pending", "endpoint": "ep_0e11", "type": "athlete.created"
    }  # fmt: skip
    output("deliveries", "--status-code", "5xx", "--outcome", "tls_error", "--object-id", "o", "--after", "2026-01-31")
    assert api.requests[-1].query == {
        "limit": "50", "status_code": "5xx", "outcome": "tls_error", "object_id": "o", "created_after": "2026-01-31"
    }  # fmt: skip
    assert run("deliveries", "--event", "e1", "--object-id", "o").exit_code == 2
    assert (
        run("deliveries")
        .stdout.splitlines()[1]
        .startswith("dlv_0d11\tep_0e11\tathlete.created\tpending\t2\ttimeout\t-\t")
    )
    assert output("deliveries", "--event", "e1", "--status", "failed")["status"] == "failed"
    assert run("deliveries", "--status", "lost").exit_code == 2


def test_a_delivery_shows_its_attempts_in_order(api: FakeApi) -> None:
    found = output("deliveries", "dlv_0d")
    assert found["id"] == "dlv_0d11"
    assert [each["number"] for each in found["attempts"]] == [2, 1]
    shown = run("deliveries", "dlv_0d11", "--account", "Rapids").stdout
    assert shown.index("\n1\t") < shown.index("\n2\t")
    assert "Too slow.?[2J Response: no such?[2J event" in shown


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"waiting_for": None, "next_attempt_at": None}, "in flight: timeout"),
        ({"waiting_for": None, "next_attempt_at": None, "last_outcome": None}, "in flight"),
        ({"waiting_for": "turn", "next_attempt_at": "2020-01-01T00:00:00.000Z"}, "due: timeout"),
        ({"waiting_for": "turn", "next_attempt_at": None}, "due: timeout"),
        ({"waiting_for": "schedule", "next_attempt_at": "2999-01-01T00:00:00.000Z"}, r"in \d+ d: timeout"),
        ({"waiting_for": "probe", "next_attempt_at": "2999-01-01T00:00:00.000Z"}, r"circuit open, probe in \d+ d"),
        ({"waiting_for": "probe", "next_attempt_at": "2020-01-01T00:00:00.000Z"}, "circuit open, probe due"),
        ({"waiting_for": "worker", "next_attempt_at": None, "last_outcome": None}, "due or in flight"),
        ({"status": "delivered", "last_outcome": "delivered"}, "delivered"),
        ({"status": "failed", "last_outcome": "server_error"}, "failed: server_error"),
        ({"status": "failed", "last_outcome": None, "failed_reason": "expired"}, "failed: expired"),
        ({"status": "held"}, "held: timeout"),
    ],
)
def test_the_status_of_a_delivery_is_one_phrase(changed: dict[str, Any], text: str) -> None:
    assert re.fullmatch(text, stands({**DELIVERY, **changed}))


def test_a_terminal_shows_deliveries_within_its_width(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    whole = {**DELIVERY, "id": f"dlv_{'01' * 22}", "endpoint": f"ep_{'02' * 16}", "type": "movement.analytics.created"}
    api.responses["GET /v1/deliveries"] = page(whole)
    heading, line = run("deliveries").stdout.splitlines()
    assert heading.split() == ["DELIVERY", "ENDPOINT", "TYPE", "STATUS", "ATTEMPTS", "CREATED"]
    assert line.split()[:2] == ["010101010101", "020202020202"]
    assert len(line) <= 80
    assert f"dlv_{'01' * 22}  ep_{'02' * 16}  movement" in run("deliveries", "--wide").stdout
    assert "an attempt is in flight" in run("deliveries", "0101").stdout


def test_an_event_is_found_by_prefix_and_a_missing_one_is_an_error(api: FakeApi) -> None:
    api.responses["GET /v1/events"] = page({"id": "e1"})
    assert output("deliveries", "--event", "e", "--status", "failed")["status"] == "failed"
    assert failure("deliveries", "--event", "f")[:2] == (4, "there is no event 'f'")


def test_a_delivery_is_resent_and_cancelled(api: FakeApi) -> None:
    assert output("deliveries", "cancel", "dlv_0d")["status"] == "cancelled"
    assert (api.requests[-1].method, api.requests[-1].path) == ("POST", "/v1/deliveries/dlv_0d11/cancel")
    assert output("deliveries", "resend", "0d11", "--account", "Rapids") == DELIVERY
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    in_flight = {"code": "conflict", "detail": "An attempt is in flight."}
    api.responses["POST /v1/deliveries/dlv_0d11/cancel"] = (409, in_flight, {})
    rejected = run("deliveries", "cancel", "dlv_0d")
    assert rejected.exit_code == 1
    assert "An attempt is in flight." in rejected.stderr


def test_matching_deliveries_of_an_account_are_previewed_and_resent(api: FakeApi) -> None:
    share = {"endpoint": "ep_0e11", "count": 3, "reason": None}
    api.responses["POST /v1/deliveries/resend"] = {
        "count": 3, "endpoints": [share], "replays": [{**share, "id": "rpl_1", "total": 3}], "skipped": []
    }  # fmt: skip
    options = ("deliveries", "resend", "--account", "Rapids", "--status-code", "5xx", "--endpoint", "ep_0e")
    body = {"status_code": ["5xx"], "endpoint": ["ep_0e11"]}
    assert "repeat the command with --yes" in run(*options).stderr
    assert api.requests[-1].body == {**body, "dry_run": True}
    assert "rpl_1" in run(*options, "--yes").stdout
    assert (api.requests[-1].body, api.requests[-1].headers["uplift-account"]) == (body, "acc_0a11")
    both, no_account = ("deliveries", "resend", "dlv_0d", "--status", "failed"), (*options[:2], *options[4:])
    assert [run(*each).exit_code for each in (options[:2], both, no_account)] == [2, 2, 2]


def test_explain_shows_the_cause_and_how_to_fix_it(api: FakeApi) -> None:
    why = {
        "endpoint": "ep_0e11",
        "reason": "not_subscribed",
        "text": "Other types.",
        "hint": "Add it.",
        "delivery": None,
    }
    api.responses["GET /v1/events/e1"] = {"id": "e1", "account": "acc_0a11"}
    api.responses["GET /v1/events/e1/explain"] = {"data": [why]}
    assert run("events", "explain", "e1").stdout.splitlines()[1] == "ep_0e11\tnot_subscribed\tOther types.\tAdd it."
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    assert output("events", "explain", "e1", "--endpoint", "0e1") == why
    assert api.requests[-1].query == {"endpoint": "ep_0e11"}
    deleted = f"ep_{'0f' * 16}"
    output("events", "explain", "e1", "--endpoint", deleted)
    assert api.requests[-1].query == {"endpoint": deleted}


def test_a_replay_is_created_from_its_options(api: FakeApi) -> None:
    assert output("replays", "create", "ep_0e") == REPLAY
    assert api.requests[-1].body == {"endpoint": "ep_0e11"}
    options = ["--status", "failed", "--status", "cancelled", "--type", "athlete.*", "--after", "2026-01-01T00:00:00Z"]
    options += ["--before", "2026-02-01T00:00:00Z", "--rate", "7", "--account", "Rapids", "--dry-run"]
    output("replays", "create", "ep_0e11", *options)
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    assert api.requests[-1].body == {
        "endpoint": "ep_0e11",
        "status": ["failed", "cancelled"],
        "types": ["athlete.*"],
        "created_after": "2026-01-01T00:00:00Z",
        "created_before": "2026-02-01T00:00:00Z",
        "rate_per_second": 7,
        "dry_run": True,
    }


def test_an_invalid_replay_names_its_options(api: FakeApi) -> None:
    wrong = {"errors": [{"field": "status", "code": "status_not_replayable", "message": "Held ones are not."}]}
    api.responses["POST /v1/replays"] = (422, {"code": "validation_failed", **wrong}, {})
    result = run("replays", "create", "ep_0e", "--status", "held")
    assert result.exit_code == 2
    assert "Held ones are not." in result.stderr
    assert "correct --status" in result.stderr


def test_replays(api: FakeApi) -> None:
    assert output("replays", "list") == REPLAY
    assert run("replays", "list").stdout.splitlines()[1].startswith("rpl_0c11\tep_0e11\trunning\t10\t3\t1\t0\t")
    assert output("replays", "show", "rpl_0c") == REPLAY
    api.responses["GET /v1/replays/rpl_0c11"] = (200, {**REPLAY, "status": "failed"}, {})
    assert re.search(r"^delivery_status +failed$", run("replays", "show", "rpl_0c11").stdout, re.MULTILINE)
    del api.responses["GET /v1/replays/rpl_0c11"]
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert output("replays", verb, "rpl_0c", "--account", "Rapids")["state"] == state
        assert (api.requests[-1].method, api.requests[-1].path) == ("POST", f"/v1/replays/rpl_0c11/{verb}")
    missing = run("replays", "show", "rpl_0f")
    assert missing.exit_code == 4
    assert "uplift-server replays list" in missing.stderr


@pytest.mark.parametrize("state", ["completed", "cancelled", "paused"])
def test_replay_waits_until_the_replay_stops(api: FakeApi, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(replays, "LOOK_SECONDS", 0.01)
    states = iter([{**REPLAY, "reason": "counting", "total": None}, REPLAY, {**REPLAY, "state": state, "sent": 10}])
    api.responses["GET /v1/replays/rpl_0c11"] = lambda _: next(states)
    found = output("replays", "create", "ep_0e", "--wait")
    assert (found["state"], found["sent"]) == (state, 10)
    assert next(states, None) is None


@pytest.mark.parametrize("command", ["accounts Rapids", "endpoints ep_0e", "deliveries dlv_0d"])
def test_an_object_in_a_closed_pipe_exits_with_0(api: FakeApi, command: str) -> None:
    check_closed_pipe(*command.split())
