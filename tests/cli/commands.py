"""Helpers for tests of commands: API responses, and functions that run a command."""

import json
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner, Result

from uplift_server.cli.main import app

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


def page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"data": list(items), "next_cursor": None}


RESPONSES = {
    "GET /v1/accounts": page(ACCOUNT),
    "GET /v1/accounts/acc_0a11": ACCOUNT,
    "GET /v1/accounts/acc_0a11/keys": page({"id": "key_0b11", "name": "n", "ends_with": "wxyz", "scopes": ["listen"]}),
    "GET /v1/accounts/acc_0a11/portal-links": page({"id": "lnk_0b11", "email": None, "role": "member"}),
    "GET /v1/keys": page({"id": "key_0c11", "name": "s", "ends_with": "stuv", "scopes": ["events:write"]}),
    "GET /v1/accounts/acc_0a11/members": page(MEMBER),
    "POST /v1/accounts/acc_0a11/members": (201, INVITATION, {}),
    "PATCH /v1/accounts/acc_0a11/members/mem_0f11": {**MEMBER, "role": "owner"},
    "DELETE /v1/accounts/acc_0a11/members/mem_0f11": (204, None, {}),
    "POST /v1/accounts/acc_0a11/members/mem_0f11/password-reset": (201, LINK, {}),
    "DELETE /v1/accounts/acc_0a11/members/mem_0f11/second-factor": (204, None, {}),
    "GET /v1/accounts/acc_0a11/invitations": page(INVITATION),
    "DELETE /v1/accounts/acc_0a11/invitations/inv_0f11": (204, None, {}),
    "POST /v1/accounts/acc_0a11/portal-links": (201, LINK, {}),
    "POST /v1/sign-in-links": (201, LINK, {}),
    "GET /v1/endpoints": page(ENDPOINT),
    "GET /v1/deliveries": page(DELIVERY),
    "POST /v1/endpoints/ep_0e11/pause": {**ENDPOINT, "state": "paused"},
    "POST /v1/endpoints/ep_0e11/enable": ENDPOINT,
    "POST /v1/endpoints/ep_0e11/disable": {**ENDPOINT, "state": "disabled", "disabled_reason": "operator"},
    "POST /v1/deliveries/dlv_0d11/resend": (202, DELIVERY, {}),
    "POST /v1/deliveries/dlv_0d11/cancel": {**DELIVERY, "status": "cancelled"},
    "GET /v1/replays": page(REPLAY),
    "GET /v1/replays/rpl_0c11": REPLAY,
    "POST /v1/replays": (201, REPLAY, {}),
    "POST /v1/replays/rpl_0c11/pause": {**REPLAY, "state": "paused"},
    "POST /v1/replays/rpl_0c11/resume": REPLAY,
    "POST /v1/replays/rpl_0c11/cancel": {**REPLAY, "state": "cancelled"},
    f"GET /v1/deliveries/dlv_{'01' * 22}/attempts": page(),
    "GET /v1/deliveries/dlv_0d11/attempts": page(
        {"number": 2},
        {
            "number": 1,
            "hint": "Too slow.\x1b[2J",
            "response": {"first_line": "no such\x1b[2J event"},
        },
    ),
    "GET /v1/events/e1": {"id": "e1", "deliveries": {"pending": 2, "held": 1}},
    "GET /v1/events/e1/deliveries": page(DELIVERY, {**DELIVERY, "status": "failed"}),
    "GET /v1/event-types/athlete.created": {"example": {"object": {"id": "a"}}},
    "GET /v1/event-types/own.type": {"example": None},
    "GET /v1/event-types": page({"name": "athlete.created", "description": "Added."}, {"name": "own.type"}),
    "POST /v1/accounts": (201, ACCOUNT, {}),
    "POST /v1/accounts/acc_0a11/keys": (201, {"id": "key_0b11", "key": "sk_shown_once"}, {}),
    "POST /v1/keys": (201, {"id": "key_0c11", "key": "svc_shown_once"}, {}),
    "PATCH /v1/accounts/acc_0a11/keys/key_0b11": {"id": "key_0b11", "name": "n2"},
    "PATCH /v1/keys/key_0c11": {"id": "key_0c11", "name": "s2"},
    "DELETE /v1/keys/key_0c11": (204, None, {}),
    "DELETE /v1/accounts/acc_0a11/portal-links/lnk_0b11": (204, None, {}),
    "POST /v1/endpoints": (201, {**ENDPOINT, "secret": "whsec_shown_once"}, {}),
    "POST /v1/events": (202, {"id": "e1", "duplicate": False}, {}),
    "DELETE /v1/accounts/acc_0a11": (204, None, {}),
    "DELETE /v1/accounts/acc_0a11/keys/key_0b11": (204, None, {}),
    "DELETE /v1/endpoints/ep_0e11": (204, None, {}),
}
"""Responses by method and path; see `FakeApi.responses`."""


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def output(*arguments: str, stdin: str | None = None) -> Any:
    result = run(*arguments, "--json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def failure(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Run a command that must fail. Return its exit code, the cause, and how to fix it."""
    result = run(*arguments, "--json", stdin=stdin)
    error = json.loads(result.stderr)["error"]
    assert result.exit_code == error["exit_code"]
    return result.exit_code, error["cause"], error["remedy"]


def validation_error(*problems: tuple[str, str, str]) -> tuple[int, dict[str, Any], dict[str, str]]:
    errors = [dict(zip(("field", "code", "message"), each, strict=True)) for each in problems]
    return 422, {"code": "validation_failed", "errors": errors}, {}


def check_closed_pipe(*arguments: str) -> None:
    """Check that a command whose output goes to a closed pipe exits with 0 and without an error."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from uplift_server.cli.main import run; run()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0
