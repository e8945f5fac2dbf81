"""`uplift rejected-events`."""

import json
from collections.abc import Iterator

import pytest
from tests.cli.fake_api import FakeApi, fake_api
from tests.receiver.cli.test_program import run

ERRORS = [
    {"field": "type", "code": "event_type_unknown", "message": "The event type is unknown."},
    {"field": "data.object.height", "code": "schema_mismatch", "message": "The data is not valid."},
]
PROBLEM = {"title": "Invalid request", "status": 422, "detail": "2 fields are not valid.", "code": "validation_failed"}
INVALID = {
    "id": "rej_0197f0c2", "subject": "uplift.events.club-17", "type": "athlete.updatet", "event_id": None,
    "idempotency_key": "athlete-7", "problem": {**PROBLEM, "errors": ERRORS}, "size_bytes": 412,
    "published_at": "2026-01-31T08:00:00.000Z", "rejected_at": "2026-01-31T08:00:00.010Z",
}  # fmt: skip
CONFLICT = {
    **INVALID, "id": "rej_0197f0c1", "type": None,
    "problem": {**PROBLEM, "detail": "The key was used before.", "code": "idempotency_conflict"},
}  # fmt: skip


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """An API with two rejected events."""
    with fake_api() as api:
        api.responses["GET /v1/rejected-events"] = {"data": [INVALID, CONFLICT], "next_cursor": None}
        api.responses["GET /v1/rejected-events/rej_0197f0c2"] = INVALID
        api.responses["GET /v1/rejected-events/0197f0c1"] = (404, {"code": "not_found", "detail": "No."}, {})
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield api


def test_the_list_has_the_first_cause(api: FakeApi) -> None:
    result = run("rejected-events", "--type", "athlete.updatet", "--type", "x", "--since", "2026-01-31T00:00:00Z")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["REJECTED EVENT", "TYPE", "IDEMPOTENCY KEY", "CAUSE", "REJECTED"],
        [
            INVALID["id"],
            "athlete.updatet",
            "athlete-7",
            "type: The event type is unknown. (1 more)",
            INVALID["rejected_at"],
        ],
        [CONFLICT["id"], "-", "athlete-7", "The key was used before.", CONFLICT["rejected_at"]],
    ]
    query = api.requests[-1].query
    assert (query["since"], "until" in query) == ("2026-01-31T00:00:00Z", False)
    lines = run("rejected-events", "list", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [INVALID, CONFLICT]


def test_filters_by_event_id_and_idempotency_key(api: FakeApi) -> None:
    run("rejected-events", "--event-id", "0197f0c2", "--idempotency-key", "athlete-7")
    query = api.requests[-1].query
    assert (query["event_id"], query["idempotency_key"]) == ("0197f0c2", "athlete-7")


def test_a_rejected_event_shows_every_cause(api: FakeApi) -> None:
    shown = run("rejected-events", "rej_0197f0c2").stdout
    for text in ("uplift.events.club-17", "2 fields are not valid.", "event_type_unknown", "data.object.height"):
        assert text in shown
    assert json.loads(run("rejected-events", "show", "rej_0197f0c2", "--json").stdout) == INVALID
    assert "The key was used before." in run("rejected-events", "show", "0197f0c1").stdout


def test_a_cause_without_a_field(api: FakeApi) -> None:
    errors = [{"field": "", "code": "type_object", "message": "The event must be a JSON object."}]
    shown = {**INVALID, "problem": {**PROBLEM, "errors": errors}}
    api.responses["GET /v1/rejected-events"] = {"data": [shown], "next_cursor": None}
    assert "\tThe event must be a JSON object.\t" in run("rejected-events").stdout


def test_no_rejected_events(api: FakeApi) -> None:
    api.responses["GET /v1/rejected-events"] = {"data": [], "next_cursor": None}
    result = run("rejected-events")
    assert (result.exit_code, result.stdout) == (0, "")
    result = run("rejected-events", "show", "0197f0c1")
    assert (result.exit_code, "uplift rejected-events" in result.stderr) == (4, True)
