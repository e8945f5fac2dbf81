"""Endpoint secrets on the command line: a secret is never an argument, and errors name the option."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_api import FakeApi
from typer.testing import CliRunner, Result

from uplift_server.cli.main import app

ENDPOINT = {"id": "ep_0e11", "account": "acc_0a11"}
SHOWN = {"secret": "whsec_c2VjcmV0", "created_at": "2025-11-24T16:00:00Z", "previous_expires_at": None}
CHOSEN = "a-token-of-my-own-choice"


@pytest.fixture
def api(api: FakeApi) -> FakeApi:
    """A running server with scripted responses."""
    api.responses = {
        "GET /v1/endpoints/ep_0e11": ENDPOINT,
        "GET /v1/endpoints/ep_0e11/secret": SHOWN,
        "POST /v1/endpoints/ep_0e11/secret/rotate": SHOWN,
        "POST /v1/endpoints/ep_0e11/secret/expire-old": {"created_at": "2025-11-24T16:00:00Z"},
    }
    return api


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["endpoints", "secret", *arguments], input=stdin)


def sent_body(api: FakeApi) -> Any:
    return api.requests[-1].body


def test_a_secret_is_shown(api: FakeApi) -> None:
    assert json.loads(run("show", "ep_0e11", "--json").stdout) == SHOWN
    assert api.requests[-1].headers["uplift-account"] == "acc_0a11"
    assert "whsec_c2VjcmV0" in run("show", "ep_0e11").stdout


def test_a_secret_is_replaced_by_a_new_one(api: FakeApi) -> None:
    result = run("rotate", "ep_0e11")
    assert result.exit_code == 0
    assert "whsec_c2VjcmV0" in result.stdout
    assert result.stderr == "Update the receiver before the old secret expires.\n"
    assert sent_body(api) == {"secret": None, "overlap_seconds": None, "uplift_header": None}
    assert api.requests[-1].headers["idempotency-key"]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_given_secret_comes_from_a_file_or_standard_input(api: FakeApi, ending: str) -> None:
    Path("token").write_bytes((CHOSEN + ending).encode())
    assert run("rotate", "ep_0e11", "--secret-file", "token", "--overlap", "1h30m").exit_code == 0
    assert sent_body(api) == {"secret": CHOSEN, "overlap_seconds": 5400, "uplift_header": None}
    stdin = (CHOSEN + ending).encode()
    result = run("rotate", "ep_0e11", "--secret-file", "-", "--overlap", "0", "--uplift-header", "new", stdin=stdin)
    assert result.exit_code == 0
    assert sent_body(api) == {"secret": CHOSEN, "overlap_seconds": 0, "uplift_header": "new"}


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--secret-file", "missing"], "cannot read missing: No such file or directory"),
        (["--secret-file", "-"], "standard input is not UTF-8 text"),
        (["--overlap", "long"], "--overlap: 'long' is not a duration"),
        (["--overlap", "1500ms"], "--overlap 1500ms is not a whole number of seconds"),
    ],
)
def test_an_unreadable_secret_is_reported_before_a_request(api: FakeApi, arguments: list[str], cause: str) -> None:
    result = run("rotate", "ep_0e11", *arguments, stdin=b"\xff")
    assert result.exit_code == 2
    assert cause in result.stderr
    assert api.requests == []


def test_errors_name_the_option(api: FakeApi) -> None:
    errors = [{"field": field, "code": "x", "message": "Wrong."} for field in ("secret", "overlap_seconds")]
    problem = {"code": "validation_failed", "detail": "2 fields are not valid.", "errors": errors}
    api.responses["POST /v1/endpoints/ep_0e11/secret/rotate"] = (422, problem, {})
    result = run("rotate", "ep_0e11", "--overlap", "8d")
    assert result.exit_code == 2
    assert "How to fix: correct the secret in --secret-file and --overlap\n" in result.stderr


def test_the_previous_secret_is_expired(api: FakeApi) -> None:
    assert json.loads(run("expire-old", "ep_0e11", "--json").stdout) == {"created_at": "2025-11-24T16:00:00Z"}
    assert (api.requests[-1].method, sent_body(api)) == ("POST", {})
