"""Listen sessions over HTTP and websockets, including rare failures."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX, TESTS_AWAITED_MAX


def connected(server: Any, owner: Any, session: str) -> ClientConnection:
    """A developer's machine with a ready stream."""
    url = f"ws://127.0.0.1:{server.pool.port}/v1/listen-sessions/{session}/stream"
    socket: ClientConnection = connect(
        url, additional_headers={"authorization": f"Bearer {owner.key}"}, proxy=None
    ).__enter__()
    assert json.loads(socket.recv(timeout=5))["kind"] == "ready"
    return socket


def test_a_stream_with_an_unexpected_error_closes_and_logs_it(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1011 without details. Only the log has the traceback."""
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
        socket = connected(server, owner, session)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert "secret" not in closed.value.rcvd.reason
    told = capsys.readouterr().out
    assert "secret detail" in told
    assert session in told


def test_a_stream_closed_by_its_client_is_no_error(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    owner = server.owner(server.account())
    session = owner.post("/v1/listen-sessions").json["id"]
    connected(server, owner, session).close()
    abrupt = connected(server, owner, session)
    abrupt.socket.close()
    wrong = connected(server, owner, session)
    wrong.send("nonsense")
    with pytest.raises(ConnectionClosed):
        wrong.recv(timeout=5)
    assert "unexpected error" not in "".join(capsys.readouterr())


def test_tests_beyond_the_limit_are_rejected_with_a_cause(server: Any) -> None:
    """Tests without a response expire and free their capacity."""
    owner = server.owner(server.account())
    session = owner.post("/v1/listen-sessions").json["id"]
    socket = connected(server, owner, session)
    with ThreadPoolExecutor(TESTS_AWAITED_MAX + 2) as pool:
        answers = list(
            pool.map(lambda _: owner.post(f"/v1/listen-sessions/{session}/test"), range(TESTS_AWAITED_MAX + 2))
        )
    assert sorted(answer.status for answer in answers) == [200] * TESTS_AWAITED_MAX + [409, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert (refused.code, "uplift listen" in refused.json["detail"]) == ("conflict", True)
    assert owner.post(f"/v1/listen-sessions/{session}/test").status == 200
    socket.close()


def test_surplus_sessions_are_rejected_without_the_writer(server: Any) -> None:
    owner = server.owner(server.account())
    for _ in range(SESSIONS_PER_ACCOUNT_MAX):
        assert owner.post("/v1/listen-sessions").status == 201
    writes = server.database.measures.writes
    rejected = [owner.post("/v1/listen-sessions") for _ in range(20)]
    assert {each.status for each in rejected} == {409}
    assert server.database.measures.writes - writes < len(rejected)
