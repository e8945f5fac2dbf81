"""The everyday commands: what they ask of a server that runs, and what they show."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_api import FakeApi, fake_api
from typer.testing import CliRunner, Result

from uplift_server.cli import endpoints, reach, replays
from uplift_server.cli.deliveries import stands
from uplift_server.cli.main import app
from uplift_server.config import load
from uplift_server.store.sqlite.connection import FileLock

ACCOUNT = {"id": "acc_0a11", "name": "Rapids", "contact_emails": ["a@b.example"], "created_at": "2025-11-24T16:00:00Z"}
ENDPOINT = {"id": "ep_0e11", "url": "https://x.example/", "state": "enabled", "event_types": [], "account": "acc_0a11",
            "health": {"status": "healthy"}}  # fmt: skip
DELIVERY = {"id": "dlv_0d11", "type": "athlete.created", "status": "pending", "attempts_made": 2, "endpoint": "ep_0e11",
            "last_outcome": "timeout", "next_attempt_at": None, "account": "acc_0a11"}  # fmt: skip


MEMBER = {"id": "mem_0f11", "account": "acc_0a11", "email": "ann@b.example", "name": "Ann", "role": "manager",
          "has_password": True, "created_at": "2025-11-24T16:00:00Z"}  # fmt: skip
INVITATION = {"id": "inv_0f11", "account": "acc_0a11", "email": "bob@b.example", "role": "member",
              "invited_by": "The operator", "created_at": "2025-11-24T16:00:00Z",
              "expires_at": "2025-12-01T16:00:00Z"}  # fmt: skip
LINK = {"url": "https://hooks.example.com/enter/abc", "expires_at": "2025-11-24T16:05:00Z"}
REPLAY = {"id": "rpl_0c11", "endpoint": "ep_0e11", "state": "running", "reason": None, "total": 10, "sent": 4,
          "delivered": 3, "failed": 1, "skipped": 0, "created_at": "2025-11-24T16:00:00Z"}  # fmt: skip


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"data": list(items), "next_cursor": None}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A server that has the database and answers as told."""
    monkeypatch.chdir(tmp_path)
    with fake_api() as found:
        monkeypatch.setenv("UPLIFT_PORT", found.url.rpartition(":")[2])
        monkeypatch.setenv("UPLIFT_OPERATOR_KEY", "op_the_key_of_this_test")
        database = load({}).database_path
        database.parent.mkdir()
        lock = FileLock(database)
        lock.acquire()
        found.answers = {
            "GET /v1/accounts": listed(ACCOUNT),
            "GET /v1/accounts/acc_0a11": ACCOUNT,
            "GET /v1/accounts/acc_0a11/keys": listed(
                {"id": "key_0b11", "name": "n", "ends_with": "wxyz", "scopes": ["listen"]}
            ),
            "GET /v1/accounts/acc_0a11/members": listed(MEMBER),
            "POST /v1/accounts/acc_0a11/members": (201, INVITATION, {}),
            "PATCH /v1/accounts/acc_0a11/members/mem_0f11": {**MEMBER, "role": "owner"},
            "DELETE /v1/accounts/acc_0a11/members/mem_0f11": (204, None, {}),
            "POST /v1/accounts/acc_0a11/members/mem_0f11/password-reset": (201, LINK, {}),
            "GET /v1/accounts/acc_0a11/invitations": listed(INVITATION),
            "DELETE /v1/accounts/acc_0a11/invitations/inv_0f11": (204, None, {}),
            "POST /v1/accounts/acc_0a11/portal-links": (201, LINK, {}),
            "POST /v1/sign-in-links": (201, LINK, {}),
            "GET /v1/endpoints": listed(ENDPOINT),
            "GET /v1/deliveries": listed(DELIVERY),
            "POST /v1/endpoints/ep_0e11/pause": {**ENDPOINT, "state": "paused"},
            "POST /v1/endpoints/ep_0e11/enable": ENDPOINT,
            "POST /v1/endpoints/ep_0e11/disable": {**ENDPOINT, "state": "disabled", "disabled_reason": "operator"},
            "POST /v1/deliveries/dlv_0d11/resend": (202, DELIVERY, {}),
            "POST /v1/deliveries/dlv_0d11/cancel": {**DELIVERY, "status": "cancelled"},
            "GET /v1/replays": listed(REPLAY),
            "GET /v1/replays/rpl_0c11": REPLAY,
            "POST /v1/replays": (201, REPLAY, {}),
            "POST /v1/replays/rpl_0c11/pause": {**REPLAY, "state": "paused"},
            "POST /v1/replays/rpl_0c11/resume": REPLAY,
            "POST /v1/replays/rpl_0c11/cancel": {**REPLAY, "state": "cancelled"},
            f"GET /v1/deliveries/dlv_{'01' * 22}/attempts": listed(),
            "GET /v1/deliveries/dlv_0d11/attempts": listed({"number": 2}, {"number": 1, "hint": "Too slow.\x1b[2J"}),
            "GET /v1/events/e1": {"id": "e1", "deliveries": {"pending": 2, "held": 1}},
            "GET /v1/events/e1/deliveries": listed(DELIVERY, {**DELIVERY, "status": "failed"}),
            "GET /v1/event-types/athlete.created": {"example": {"object": {"id": "a"}}},
            "GET /v1/event-types/own.type": {"example": None},
            "GET /v1/event-types": listed({"name": "athlete.created", "description": "Added."}, {"name": "own.type"}),
            "POST /v1/accounts": (201, ACCOUNT, {}),
            "POST /v1/accounts/acc_0a11/keys": (201, {"id": "key_0b11", "key": "sk_shown_once"}, {}),
            "POST /v1/endpoints": (201, {**ENDPOINT, "secret": "whsec_shown_once"}, {}),
            "POST /v1/events": (202, {"id": "e1", "duplicate": False}, {}),
            "DELETE /v1/accounts/acc_0a11": (204, None, {}),
            "DELETE /v1/accounts/acc_0a11/keys/key_0b11": (204, None, {}),
            "DELETE /v1/endpoints/ep_0e11": (204, None, {}),
        }
        yield found
        lock.release()


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def output(*arguments: str, stdin: str | None = None) -> Any:
    result = run(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_accounts(api: FakeApi) -> None:
    assert output("accounts") == ACCOUNT
    assert run("accounts").stdout.splitlines()[1] == "acc_0a11\tRapids\ta@b.example\t2025-11-24T16:00:00Z"
    assert output("account", "create", "Rapids", "--email", "a@b.example", "--email", "c@d.example") == ACCOUNT
    assert api.asked[-1].body == {"name": "Rapids", "contact_emails": ["a@b.example", "c@d.example"]}
    assert api.asked[-1].headers["authorization"] == "Bearer op_the_key_of_this_test"


def test_nothing_is_deleted_without_saying_so(api: FakeApi) -> None:
    result = run("account", "delete", "Rapids")
    assert result.exit_code == 2
    assert result.stderr.endswith("Remedy: repeat the command with --yes\n")
    assert all(asked.method == "GET" for asked in api.asked)
    assert output("account", "delete", "Rapids", "--yes") == {"id": "acc_0a11", "deleted": True}


def test_keys(api: FakeApi) -> None:
    assert output("keys", "--account", "Rapids")["ends_with"] == "wxyz"
    arguments = ["key", "create", "--account", "acc_0a11", "--scopes", "events:read,listen", "--scopes", "events:write"]
    assert output(*arguments)["key"] == "sk_shown_once"
    assert api.asked[-1].body == {"name": "command line", "scopes": ["events:read", "listen", "events:write"]}
    assert "not shown again" in run("key", "create", "--account", "acc_0a11").stderr
    assert api.asked[-1].body == {"name": "command line"}
    assert output("key", "revoke", "key_0b", "--account", "acc_0a11") == {"id": "key_0b11", "revoked": True}


def test_an_operators_key_is_made_up_without_asking_anybody(api: FakeApi) -> None:
    made = output("key", "create")["key"]
    assert load({"UPLIFT_OPERATOR_KEY": made}).operator_key == made
    assert output("key", "create")["key"] != made
    assert run("key", "create", "--scopes", "listen").exit_code == 2
    assert api.asked == []


def test_endpoints(api: FakeApi) -> None:
    assert output("endpoints", "--account", "Rapids")["id"] == "ep_0e11"
    assert api.asked[-1].headers["uplift-account"] == "acc_0a11"
    assert run("endpoints").stdout.splitlines()[1] == "ep_0e11\thttps://x.example/\tenabled\thealthy\tall"
    assert "uplift-account" not in api.asked[-1].headers
    assert "--state" not in run("endpoints", "--state", "failing", "--text", "x.example").stderr
    assert api.asked[-1].query == {"limit": "50", "state": "failing", "text": "x.example"}
    assert output("endpoints", "ep_0e")["url"] == "https://x.example/"
    arguments = [
        "endpoint",
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
    assert api.asked[-1].body == {"url": "https://x.example/", "event_types": ["a.*"], "description": "d"}
    assert output("endpoint", "delete", "ep_0e") == {"id": "ep_0e11", "deleted": True}
    assert api.asked[-1].headers["uplift-account"] == "acc_0a11"


def test_sending_takes_a_file_standard_input_or_the_example(api: FakeApi, tmp_path: Path) -> None:
    send = ["send", "athlete.created", "--account", "Rapids"]
    assert output(*send) == {"id": "e1", "duplicate": False, "deliveries": 3}
    assert api.asked[-2].body == {"type": "athlete.created", "data": {"object": {"id": "a"}}}
    (tmp_path / "data.json").write_text('{"object": 1}')
    output(*send, "--data", "data.json", "--idempotency-key", "k1")
    assert api.asked[-2].body["data"] == {"object": 1}
    assert api.asked[-2].headers["idempotency-key"] == "k1"
    output(*send, "--data", "-", stdin='{"object": 2}')
    assert api.asked[-2].body["data"] == {"object": 2}
    assert run(*send).stderr == ""


def test_an_event_that_no_endpoint_wants_is_told(api: FakeApi) -> None:
    send = ["send", "athlete.created", "--account", "Rapids"]
    api.answers["GET /v1/events/e1"] = {"id": "e1", "deliveries": {"pending": 0}}
    assert output(*send)["deliveries"] == 0
    assert run(*send).stderr == (
        "It is stored, and nothing will be sent: no endpoint of the account wants athlete.created. See why:"
        " uplift-server explain e1\n"
    )
    # The event is stored, whatever becomes of a question about it.
    api.answers["GET /v1/events/e1"] = (503, {}, {})
    assert output(*send) == {"id": "e1", "duplicate": False}


@pytest.mark.parametrize("content", ["", "{", '{"object": NaN', "[" * 100_000])
def test_data_that_cannot_be_sent_is_refused_before_anybody_is_asked(api: FakeApi, content: str) -> None:
    result = run("send", "athlete.created", "--account", "Rapids", "--data", "-", stdin=content)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: standard input is not JSON")
    assert run("send", "athlete.created", "--account", "Rapids", "--data", "missing").exit_code == 2
    assert run("send", "own.type", "--account", "Rapids").exit_code == 2
    assert all(asked.method == "GET" for asked in api.asked)


def test_deliveries(api: FakeApi) -> None:
    assert output("deliveries", "--status", "pending", "--endpoint", "ep_0e", "--type", "athlete.created") == DELIVERY
    assert api.asked[-1].query == {
        "limit": "50", "status": "pending", "endpoint": "ep_0e11", "type": "athlete.created"
    }  # fmt: skip
    assert (
        run("deliveries")
        .stdout.splitlines()[1]
        .startswith("dlv_0d11\tep_0e11\tathlete.created\tpending\t2\ttimeout\t-\t")
    )
    assert output("deliveries", "--event", "e1", "--status", "failed")["status"] == "failed"
    assert run("deliveries", "--status", "lost").exit_code == 2


def test_one_delivery_comes_with_its_attempts_in_order(api: FakeApi) -> None:
    found = output("deliveries", "dlv_0d")
    assert found["id"] == "dlv_0d11"
    assert [each["number"] for each in found["attempts"]] == [2, 1]
    shown = run("deliveries", "dlv_0d11", "--account", "Rapids").stdout
    assert shown.index("\n1\t") < shown.index("\n2\t")
    assert "Too slow.?[2J" in shown


def test_an_endpoint_is_paused_enabled_and_disabled(api: FakeApi) -> None:
    for verb, state in (("pause", "paused"), ("enable", "enabled"), ("disable", "disabled")):
        assert output("endpoint", verb, "ep_0e")["state"] == state
        assert (api.asked[-1].path, api.asked[-1].headers["uplift-account"]) == (
            f"/v1/endpoints/ep_0e11/{verb}",
            "acc_0a11",
        )
    assert "state" in run("endpoint", "pause", "0e11", "--account", "Rapids").stdout
    for held in ("send", "drop", "keep"):
        output("endpoint", "enable", "ep_0e", "--held", held)
        assert api.asked[-1].body == {"held": held}
    output("endpoint", "enable", "ep_0e")
    assert api.asked[-1].body == {"held": "send"}
    missing = run("endpoint", "pause", "ep_0f")
    assert missing.exit_code == 4
    assert "uplift-server endpoints" in missing.stderr


def test_an_endpoint_is_tested(api: FakeApi) -> None:
    attempt = {"id": "att_1", "delivery": "dlv_0f11", "outcome": "delivered", "hint": None}
    api.answers["POST /v1/endpoints/ep_0e11/test"] = attempt
    assert output("endpoint", "test", "ep_0e") == attempt
    assert api.asked[-1].body == {}
    output("endpoint", "test", "0e11", "--type", "athlete.created")
    assert api.asked[-1].body == {"type": "athlete.created"}
    assert api.asked[-1].headers["uplift-account"] == "acc_0a11"
    failed = {**attempt, "outcome": "timeout", "hint": "Answer at once."}
    api.answers["POST /v1/endpoints/ep_0e11/test"] = failed
    result = run("endpoint", "test", "ep_0e", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, failed)
    assert json.loads(result.stderr)["error"] == {
        "cause": "the endpoint did not take it: timeout",
        "remedy": "Answer at once.",
        "exit_code": 1,
    }
    unknown = {"errors": [{"field": "type", "code": "event_type_unknown", "message": "The catalog has none."}]}
    api.answers["POST /v1/endpoints/ep_0e11/test"] = (422, {"code": "validation_failed", **unknown}, {})
    assert "--type" in run("endpoint", "test", "ep_0e", "--type", "no.such").stderr


def test_a_test_that_takes_longer_is_looked_at_until_it_is_over(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "LOOK_SECONDS", 0.01)
    attempt = {"id": "att_1", "outcome": "delivered", "hint": None}
    states = iter(["pending", "pending", "delivered"])
    api.answers["POST /v1/endpoints/ep_0e11/test"] = (202, {**DELIVERY, "id": "dlv_0f11"}, {})
    api.answers["GET /v1/deliveries/dlv_0f11"] = lambda _: {**DELIVERY, "status": next(states)}
    api.answers["GET /v1/deliveries/dlv_0f11/attempts"] = listed(attempt)
    assert output("endpoint", "test", "ep_0e") == attempt
    api.answers["GET /v1/deliveries/dlv_0f11"] = {**DELIVERY, "status": "failed"}
    api.answers["GET /v1/deliveries/dlv_0f11/attempts"] = listed()
    cut_off = run("endpoint", "test", "ep_0e")
    assert cut_off.exit_code == 1
    assert "uplift-server deliveries dlv_0f11" in cut_off.stderr
    monkeypatch.setattr(endpoints, "TEST_SECONDS_MAX", 0.0)
    api.answers["GET /v1/deliveries/dlv_0f11"] = {**DELIVERY, "status": "pending"}
    assert "has not ended" in run("endpoint", "test", "ep_0e").stderr


def test_a_wrong_way_with_held_ones_is_told_by_its_option(api: FakeApi) -> None:
    wrong = {"errors": [{"field": "held", "code": "value_unknown", "message": "Use one of 'send', 'drop' or 'keep'."}]}
    api.answers["POST /v1/endpoints/ep_0e11/enable"] = (422, {"code": "validation_failed", **wrong}, {})
    result = run("endpoint", "enable", "ep_0e", "--held", "burn")
    assert result.exit_code == 2
    assert "Use one of 'send', 'drop' or 'keep'." in result.stderr
    assert "correct --held" in result.stderr


def test_a_delivery_is_resent_and_cancelled(api: FakeApi) -> None:
    assert output("delivery", "cancel", "dlv_0d")["status"] == "cancelled"
    assert (api.asked[-1].method, api.asked[-1].path) == ("POST", "/v1/deliveries/dlv_0d11/cancel")
    assert output("delivery", "resend", "0d11", "--account", "Rapids") == DELIVERY
    assert api.asked[-1].headers["uplift-account"] == "acc_0a11"
    in_flight = {"code": "conflict", "detail": "The delivery is in flight."}
    api.answers["POST /v1/deliveries/dlv_0d11/cancel"] = (409, in_flight, {})
    refused = run("delivery", "cancel", "dlv_0d")
    assert refused.exit_code == 1
    assert "The delivery is in flight." in refused.stderr


def test_a_replay_is_made_of_what_was_asked_for(api: FakeApi) -> None:
    assert output("replay", "create", "ep_0e") == REPLAY
    assert api.asked[-1].body == {"endpoint": "ep_0e11"}
    asked = ["--status", "failed", "--status", "cancelled", "--type", "athlete.*", "--after", "2026-01-01T00:00:00Z"]
    asked += ["--before", "2026-02-01T00:00:00Z", "--rate", "7", "--account", "Rapids", "--dry-run"]
    output("replay", "create", "ep_0e11", *asked)
    assert api.asked[-1].headers["uplift-account"] == "acc_0a11"
    assert api.asked[-1].body == {
        "endpoint": "ep_0e11",
        "status": ["failed", "cancelled"],
        "types": ["athlete.*"],
        "created_after": "2026-01-01T00:00:00Z",
        "created_before": "2026-02-01T00:00:00Z",
        "rate_per_second": 7,
        "dry_run": True,
    }


def test_what_is_wrong_with_a_replay_is_told_by_its_options(api: FakeApi) -> None:
    wrong = {"errors": [{"field": "status", "code": "status_not_replayable", "message": "Held ones are not."}]}
    api.answers["POST /v1/replays"] = (422, {"code": "validation_failed", **wrong}, {})
    result = run("replay", "create", "ep_0e", "--status", "held")
    assert result.exit_code == 2
    assert "Held ones are not." in result.stderr
    assert "correct --status" in result.stderr


def test_replays(api: FakeApi) -> None:
    assert output("replay", "list") == REPLAY
    assert run("replay", "list").stdout.splitlines()[1].startswith("rpl_0c11\tep_0e11\trunning\t10\t3\t1\t0\t")
    assert output("replay", "show", "rpl_0c") == REPLAY
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert output("replay", verb, "rpl_0c", "--account", "Rapids")["state"] == state
        assert (api.asked[-1].method, api.asked[-1].path) == ("POST", f"/v1/replays/rpl_0c11/{verb}")
    missing = run("replay", "show", "rpl_0f")
    assert missing.exit_code == 4
    assert "uplift-server replay list" in missing.stderr


@pytest.mark.parametrize("state", ["completed", "cancelled", "paused"])
def test_a_replay_is_waited_for_until_it_goes_on_no_more(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(replays, "LOOK_SECONDS", 0.01)
    looks = iter([{**REPLAY, "reason": "counting", "total": None}, REPLAY, {**REPLAY, "state": state, "sent": 10}])
    api.answers["GET /v1/replays/rpl_0c11"] = lambda _: next(looks)
    found = output("replay", "create", "ep_0e", "--wait")
    assert (found["state"], found["sent"]) == (state, 10)
    assert next(looks, None) is None


def test_an_empty_list_says_how_to_fill_it(api: FakeApi) -> None:
    api.answers["GET /v1/accounts"] = listed()
    result = run("accounts")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "uplift-server account create" in result.stderr
    assert run("accounts", "--json").stderr == ""


def test_the_key_the_first_serve_kept_is_used_where_none_is_set(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLIFT_OPERATOR_KEY")
    result = run("accounts")
    assert result.exit_code == 3
    assert "set UPLIFT_OPERATOR_KEY" in result.stderr
    config = load({})
    reach.store_operator_key(config, "op_kept_by_the_first_serve")
    assert reach.operator_key_path(config).stat().st_mode & 0o777 == 0o600
    output("accounts")
    assert api.asked[-1].headers["authorization"] == "Bearer op_kept_by_the_first_serve"


def test_a_server_that_has_the_database_but_does_not_answer_is_a_reason_to_try_later(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLIFT_PORT", "1")
    assert run("accounts").exit_code == 75


def refused(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    """The exit code, the cause and the remedy."""
    result = run(*arguments, "--json", stdin=stdin)
    error = json.loads(result.stderr)["error"]
    assert result.exit_code == error["exit_code"]
    return result.exit_code, error["cause"], error["remedy"]


def invalid(*problems: tuple[str, str, str]) -> tuple[int, dict[str, Any], dict[str, str]]:
    errors = [dict(zip(("field", "code", "message"), each, strict=True)) for each in problems]
    return 422, {"code": "validation_failed", "errors": errors}, {}


def test_an_unknown_type_is_answered_with_the_nearest(api: FakeApi) -> None:
    wanted = (
        4,
        "there is no event type athlete.create",
        "did you mean athlete.created? `uplift-server event-types` lists them all",
    )
    assert refused("send", "athlete.create", "--account", "Rapids") == wanted
    unknown = invalid(("type", "event_type_unknown", "No such type."))
    api.answers |= {"POST /v1/events": unknown, "GET /v1/deliveries": unknown}
    assert refused("send", "athlete.create", "--account", "Rapids", "--data", "-", stdin="{}") == wanted
    assert refused("deliveries", "--type", "athlete.create") == wanted
    assert refused("event-types", "athlete.create") == wanted
    assert refused("event-types", "zzz")[2] == "`uplift-server event-types` lists them all"


def test_event_types(api: FakeApi) -> None:
    assert run("event-types").stdout == "TYPE\tMEANS\nathlete.created\tAdded.\nown.type\t-\n"
    assert output("event-types", "athlete.created") == {"example": {"object": {"id": "a"}}}
    assert '"id": "a"' in run("event-types", "athlete.created").stdout


def test_a_refusal_names_the_option_it_is_about(api: FakeApi) -> None:
    api.answers["POST /v1/accounts"] = invalid(("contact_emails.1", "email", "No address."))
    assert refused("account", "create", "X", "--email", "a")[1:] == ("--email: No address.", "correct --email")
    api.answers["POST /v1/accounts/acc_0a11/keys"] = invalid(("scopes", "scope_unknown", "No scope."))
    assert refused("key", "create", "--account", "Rapids", "--scopes", "x")[2] == "correct --scopes"
    api.answers["POST /v1/endpoints"] = invalid(("url", "u", "m"), ("event_types", "e", "See GET /v1/event-types."))
    code, cause, remedy = refused("endpoint", "create", "ftp://x", "--account", "Rapids", "--type", "x")
    assert (code, cause) == (2, "the URL: m; --type: See `uplift-server event-types`.")
    assert remedy == "correct the URL and --type (`uplift-server event-types` lists them)"
    api.answers["POST /v1/events"] = invalid(("data.object.id", "schema", "See GET /v1/event-types/athlete.created."))
    code, cause, remedy = refused("send", "athlete.created", "--account", "Rapids")
    assert cause == "the data in --data at object.id: See `uplift-server event-types athlete.created`."
    assert remedy == "correct the data in --data"


def test_an_idempotency_key_that_was_used_for_something_else(api: FakeApi) -> None:
    api.answers["POST /v1/events"] = (409, {"code": "idempotency_conflict", "detail": "Used before."}, {})
    code, _, remedy = refused("send", "athlete.created", "--account", "Rapids", "--idempotency-key", "k")
    assert (code, remedy) == (
        1,
        "give another --idempotency-key, or send exactly what was sent with this one before",
    )


def test_an_event_may_be_shortened_and_one_that_is_not_there_is_told(api: FakeApi) -> None:
    api.answers["GET /v1/events"] = listed({"id": "e1"})
    assert output("deliveries", "--event", "e", "--status", "failed")["status"] == "failed"
    assert refused("deliveries", "--event", "f")[:2] == (4, "there is no event 'f'")


def test_an_endpoint_is_shown_as_a_block_that_ends_with_its_health(api: FakeApi) -> None:
    health = {"status": "failing", "failing_since": None, "hint": "Too slow."}
    api.answers["GET /v1/endpoints"] = listed({**ENDPOINT, "health": health})
    lines = run("endpoints", "ep_0e").stdout.splitlines()
    assert [line.split(None, 1) for line in lines][-4:] == [
        ["account", "acc_0a11"], ["health"], ["status", "failing"], ["hint", "Too slow."]
    ]  # fmt: skip
    assert ["event_types", "all"] in [line.split(None, 1) for line in lines]
    assert output("endpoints")["health"] == output("endpoints", "ep_0e")["health"] == health
    assert "event_types" in output("endpoints")
    assert output("endpoints")["event_types"] == []


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"waiting_for": None, "next_attempt_at": None}, "in flight: timeout"),
        ({"waiting_for": None, "next_attempt_at": None, "last_outcome": None}, "in flight"),
        ({"waiting_for": "turn", "next_attempt_at": "2020-01-01T00:00:00.000Z"}, "due: timeout"),
        ({"waiting_for": "turn", "next_attempt_at": None}, "due: timeout"),
        ({"waiting_for": "schedule", "next_attempt_at": "2999-01-01T00:00:00.000Z"}, r"in \d+ d: timeout"),
        ({"waiting_for": "probe", "next_attempt_at": "2999-01-01T00:00:00.000Z"}, r"endpoint failing, probe in \d+ d"),
        ({"waiting_for": "probe", "next_attempt_at": "2020-01-01T00:00:00.000Z"}, "endpoint failing, probed now"),
        ({"waiting_for": "worker", "next_attempt_at": None, "last_outcome": None}, "due or in flight"),
        ({"status": "delivered", "last_outcome": "delivered"}, "delivered"),
        ({"status": "failed", "last_outcome": "server_error"}, "failed: server_error"),
        ({"status": "failed", "last_outcome": None, "failed_reason": "expired"}, "failed: expired"),
        ({"status": "held"}, "held: timeout"),
    ],
)
def test_how_a_delivery_stands_is_one_phrase(changed: dict[str, Any], text: str) -> None:
    assert re.fullmatch(text, stands({**DELIVERY, **changed}))


def test_a_terminal_shows_deliveries_within_its_width(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    whole = {**DELIVERY, "id": f"dlv_{'01' * 22}", "endpoint": f"ep_{'02' * 16}", "type": "movement.analytics.created"}
    api.answers["GET /v1/deliveries"] = listed(whole)
    heading, line = run("deliveries").stdout.splitlines()
    assert heading.split() == ["DELIVERY", "ENDPOINT", "TYPE", "STATUS", "TRIES", "CREATED"]
    assert line.split()[:2] == ["010101010101", "020202020202"]
    assert len(line) <= 80
    assert f"dlv_{'01' * 22}  ep_{'02' * 16}  movement" in run("deliveries", "--wide").stdout
    assert "an attempt is in flight" in run("deliveries", "0101").stdout


def test_the_audit_log_says_who_did_what(api: FakeApi) -> None:
    changed = {"changed": ["url"], "to": {"url": "https://ü.example/"}}
    by_key = {
        "at": "2025-11-24T16:00:00.000Z", "actor": {"kind": "key", "id": "key_0b11", "name": "n"},
        "action": "endpoint.changed", "subject": "ep_0e11", "details": changed, "address": "192.0.2.1",
    }  # fmt: skip
    by_us = {**by_key, "actor": {"kind": "system", "id": None, "name": "Uplift Webhooks"}, "address": None,
             "action": "endpoint.disabled", "details": {"reason": "failing"}}  # fmt: skip
    api.answers["GET /v1/audit-log"] = listed(by_us, by_key)
    result = run("audit-log", "--account", "acc_0a11", "--actor", "key", "--after", "2025-01-01T00:00:00Z")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["WHEN", "WHO", "DID", "TO", "DETAILS", "FROM"],
        [by_us["at"], "Uplift Webhooks", "endpoint.disabled", "ep_0e11", "reason: failing", "-"],
        [by_key["at"], "key n", "endpoint.changed", "ep_0e11",
         'changed: ["url"], to: {"url": "https://ü.example/"}', "192.0.2.1"],
    ]  # fmt: skip
    asked = api.asked[-1]
    assert asked.query == {"limit": "50", "actor": "key", "created_after": "2025-01-01T00:00:00Z"}
    assert asked.headers["uplift-account"] == "acc_0a11"
    lines = run("audit-log", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [by_us, by_key]


def test_the_audit_log_knows_its_actions(api: FakeApi) -> None:
    result = run("audit-log", "--action", "endpoint.exploded")
    assert result.exit_code == 2
    assert "endpoint.changed" in result.stderr


def test_a_wrong_instant_is_told_by_its_option(api: FakeApi) -> None:
    problems = [{"field": "created_after", "code": "instant_invalid", "message": "No."}]
    problem = {"code": "validation_failed", "detail": "1 field is wrong.", "errors": problems}
    api.answers["GET /v1/audit-log"] = (422, problem, {})
    result = run("audit-log", "--after", "yesterday")
    assert result.exit_code == 2
    assert "--after" in result.stderr


def test_explain_says_why_and_what_to_do(api: FakeApi) -> None:
    why = {
        "endpoint": "ep_0e11",
        "reason": "not_subscribed",
        "text": "Other types.",
        "hint": "Add it.",
        "delivery": None,
    }
    api.answers["GET /v1/events/e1"] = {"id": "e1", "account": "acc_0a11"}
    api.answers["GET /v1/events/e1/explain"] = {"data": [why]}
    assert run("explain", "e1").stdout.splitlines()[1] == "ep_0e11\tnot_subscribed\tOther types.\tAdd it."
    assert api.asked[-1].headers["uplift-account"] == "acc_0a11"
    assert output("explain", "e1", "--endpoint", "0e1") == why
    assert api.asked[-1].query == {"endpoint": "ep_0e11"}
    deleted = f"ep_{'0f' * 16}"
    output("explain", "e1", "--endpoint", deleted)
    assert api.asked[-1].query == {"endpoint": deleted}
