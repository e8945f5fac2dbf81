"""`uplift trigger` to a listen session: it waits for the response, and says how to fix failures."""

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
        api.answers["GET /v1/listen-sessions"] = {"data": [SESSION]}
        api.answers["GET /v1/event-types"] = {"data": [{"name": name} for name in TYPES]}
        api.answers["POST /v1/listen-sessions/lsn_1/test"] = _tested(None)
        yield api


def _answer(status: int | None, event: str = "e_1") -> dict[str, Any]:
    return {"event": event, "type": TYPES[0], "status_code": status, "duration_ms": 9000, "error": None, "body": ""}


def _tested(answer: dict[str, Any] | None) -> dict[str, Any]:
    return {"event": "e_1", "type": TYPES[0], "answer": answer}


def test_a_slow_server_is_waited_for(api: FakeApi) -> None:
    pages = iter([[], [_answer(500, "e_0")], [_answer(204), _answer(500, "e_0")]])
    api.answers["GET /v1/listen-sessions/lsn_1/answers"] = lambda _asked: {"data": next(pages)}

    result = run("trigger", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["answer"]["status_code"] == 204


def test_it_is_not_waited_for_without_end(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "TEST_SECONDS_MAX", 0.1)
    api.answers["GET /v1/listen-sessions/lsn_1/answers"] = {"data": []}

    result = run("trigger")
    assert result.exit_code == 1
    assert "Error: there was no response within" in result.stderr


@pytest.mark.parametrize("status", [400, 401])
def test_a_server_that_refuses_may_have_another_secret(api: FakeApi, status: int) -> None:
    api.answers["POST /v1/listen-sessions/lsn_1/test"] = _tested(_answer(status))

    result = run("trigger")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, f"Error: your server responded with {status}")
    assert "`uplift listen --print-secret`" in result.stderr


def test_a_group_is_no_type_and_one_of_its_types_is_meant(api: FakeApi) -> None:
    errors = [{"field": "type", "code": "event_type_unknown", "message": "There is none."}]
    refused = (422, {"code": "validation_failed", "status": 422, "detail": "Refused.", "errors": errors}, {})
    api.answers["POST /v1/listen-sessions/lsn_1/test"] = refused

    result = run("trigger", "movement.*")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (
        4,
        "How to fix: did you mean movement.analytics.created?",
    )


def test_an_unknown_type_without_a_similar_one_names_the_catalog(api: FakeApi) -> None:
    errors = [{"field": "type", "code": "event_type_unknown", "message": "There is none."}]
    rejected = (422, {"code": "validation_failed", "status": 422, "detail": "Rejected.", "errors": errors}, {})
    api.answers["POST /v1/listen-sessions/lsn_1/test"] = rejected

    result = run("trigger", "zzz")
    assert (result.exit_code, result.stderr.splitlines()[1]) == (
        4,
        "How to fix: see the event catalog in the dashboard, or the types of recent events: `uplift events`",
    )


def test_an_unknown_session_says_where_to_find_its_id(api: FakeApi) -> None:
    result = run("trigger", "--session", "lsn_none")

    assert result.exit_code == 4
    assert "the session ID that `uplift listen` prints" in result.stderr.splitlines()[1]


def test_api_calls_in_messages_become_commands(api: FakeApi) -> None:
    message = "See the event catalog (GET /v1/event-types), GET /v1/events or GET /v1/endpoints."
    errors = [{"field": "type", "code": "event_type_archived", "message": message}]
    rejected = (422, {"code": "validation_failed", "status": 422, "detail": "Rejected.", "errors": errors}, {})
    api.answers["POST /v1/listen-sessions/lsn_1/test"] = rejected

    result = run("trigger", "athlete.created")
    assert "TYPE: See the event catalog in the dashboard, `uplift events` or `uplift endpoints`." in result.stderr
