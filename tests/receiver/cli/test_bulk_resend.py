"""`uplift deliveries resend` with filters: a preview, and the resend with --yes."""

import json
from typing import Any

import pytest
from tests.cli.fake_api import Request, fake_api
from tests.receiver.cli.test_program import run

SHARE = {"endpoint": "ep_1", "count": 3, "reason": None}
REPLAY = {"endpoint": "ep_1", "id": "rpl_1", "total": 3, "reason": None}


def test_a_resend_is_previewed_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[Any] = []

    def respond(request: Request) -> Any:
        bodies.append((request.path, request.body))
        if (request.body or {}).get("dry_run"):
            return 200, {"count": 3, "endpoints": [SHARE]}, {}
        return 201, {"count": 3, "replays": [REPLAY], "skipped": []}, {}

    with fake_api() as api:
        api.respond = respond  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        filters = ["--status-code", "5xx", "--outcome", "timeout"]
        preview = run("deliveries", "resend", *filters)
        started = run("deliveries", "resend", *filters, "--yes")
        as_json = json.loads(run("deliveries", "resend", *filters, "--yes", "--json").stdout)
        wrong = [run("deliveries", "resend"), run("deliveries", "resend", "dlv_1", "--status", "failed")]
        run("deliveries", "resend", "--status", "failed", "--after", "", "--yes")

    body = {"status_code": ["5xx"], "outcome": ["timeout"]}
    assert bodies[:2] == [("/v1/deliveries/resend", {**body, "dry_run": True}), ("/v1/deliveries/resend", body)]
    assert preview.exit_code == started.exit_code == 0
    assert "repeat the command with --yes" in preview.stderr
    assert "rpl_1" in started.stdout
    assert as_json["replays"] == [REPLAY]
    assert [each.exit_code for each in wrong] == [2, 2]
    # The server rejects the empty text, which may be the value of an unset variable.
    assert bodies[3:] == [("/v1/deliveries/resend", {"status": ["failed"], "created_after": ""})]
