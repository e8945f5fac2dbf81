"""API calls of commands: IDs in paths, lists, and the listen session of this machine."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli.fake_api import FakeApi, Request, fake_api
from tests.receiver.cli.test_program import run


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A server without scripted responses."""
    with fake_api() as api:
        monkeypatch.setenv("UPLIFT_API_URL", api.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield api


@pytest.mark.parametrize("text", ["", ".", ".."])
@pytest.mark.parametrize(
    "command", [["events", "show"], ["deliveries", "resend"], ["endpoints", "pause"], ["trigger", "--session"]]
)
def test_an_invalid_id_is_rejected_before_a_request(api: FakeApi, command: list[str], text: str) -> None:
    result = run(*command, text)
    assert (result.exit_code, api.requests) == (2, [])
    assert result.stderr.startswith(f"Error: {text!r} is neither an ID nor a name\n")
    assert "How to fix: use an ID, a unique ID prefix, or a name" in result.stderr


def test_endpoints_are_filtered_by_state_and_text(api: FakeApi) -> None:
    api.responses["GET /v1/endpoints"] = {"data": [], "next_cursor": None}
    result = run("endpoints", "--state", "failing", "--text", "rapids")
    assert api.requests[-1].query == {"limit": "50", "state": "failing", "text": "rapids"}
    assert "No matching endpoints." in result.stdout + result.stderr


def test_a_list_ends_when_the_server_has_no_more(api: FakeApi) -> None:
    def page(request: Request) -> Any:
        after = request.query.get("cursor", "")
        data = [] if after == "a" else [{"id": f"ep_{after}{number}", "url": "https://x"} for number in range(2)]
        return {"data": data, "next_cursor": {"": "a", "a": "b", "b": "c"}[after], "has_more": after != "b"}

    api.responses["GET /v1/endpoints"] = page
    result = run("endpoints", "list", "--json", "--limit", "300")
    assert result.stdout.count("ep_") == 4
    assert [request.query for request in api.requests] == [
        {"limit": "200"}, {"limit": "200", "cursor": "a"}, {"limit": "200", "cursor": "b"},
    ]  # fmt: skip
    assert run("endpoints", "list", "--json", "--limit", "1").stdout.count("ep_") == 1
    assert api.requests[-1].query == {"limit": "1"}
    assert len(api.requests) == 4


def test_a_response_without_a_list_is_a_two_line_error(api: FakeApi) -> None:
    api.responses["GET /v1/endpoints"] = {"hello": 1}
    result = run("endpoints", "list")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 2)
    assert "Uplift Webhooks server" in result.stderr


def test_trigger_finds_the_listen_session_of_this_machine(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "ana\x07" + "x" * 250)
    sessions: list[Any] = []

    def create(request: Request) -> Any:
        sessions.append({"id": "lsn_here", "secret": "whsec_x", "connected": True, **request.body})
        return sessions[0]

    api.responses["POST /v1/listen-sessions"] = create
    assert run("listen", "--print-secret").stdout == "whsec_x\n"
    other = {"id": "lsn_there", "description": "bob", "connected": True}
    api.responses["GET /v1/listen-sessions"] = {"data": [other, *sessions], "next_cursor": None}
    api.responses["POST /v1/listen-sessions/lsn_here/test"] = {"event": "e", "answer": {"status_code": 200}}
    result = run("trigger", "--json")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_body_is_written_byte_for_byte(api: FakeApi) -> None:
    body = b'{"id":"e_1","data":{ "v":1.0, "n":"\\u00e9" , "body":"x"}}'
    api.responses["GET /v1/events/e_1"] = (
        b'{ "id" : "e_1", "deliveries":{"held":0},\n "body" : %b , "later":[1]}' % body
    )
    result = run("events", "show", "e_1", "--body")
    assert (result.exit_code, result.stdout_bytes) == (0, body)
