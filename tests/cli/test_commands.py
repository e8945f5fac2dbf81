"""Basic commands: their requests and output."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.cli.commands import ACCOUNT, failure, output, page, run, validation_error
from tests.cli.fake_api import FakeApi

from uplift_server.cli import reach
from uplift_server.config import load
from uplift_webhooks.cli.kit.errors import ExitCode


def test_accounts(api: FakeApi) -> None:
    assert output("accounts") == ACCOUNT
    assert run("accounts").stdout.splitlines()[1] == "acc_0a11\tRapids\ta@b.example\t2025-11-24T16:00:00Z"
    assert output("accounts", "create", "Rapids", "--email", "a@b.example", "--email", "c@d.example") == ACCOUNT
    assert api.requests[-1].body == {"name": "Rapids", "contact_emails": ["a@b.example", "c@d.example"]}
    assert api.requests[-1].headers["authorization"] == "Bearer op_the_key_of_this_test"


def test_deleting_needs_a_confirmation(api: FakeApi) -> None:
    result = run("accounts", "delete", "Rapids")
    assert result.exit_code == 2
    assert result.stderr.endswith("How to fix: to confirm, repeat the command with --yes\n")
    assert all(request.method == "GET" for request in api.requests)
    assert output("accounts", "delete", "Rapids", "--yes") == {"id": "acc_0a11", "deleted": True}


def test_keys(api: FakeApi) -> None:
    assert output("keys", "--account", "Rapids")["ends_with"] == "wxyz"
    arguments = [
        "keys",
        "create",
        "--account",
        "acc_0a11",
        "--scopes",
        "events:read,listen",
        "--scopes",
        "events:write",
    ]
    assert output(*arguments)["key"] == "sk_shown_once"
    assert api.requests[-1].body == {"name": "command line", "scopes": ["events:read", "listen", "events:write"]}
    assert "cannot view it again" in run("keys", "create", "--account", "acc_0a11").stderr
    assert api.requests[-1].body == {"name": "command line"}
    assert output("keys", "revoke", "key_0b", "--account", "acc_0a11") == {"id": "key_0b11", "revoked": True}


def test_keys_are_updated(api: FakeApi) -> None:
    update = ["keys", "update", "key_0b", "--account", "Rapids"]
    assert output(*update, "--name", "n2", "--expires-at", "2027-01-31T00:00:00Z") == {"id": "key_0b11", "name": "n2"}
    assert api.requests[-1].body == {"name": "n2", "expires_at": "2027-01-31T00:00:00Z"}
    output(*update, "--expires-at", "never")
    assert api.requests[-1].body == {"expires_at": None}
    assert failure(*update)[0] == ExitCode.USAGE


def test_service_keys(api: FakeApi) -> None:
    assert output("keys", "--service")["id"] == "key_0c11"
    create = ["keys", "create", "--service", "--name", "s", "--scopes", "events:write"]
    assert output(*create, "--expires-at", "2027-01-31T00:00:00Z")["key"] == "svc_shown_once"
    assert (api.requests[-1].path, api.requests[-1].body) == (
        "/v1/keys",
        {"name": "s", "scopes": ["events:write"], "expires_at": "2027-01-31T00:00:00Z"},
    )
    assert output("keys", "update", "key_0c", "--service", "--name", "s2") == {"id": "key_0c11", "name": "s2"}
    assert output("keys", "revoke", "key_0c", "--service") == {"id": "key_0c11", "revoked": True}
    count = len(api.requests)
    for arguments in (["keys"], ["keys", "revoke", "key_0c"], [*create, "--account", "Rapids"]):
        assert run(*arguments).exit_code == ExitCode.USAGE
    # The only requests read the accounts, to list the choices for the missing option.
    assert {each.path for each in api.requests[count:]} == {"/v1/accounts"}


def test_portal_links(api: FakeApi) -> None:
    assert output("portal-links", "list", "--account", "Rapids")["id"] == "lnk_0b11"
    assert output("portal-links", "revoke", "lnk_0b", "--account", "Rapids") == {"id": "lnk_0b11", "revoked": True}


def test_an_operator_key_is_created_without_a_server(api: FakeApi) -> None:
    key = output("keys", "create")["key"]
    assert load({"UPLIFT_OPERATOR_KEY": key}).operator_key == key
    assert output("keys", "create")["key"] != key
    assert run("keys", "create", "--scopes", "listen").exit_code == 2
    assert api.requests == []


def test_send_accepts_a_file_standard_input_or_the_example(api: FakeApi, tmp_path: Path) -> None:
    send = ["events", "send", "athlete.created", "--account", "Rapids"]
    assert output(*send) == {"id": "e1", "duplicate": False, "deliveries": 3}
    assert api.requests[-2].body == {"type": "athlete.created", "data": {"object": {"id": "a"}}}
    (tmp_path / "data.json").write_text('{"object": 1}')
    output(*send, "--data", "data.json", "--idempotency-key", "k1", "--ordering-key", "athlete_1")
    assert (api.requests[-2].body["data"], api.requests[-2].body["ordering_key"]) == ({"object": 1}, "athlete_1")
    assert api.requests[-2].headers["idempotency-key"] == "k1"
    output(*send, "--data", "-", stdin='{"object": 2}')
    assert api.requests[-2].body["data"] == {"object": 2}
    assert run(*send).stderr == ""


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('{"type": 3, "data": {}}', 'not an event such as {"type": "athlete.created", "data": {}}'),
        ('{"type": "a.b"}', 'not an event such as {"type": "athlete.created", "data": {}}'),
        ("[" * 100_000, "not valid JSON: "),
        ('{"type": "a.b", "data": {}, "acount": "x"}', "unknown field acount; known fields: account, data, "),
        ('{"type": "a.b", "data": [], "account": "acc_1"}', "data must be a dictionary"),
        ('{"type": "a.b", "data": {}}', "The event has no account"),
        ('"' + "x" * 300_000 + '"', "the line has more than "),
    ],
)
def test_a_wrong_line_of_a_file_is_named(api: FakeApi, line: str, cause: str) -> None:
    result = run("events", "send", "--file", "-", stdin=f"\n{line}\n")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: line 2 of standard input: {cause}")
    assert not [request for request in api.requests if request.method == "POST"]


def test_send_counts_the_events_of_a_file_without_a_response(api: FakeApi) -> None:
    api.responses["POST /v1/events/batch"] = (202, {}, {})
    result = run("send", "--file", "-", "--json", stdin='{"type": "a.b", "data": {}, "account": "acc_1"}\n' * 2)
    assert result.exit_code == 75
    assert json.loads(result.stdout) == {"accepted": 0, "duplicates": 0, "rejected": 0, "rejections": []}
    error = json.loads(result.stderr)["error"]
    assert error["cause"] == "the server did not respond to 2 of the events"
    assert "correct" not in error["remedy"]


def test_the_keys_of_lines_do_not_depend_on_other_lines(api: FakeApi) -> None:
    api.responses["POST /v1/events/batch"] = lambda request: (
        202, {"data": [{"id": "e1", "duplicate": False} for _ in request.body["events"]]}, {}
    )  # fmt: skip

    def keys_of(*numbers: int) -> list[str]:
        lines = [f'{{"type": "a.b", "data": {{"n": {number}}}, "account": "acc_1"}}\n' for number in numbers]
        api.requests.clear()
        assert run("send", "--file", "-", stdin="".join(lines)).exit_code == 0
        batches = [each.body["events"] for each in api.requests if each.method == "POST"]
        return [event["idempotency_key"] for batch in batches for event in batch]

    keys = keys_of(1, 2, 2, 3)
    assert len(set(keys)) == 4
    assert keys_of(2, 2, 3) == keys[1:]


def test_an_interrupted_send_does_not_wait_for_the_server(api: FakeApi) -> None:
    requests = itertools.count(1)
    reached = threading.Event()

    def busy(_: object) -> tuple[int, object, dict[str, str]]:
        # The third request follows two waits, so the main thread is reading the next line by then. A signal right
        # before a blocking read does not interrupt the read.
        if next(requests) == 3:
            reached.set()
        return 503, {}, {}

    api.responses["POST /v1/events/batch"] = busy
    # A background job of a shell ignores SIGINT, and so do the processes that it starts.
    command = ["env", "--default-signal=INT", str(Path(sys.executable).with_name("uplift-server"))]
    with subprocess.Popen([*command, "send", "--file", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"type": "a.b", "data": {}, "account": "acc_1"}\n')
        process.stdin.flush()
        assert reached.wait(60)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - began < 20


def test_send_takes_one_event_or_a_file(api: FakeApi) -> None:
    for arguments, cause in (
        (("events", "send"), "the command needs either TYPE or --file"),
        (("events", "send", "a.b", "--file", "x"), "the command needs either TYPE or --file"),
        (("events", "send", "a.b"), "the option --account is missing"),
        (("events", "send", "--file", "x", "--data", "y"), "--file cannot be combined with"),
        (("events", "send", "--file", "missing"), "cannot read missing"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stderr.splitlines()[0][: len(cause) + 7]) == (2, f"Error: {cause}")


def test_send_reports_an_event_without_deliveries(api: FakeApi) -> None:
    send = ["events", "send", "athlete.created", "--account", "Rapids"]
    api.responses["GET /v1/events/e1"] = {"id": "e1", "deliveries": {"pending": 0}}
    assert output(*send)["deliveries"] == 0
    assert run(*send).stderr == (
        "The event is stored without deliveries: no endpoint of the account matches it. For details, run:"
        " uplift-server events explain e1\n"
    )
    # The event is stored even if the next request fails.
    api.responses["GET /v1/events/e1"] = (503, {}, {})
    assert output(*send) == {"id": "e1", "duplicate": False}


@pytest.mark.parametrize("content", ["", "{", '{"object": NaN', "[" * 100_000])
def test_invalid_data_is_rejected_before_a_request(api: FakeApi, content: str) -> None:
    result = run("events", "send", "athlete.created", "--account", "Rapids", "--data", "-", stdin=content)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: standard input is not valid JSON")
    assert run("events", "send", "athlete.created", "--account", "Rapids", "--data", "missing").exit_code == 2
    assert run("events", "send", "own.type", "--account", "Rapids").exit_code == 2
    assert all(request.method == "GET" for request in api.requests)


def test_an_empty_list_shows_the_next_command(api: FakeApi) -> None:
    api.responses["GET /v1/accounts"] = page()
    result = run("accounts")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "uplift-server accounts create" in result.stderr
    assert run("accounts", "--json").stderr == ""


def test_the_saved_operator_key_is_used_by_default(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLIFT_OPERATOR_KEY")
    api.responses["GET /readyz"] = (200, b"ready\n", {})
    result = run("accounts")
    assert result.exit_code == 3
    assert "set UPLIFT_OPERATOR_KEY" in result.stderr
    config = load({})
    reach.store_operator_key(config, "op_kept_by_the_first_serve")
    assert reach.operator_key_path(config).stat().st_mode & 0o777 == 0o600
    output("accounts")
    assert api.requests[-1].headers["authorization"] == "Bearer op_kept_by_the_first_serve"


def test_a_server_that_does_not_respond_exits_with_try_later(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_PORT", "1")
    assert run("accounts").exit_code == 75


def test_an_unknown_event_type_suggests_the_nearest(api: FakeApi) -> None:
    expected = (
        4,
        "there is no event type athlete.create",
        "did you mean athlete.created? To list all: `uplift-server event-types`",
    )
    assert failure("events", "send", "athlete.create", "--account", "Rapids") == expected
    unknown = validation_error(("type", "event_type_unknown", "No such type."))
    api.responses |= {"POST /v1/events": unknown, "GET /v1/deliveries": unknown}
    assert failure("events", "send", "athlete.create", "--account", "Rapids", "--data", "-", stdin="{}") == expected
    assert failure("deliveries", "--type", "athlete.create") == expected
    assert failure("event-types", "athlete.create") == expected
    assert failure("event-types", "zzz")[2] == "to list all: `uplift-server event-types`"


def test_event_types(api: FakeApi) -> None:
    assert run("event-types").stdout == "TYPE\tDESCRIPTION\nathlete.created\tAdded.\nown.type\t-\n"
    assert output("event-types", "athlete.created") == {"example": {"object": {"id": "a"}}}
    assert '"id": "a"' in run("event-types", "athlete.created").stdout


def test_an_error_names_its_option(api: FakeApi) -> None:
    api.responses["POST /v1/accounts"] = validation_error(("contact_emails.1", "email", "No address."))
    assert failure("accounts", "create", "X", "--email", "a")[1:] == ("--email: No address.", "correct --email")
    api.responses["POST /v1/accounts/acc_0a11/keys"] = validation_error(("scopes", "scope_unknown", "No scope."))
    assert failure("keys", "create", "--account", "Rapids", "--scopes", "x")[2] == "correct --scopes"
    api.responses["POST /v1/endpoints"] = validation_error(
        ("url", "u", "m"), ("event_types", "e", "See GET /v1/event-types.")
    )
    code, cause, remedy = failure("endpoints", "create", "ftp://x", "--account", "Rapids", "--type", "x")
    assert (code, cause) == (2, "the URL: m; --type: See `uplift-server event-types`.")
    assert remedy == "correct the URL and --type (`uplift-server event-types` lists them)"
    api.responses["POST /v1/events"] = validation_error(
        ("data.object.id", "schema", "See GET /v1/event-types/athlete.created.")
    )
    code, cause, remedy = failure("events", "send", "athlete.created", "--account", "Rapids")
    assert cause == "the data in --data at object.id: See `uplift-server event-types athlete.created`."
    assert remedy == "correct the data in --data"


def test_a_reused_idempotency_key_is_rejected(api: FakeApi) -> None:
    api.responses["POST /v1/events"] = (409, {"code": "idempotency_conflict", "detail": "Used before."}, {})
    code, _, remedy = failure("events", "send", "athlete.created", "--account", "Rapids", "--idempotency-key", "k")
    assert (code, remedy) == (
        1,
        "use a new --idempotency-key, or send the same event as before",
    )


def test_the_audit_log_lists_entries(api: FakeApi) -> None:
    changed = {"changed": ["url"], "to": {"url": "https://ü.example/"}}
    by_key = {
        "at": "2025-11-24T16:00:00.000Z", "actor": {"kind": "key", "id": "key_0b11", "name": "n"},
        "action": "endpoint.changed", "subject": "ep_0e11", "details": changed, "address": "192.0.2.1",
    }  # fmt: skip
    by_us = {**by_key, "actor": {"kind": "system", "id": None, "name": "Uplift Webhooks"}, "address": None,
             "action": "endpoint.disabled", "details": {"reason": "failing"}}  # fmt: skip
    api.responses["GET /v1/audit-log"] = page(by_us, by_key)
    result = run("audit-log", "--account", "acc_0a11", "--actor", "key", "--after", "2025-01-01T00:00:00Z")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["TIME", "ACTOR", "ACTION", "SUBJECT", "DETAILS", "ADDRESS"],
        [by_us["at"], "Uplift Webhooks", "endpoint.disabled", "ep_0e11", "reason: failing", "-"],
        [by_key["at"], "key n", "endpoint.changed", "ep_0e11",
         'changed: ["url"], to: {"url": "https://ü.example/"}', "192.0.2.1"],
    ]  # fmt: skip
    request = api.requests[-1]
    assert request.query == {"limit": "50", "actor": "key", "created_after": "2025-01-01T00:00:00Z"}
    assert request.headers["uplift-account"] == "acc_0a11"
    lines = run("audit-log", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [by_us, by_key]


def test_fleet_shows_problems_and_causes(api: FakeApi) -> None:
    critical = {"code": "mass_failure", "severity": "critical", "title": "Mass failure: 179 of 202 endpoints",
                "extent": "20 accounts.", "next_step": "Check the network.",
                "since": "2025-11-24T16:00:00.000Z"}  # fmt: skip
    group = {"cause": "dns", "title": "Host name does not resolve", "how_to_fix": "x", "endpoints": 179, "accounts": 20,
             "pending_deliveries": 83808, "oldest_due_at": None, "since": "2025-11-24T16:00:00.000Z"}  # fmt: skip
    found = {"status": "critical", "pending_deliveries": 83808, "problems": [critical], "failing": [group]}
    api.responses["GET /v1/fleet"] = found
    result = run("fleet")
    assert result.exit_code == ExitCode.FAILED
    for text in ("83,808 pending", "critical: Mass failure: 179 of 202", "20 accounts.", "Check the network."):
        assert text in result.stdout
    assert "Host name does not resolve\t179\t20\t2025-11-24T16:00:00.000Z\t83808\t-" in result.stdout
    assert json.loads(run("fleet", "--json").stdout) == found

    api.responses["GET /v1/fleet"] = {**found, "status": "ok", "problems": [], "failing": []}
    result = run("fleet")
    assert (result.exit_code, "No endpoint is failing" in result.stdout) == (ExitCode.OK, True)


def test_the_audit_log_rejects_unknown_actions(api: FakeApi) -> None:
    result = run("audit-log", "--action", "endpoint.exploded")
    assert result.exit_code == 2
    assert "endpoint.changed" in result.stderr


def test_an_invalid_time_names_its_option(api: FakeApi) -> None:
    problems = [{"field": "created_after", "code": "instant_invalid", "message": "No."}]
    problem = {"code": "validation_failed", "detail": "1 field is not valid.", "errors": problems}
    api.responses["GET /v1/audit-log"] = (422, problem, {})
    result = run("audit-log", "--after", "yesterday")
    assert result.exit_code == 2
    assert "--after" in result.stderr


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("account create Rapids --email a@b.example", "accounts create Rapids --email a@b.example"),
        ("key create --account Rapids", "keys create --account Rapids"),
        ("member invitations --account Rapids", "members invitations --account Rapids"),
        ("portal-link list --account Rapids", "portal-links list --account Rapids"),
        ("sign-in-link --account Rapids", "sign-in-links create --account Rapids"),
        ("endpoint pause ep_0e", "endpoints pause ep_0e"),
        ("endpoints", "endpoints list"),
        ("endpoints ep_0e", "endpoints show ep_0e"),
        ("delivery cancel dlv_0d", "deliveries cancel dlv_0d"),
        ("deliveries --status pending", "deliveries list --status pending"),
        ("deliveries dlv_0d --account Rapids", "deliveries show dlv_0d --account Rapids"),
        ("deliveries --account Rapids dlv_0d", "deliveries show dlv_0d --account Rapids"),
        ("event-types athlete.created", "event-types show athlete.created"),
        ("replay show rpl_0c", "replays show rpl_0c"),
        ("send athlete.created --account Rapids", "events send athlete.created --account Rapids"),
        ("explain e1", "events explain e1"),
    ],
)
def test_former_names_of_commands_work(former: str, name: str, api: FakeApi) -> None:
    api.responses["GET /v1/events/e1/explain"] = page({"endpoint": "ep_0e11", "reason": "not_subscribed"})
    assert output(*former.split()) == output(*name.split())
    group = former.partition(" ")[0]
    assert f"│ {group} " not in run("--help").stdout or name.startswith(f"{group} ")
