"""Commands of `uplift`: delete endpoints, rotate secrets, list event types, reconcile, and write response bodies."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_api import Request, fake_api
from tests.receiver.cli.test_program import run

ENDPOINT = {"id": "ep_1", "url": "https://a.example", "state": "enabled", "event_types": []}


class Api:
    """A fake API that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.responses: dict[str, Any] = {"GET /v1/endpoints/ep_1": ENDPOINT}

    def respond(self, request: Request) -> Any:
        self.calls.append((request.method, request.path, request.body))
        found = self.responses.get(f"{request.method} {request.path}")
        if callable(found):
            found = found(request)
        return (200, found, {}) if found is not None else (204, None, {})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A fake API that the program uses."""
    with fake_api() as server:
        found = Api()
        server.respond = found.respond  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", server.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield found


def test_an_endpoint_is_shown_before_it_is_deleted(api: Api) -> None:
    shown = run("endpoints", "delete", "ep_1")
    assert "repeat the command with --yes" in shown.stderr
    assert [method for method, _, _ in api.calls] == ["GET"]
    assert json.loads(run("endpoints", "delete", "ep_1", "--yes", "--json").stdout) == {"id": "ep_1", "deleted": True}
    assert api.calls[-1] == ("DELETE", "/v1/endpoints/ep_1", None)


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--retry-schedule", "5s, 5m,2h"], {"retry_schedule": ["5s", "5m", "2h"]}),
        (["--retry-schedule", "none", "--attempt-timeout", "10s"], {"retry_schedule": [], "attempt_timeout": "10s"}),
        (
            ["--retry-schedule", "default", "--max-in-flight", "default"],
            {"retry_schedule": None, "max_in_flight": None},
        ),
        (["--max-in-flight", "4", "--attempt-timeout", "default"], {"max_in_flight": 4, "attempt_timeout": None}),
    ],
)
def test_settings_are_set_and_reset(api: Api, options: list[str], body: dict[str, Any]) -> None:
    api.responses["PATCH /v1/endpoints/ep_1"] = ENDPOINT
    assert run("endpoints", "update", "ep_1", *options).exit_code == 0
    assert api.calls[-1] == ("PATCH", "/v1/endpoints/ep_1", body)
    api.responses["POST /v1/endpoints"] = {**ENDPOINT, "retry_schedule": []}
    created = run("endpoints", "create", "https://a.example", *options)
    assert ["retry_schedule", "none"] in [line.split() for line in created.stdout.splitlines()]
    assert api.calls[-1] == ("POST", "/v1/endpoints", {"url": "https://a.example", "event_types": [], **body})


def test_a_setting_that_is_not_a_number_is_a_usage_error(api: Api) -> None:
    result = run("endpoints", "update", "ep_1", "--max-in-flight", "many")
    assert (result.exit_code, api.calls) == (2, [])
    assert "--max-in-flight many: the value is not a whole number" in result.stderr
    assert "default" in result.stderr


def test_secrets_are_shown_and_rotated(api: Api, tmp_path: Path) -> None:
    own = tmp_path / "secret"
    own.write_text("whsec_own\n")
    secret = {"secret": "whsec_new", "previous_expires_at": None}
    for call in ("GET /v1/endpoints/ep_1/secret", "POST /v1/endpoints/ep_1/secret/rotate"):
        api.responses[call] = secret
    api.responses["POST /v1/endpoints/ep_1/secret/expire-old"] = secret

    assert json.loads(run("endpoints", "secret", "show", "ep_1", "--json").stdout) == secret
    rotated = run("endpoints", "secret", "rotate", "ep_1", "--overlap", "2h", "--secret-file", str(own))
    assert rotated.exit_code == 0
    assert api.calls[-1][2] == {"secret": "whsec_own", "overlap_seconds": 7200, "uplift_header": None}
    assert run("endpoints", "secret", "rotate", "ep_1", "--overlap", "0").exit_code == 0
    assert api.calls[-1][2]["overlap_seconds"] == 0
    assert run("endpoints", "secret", "expire-old", "ep_1").exit_code == 0
    wrong = run("endpoints", "secret", "rotate", "ep_1", "--overlap", "soon")
    assert (wrong.exit_code, "--overlap: 'soon' is not a duration" in wrong.stderr) == (2, True)


def test_event_types_are_listed_and_shown(api: Api) -> None:
    shown = {
        "name": "athlete.created",
        "description": "An athlete.",
        "schema": None,
        "example": {"object": {"id": "a"}},
    }
    api.responses["GET /v1/event-types"] = {"data": [shown], "next_cursor": None, "has_more": False}
    api.responses["GET /v1/event-types/athlete.created"] = shown
    assert run("event-types").stdout.splitlines()[1] == "athlete.created\tAn athlete."
    assert '"id": "a"' in run("event-types", "athlete.created").stdout
    assert json.loads(run("event-types", "athlete.created", "--json").stdout) == shown


def test_the_last_response_body_is_written_unchanged(api: Api) -> None:
    attempts = [{"number": 2, "response": None}, {"number": 1, "response": {"body": "wrong\nsecret"}}]
    api.responses["GET /v1/deliveries/dlv_1"] = {"id": "dlv_1", "status": "failed"}
    api.responses["GET /v1/deliveries/dlv_1/attempts"] = {"data": attempts, "next_cursor": None, "has_more": False}
    assert run("deliveries", "dlv_1", "--response-body").stdout == "wrong\nsecret"
    del attempts[1]
    missing = run("deliveries", "show", "dlv_1", "--response-body")
    assert (missing.exit_code, "no attempt of the delivery has a response" in missing.stderr) == (1, True)


def _pages_of(*types: str) -> Callable[[Request], Any]:
    """Return a response with events of these types, two per page."""

    def page(request: Request) -> Any:
        first = int(request.query.get("cursor", "0"))
        last = min(first + 2, len(types))
        data = [{"id": f"e{number}", "type": types[number], "created_at": "x"} for number in range(first, last)]
        return {"data": data, "next_cursor": str(last), "has_more": last < len(types)}

    return page


def test_a_reconciliation_lists_each_event_of_a_pattern_once(api: Api, tmp_path: Path) -> None:
    api.responses["GET /v1/events"] = _pages_of("c", "c", "a.b", "a.b", "a.b")
    command = ("reconcile", "--type", "a.*", "--cursor-file", str(tmp_path / "cursor"), "--limit", "1", "--json")
    ids = [[json.loads(line)["id"] for line in run(*command).stdout.splitlines()] for _ in range(3)]
    assert ids == [["e2", "e3"], ["e4"], []]


def test_a_reconciliation_continues_where_the_last_one_ended(api: Api, tmp_path: Path) -> None:
    api.responses["GET /v1/events"] = _pages_of(*["a.b"] * 5)
    cursor = tmp_path / "uplift.cursor"
    command = ("reconcile", "--cursor-file", str(cursor), "--limit", "3", "--json")
    ids = [[json.loads(line)["id"] for line in run(*command).stdout.splitlines()] for _ in range(3)]
    assert ids == [["e0", "e1", "e2", "e3"], ["e4"], []]
    assert cursor.read_text() == "5\n"
    assert list(tmp_path.iterdir()) == [cursor]

    assert "No further events" in run("reconcile", "--cursor-file", str(cursor)).stderr
    cursor.write_bytes(b"\xff")
    assert run(*command).exit_code == 2
    unwritable = run("reconcile", "--cursor-file", str(tmp_path / "missing" / "cursor"))
    assert (unwritable.exit_code, "cannot write" in unwritable.stderr) == (1, True)
