"""Listen sessions over HTTP and websockets, including rare failures."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX, TESTS_AWAITED_MAX


def open_stream(server: Any, owner: Any, session: str) -> ClientConnection:
    """Open a stream of a listen session, and wait until it is ready."""
    url = f"ws://127.0.0.1:{server.pool.port}/v1/listen-sessions/{session}/stream"
    socket: ClientConnection = connect(
        url, additional_headers={"authorization": f"Bearer {owner.key}"}, proxy=None
    ).__enter__()
    assert json.loads(socket.recv(timeout=5))["kind"] == "ready"
    return socket


def test_a_stream_with_an_unexpected_error_closes_and_logs_it(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The close code is 1011, without details. Only the log has the traceback."""
    owner = server.owner(server.account())
    session = owner.post("/v1/listen-sessions").json["id"]

    async def fail(_body: Any = None) -> Any:
        raise ZeroDivisionError("a secret detail")

    relay = server.services.context.engine.relay
    with monkeypatch.context() as patched:
        patched.setattr(
            relay,
            "database",
            type("Failing", (), {"read": fail, "stream_position": fail, "write": relay.database.write}),
        )
        socket = open_stream(server, owner, session)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert "secret" not in closed.value.rcvd.reason
    output = capsys.readouterr().out
    assert "secret detail" in output
    assert session in output


def test_a_stream_closed_by_its_client_is_no_error(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    owner = server.owner(server.account())
    session = owner.post("/v1/listen-sessions").json["id"]
    open_stream(server, owner, session).close()
    abrupt = open_stream(server, owner, session)
    abrupt.socket.close()
    invalid = open_stream(server, owner, session)
    invalid.send("nonsense")
    with pytest.raises(ConnectionClosed):
        invalid.recv(timeout=5)
    assert "unexpected error" not in "".join(capsys.readouterr())


def test_tests_beyond_the_limit_are_rejected_with_a_cause(server: Any) -> None:
    """A test that gets no response expires, and another test can start."""
    owner = server.owner(server.account())
    session = owner.post("/v1/listen-sessions").json["id"]
    socket = open_stream(server, owner, session)
    with ThreadPoolExecutor(TESTS_AWAITED_MAX + 2) as pool:
        responses = list(
            pool.map(lambda _: owner.post(f"/v1/listen-sessions/{session}/test"), range(TESTS_AWAITED_MAX + 2))
        )
    assert sorted(response.status for response in responses) == [200] * TESTS_AWAITED_MAX + [409, 409]
    rejected = next(response for response in responses if response.status == 409)
    assert (rejected.code, "uplift listen" in rejected.json["detail"]) == ("conflict", True)
    assert owner.post(f"/v1/listen-sessions/{session}/test").status == 200
    socket.close()


def test_a_test_of_an_unusable_type_names_the_problem(server: Any) -> None:
    owner = server.owner(server.account())
    session = owner.post("/v1/listen-sessions").json["id"]
    server.operator.put("/v1/event-types/listening.old", {"description": "a", "archived": True})
    for name, code in (("no.such", "event_type_unknown"), ("listening.old", "event_type_archived")):
        assert owner.post(f"/v1/listen-sessions/{session}/test", {"type": name}).problems == {("type", code)}


def test_sessions_beyond_the_limit_are_rejected_without_a_write(server: Any) -> None:
    owner = server.owner(server.account())
    for _ in range(SESSIONS_PER_ACCOUNT_MAX):
        assert owner.post("/v1/listen-sessions").status == 201
    writes = server.database.measures.writes
    rejected = [owner.post("/v1/listen-sessions") for _ in range(20)]
    assert {each.status for each in rejected} == {409}
    assert server.database.measures.writes - writes < len(rejected)
