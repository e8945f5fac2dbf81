"""`uplift trigger` waits for the response of a listen session and reports how to fix failures."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.fake_api import FakeApi, fake_api

from uplift_webhooks.cli import trigger

from .test_program import run

SESSION = {"id": "lsn_1", "connected": True, "description": "here"}
TYPES = ["athlete.created", "movement.analytics.created"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with fake_api() as api:
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        monkeypatch.setattr(trigger, "LOOK_SECONDS", 0.01)
        api.responses["GET /v1/listen-sessions"] = {"data": [SESSION]}
        api.responses["GET /v1/event-types"] = {"data": [{"name": name} for name in TYPES]}
        api.responses["POST /v1/listen-sessions/lsn_1/test"] = _test_result(None)
        yield api


def _response(status: int | None, event: str = "e_1") -> dict[str, Any]:
    return {"event": event, "type": TYPES[0], "status_code": status, "duration_ms": 9000, "error": None, "body": ""}


def _test_result(response: dict[str, Any] | None) -> dict[str, Any]:
    return {"event": "e_1", "type": TYPES[0], "answer": response}


def test_trigger_waits_for_a_slow_server(api: FakeApi) -> None:
    pages = iter([[], [_response(500, "e_0")], [_response(204), _response(500, "e_0")]])
    api.responses["GET /v1/listen-sessions/lsn_1/answers"] = lambda _request: {"data": next(pages)}

    result = run("trigger", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["answer"]["status_code"] == 204


def test_the_wait_for_a_response_has_a_limit(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "TEST_SECONDS_MAX", 0.1)
    api.responses["GET /v1/listen-sessions/lsn_1/answers"] = {"data": []}

    result = run("trigger")
    assert result.exit_code == 1
    assert "Error: your server did not respond within" in result.stderr


@pytest.mark.parametrize("status", [400, 401])
def test_a_rejection_suggests_checking_the_secret(api: FakeApi, status: int) -> None:
    api.responses["POST /v1/listen-sessions/lsn_1/test"] = _test_result(_response(status))

    result = run("trigger")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, f"Error: your server responded with {status}")
    assert "`uplift listen --print-secret`" in result.stderr


def test_a_pattern_as_type_suggests_a_matching_type(api: FakeApi) -> None:
    errors = [{"field": "type", "code": "event_type_unknown", "message": "There is none."}]
    rejected = (422, {"code": "validation_failed", "status": 422, "detail": "Refused.", "errors": errors}, {})
    api.responses["POST /v1/listen-sessions/lsn_1/test"] = rejected

    result = run("trigger", "movement.*")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (
        4,
        "How to fix: did you mean movement.analytics.created? To list all: `uplift event-types`",
    )


def test_an_unknown_type_without_a_similar_one_names_the_catalog(api: FakeApi) -> None:
    errors = [{"field": "type", "code": "event_type_unknown", "message": "There is none."}]
    rejected = (422, {"code": "validation_failed", "status": 422, "detail": "Rejected.", "errors": errors}, {})
    api.responses["POST /v1/listen-sessions/lsn_1/test"] = rejected

    result = run("trigger", "zzz")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (
        4,
        "How to fix: to list all: `uplift event-types`",
    )


def test_an_unknown_session_shows_how_to_find_the_id(api: FakeApi) -> None:
    result = run("trigger", "--session", "lsn_none")

    assert result.exit_code == 4
    assert "the session ID that `uplift listen` prints" in result.stderr.splitlines()[1]


def test_api_calls_in_messages_become_commands(api: FakeApi) -> None:
    message = "See the event catalog (GET /v1/event-types), GET /v1/events or GET /v1/endpoints."
    errors = [{"field": "type", "code": "event_type_archived", "message": message}]
    rejected = (422, {"code": "validation_failed", "status": 422, "detail": "Rejected.", "errors": errors}, {})
    api.responses["POST /v1/listen-sessions/lsn_1/test"] = rejected

    result = run("trigger", "athlete.created")
    assert "TYPE: See the event catalog (`uplift event-types`), `uplift events` or `uplift endpoints`." in result.stderr
