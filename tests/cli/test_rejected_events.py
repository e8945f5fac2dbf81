"""`uplift-server rejected-events`."""

import json

from tests.cli.commands import page, run
from tests.cli.fake_api import FakeApi

PROBLEM = {
    "title": "Invalid request", "status": 422, "detail": "1 field is not valid.", "code": "validation_failed",
    "errors": [{"field": "type", "code": "event_type_unknown", "message": "The event type\x1b[2J is unknown."}],
}  # fmt: skip
REJECTED = {
    "id": "rej_0b11", "account": None, "subject": "uplift.events.club-17", "type": None, "event_id": "e1",
    "idempotency_key": "k", "problem": PROBLEM, "size_bytes": 412,
    "published_at": "2025-11-24T16:00:00.000Z", "rejected_at": "2025-11-24T16:00:00.010Z",
}  # fmt: skip


def test_rejected_events(api: FakeApi) -> None:
    api.responses["GET /v1/rejected-events"] = page(REJECTED)
    result = run("rejected-events", "--account", "Rapids", "--type", "a.b", "--event-id", "e1",
                 "--idempotency-key", "k", "--until", "2025-11-25T00:00:00Z")  # fmt: skip
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["REJECTED EVENT", "SUBJECT", "TYPE", "IDEMPOTENCY KEY", "CAUSE", "REJECTED"],
        ["rej_0b11", REJECTED["subject"], "-", "k", "type: The event type?[2J is unknown.", REJECTED["rejected_at"]],
    ]
    request = api.requests[-1]
    assert request.query == {
        "limit": "50",
        "event_type": "a.b",
        "event_id": "e1",
        "idempotency_key": "k",
        "until": "2025-11-25T00:00:00Z",
    }
    assert request.headers["uplift-account"] == "acc_0a11"
    assert json.loads(run("rejected-events", "--json").stdout) == REJECTED

    for arguments in (["rej_0b"], ["show", "rej_0b11", "--account", "Rapids"]):
        shown = run("rejected-events", *arguments).stdout
        assert "uplift.events.club-17" in shown
        assert "type\tevent_type_unknown\tThe event type?[2J is unknown." in shown
    assert json.loads(run("rejected-events", "rej_0b11", "--json").stdout) == REJECTED
