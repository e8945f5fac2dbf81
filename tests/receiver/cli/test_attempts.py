"""`uplift attempts`, and filters of lists."""

import json
from typing import Any

import pytest
from tests.cli.fake_api import Request, fake_api
from tests.receiver.cli.test_program import run

ATTEMPT = {
    "id": "att_1", "delivery": "dlv_1", "event": "e1", "endpoint": "ep_1", "number": 2, "trigger": "schedule",
    "started_at": "2026-01-31T08:00:00.000Z", "duration_ms": 12.5, "status_code": 503, "outcome": "server_error",
    "response": {"headers": {}, "body": "busy", "body_truncated": False},
}  # fmt: skip


def test_attempts_are_listed_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def respond(request: Request) -> Any:
        asked.append((request.path, request.query))
        path = request.path.removeprefix("/v1")
        answers = {"/attempts": [ATTEMPT], "/endpoints": []}
        if path in answers:
            return 200, {"data": answers[path], "next_cursor": None, "prev_cursor": None}, {}
        return 200, ATTEMPT if path.startswith("/attempts") else {"id": path.rpartition("/")[2]}, {}

    with fake_api() as api:
        api.respond = respond  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        listed = run("attempts", "--endpoint", "ep_1", "--delivery", "dlv_1", "--status-code", "5xx", "--json")
        shown = run("attempts", "att_1")
        run("endpoints", "list", "--type", "athlete.created")

    assert json.loads(listed.stdout) == ATTEMPT
    assert asked[2] == (
        "/v1/attempts", {"limit": "50", "endpoint": "ep_1", "delivery": "dlv_1", "status_code": "5xx"}
    )  # fmt: skip
    assert shown.exit_code == 0
    assert "busy" in shown.stdout
    assert asked[-1] == ("/v1/endpoints", {"limit": "50", "event_type": "athlete.created"})
