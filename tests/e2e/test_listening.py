"""Listen streams over real websockets to a real process."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .harness import OPERATOR_KEY, Api, Server, serving, wait_for
from .receiving import Receiver

EVENTS = 300


@dataclass
class Event:
    """An event from a stream."""

    header: dict[str, Any]
    body: bytes

    @property
    def number(self) -> int:
        number: int = json.loads(self.body)["data"]["number"]
        return number


class Listener:
    """Client of a listen stream: reads events, and responds to them."""

    def __init__(self, server: Server, key: str, session: str, after: str | None = None) -> None:
        url = f"ws://127.0.0.1:{server.port}/v1/listen-sessions/{session}/stream"
        if after is not None:
            url += f"?after={after}"
        connecting = connect(url, additional_headers={"authorization": f"Bearer {key}"}, proxy=None)
        self.socket: ClientConnection = connecting.__enter__()
        self.place = after
        ready = json.loads(self.socket.recv(timeout=5))
        assert ready == {"kind": "ready", "session": session}

    def event(self, timeout: float = 10) -> Event:
        frame = self.socket.recv(timeout=timeout)
        assert isinstance(frame, bytes)
        line, body = frame.split(b"\n", 1)
        header = json.loads(line)
        assert header["kind"] == "event"
        return Event(header, body)

    def respond(self, event: Event, status: int | None = 200, **fields: Any) -> None:
        message = {"kind": "answer", "place": event.header["place"], "status_code": status, "duration_ms": 3}
        self.socket.send(json.dumps(message | fields))
        self.place = event.header["place"]

    def take(self, count: int) -> list[int]:
        numbers = []
        for _ in range(count):
            event = self.event()
            numbers.append(event.number)
            self.respond(event)
        return numbers


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def developer(server: Server, account: str, **fields: Any) -> tuple[Api, str]:
    """Return a client with a new key, and the key."""
    made = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana", **fields})
    return server.api(made["key"]), made["key"]


def test_a_stream_sends_exact_bytes_in_order_and_resumes_after_a_kill(server: Server, receiver: Receiver) -> None:
    account, operator = server.account()
    api, key = developer(server, account)
    session = api.ok("POST", "/v1/listen-sessions", {"description": "ana-laptop"})
    assert session["secret"].startswith("whsec_")
    listener = Listener(server, key, session["id"])
    operator.endpoint(receiver.url("/production"))
    sent = [operator.send(number).json["id"] for number in range(20)]
    first = listener.event()
    assert (first.header["event"], first.header["type"], first.number) == (sent[0], "test.numbered", 0)
    wait_for(lambda: receiver.on("/production"), "the endpoint receives the event")
    assert first.body in [request.body for request in receiver.on("/production")]
    listener.respond(first)
    assert listener.take(9) == list(range(1, 10))
    # Save the position now, because events in flight at the kill may still arrive and advance it.
    place = listener.place
    server.kill()
    with pytest.raises(ConnectionClosed):
        listener.take(100)
    server.start()
    for number in range(20, 30):
        operator.send(number)
    again = Listener(server, key, session["id"], place)
    assert again.take(20) == list(range(10, 30))
    shown = api.ok("GET", f"/v1/listen-sessions/{session['id']}")
    assert (shown["connected"], shown["expires_at"], shown["description"]) == (True, None, "ana-laptop")
    assert "secret" not in shown
    again.socket.close()
    wait_for(
        lambda: not api.ok("GET", f"/v1/listen-sessions/{session['id']}")["connected"], "the session is disconnected"
    )
    # Without a position, the stream continues after the last response.
    operator.send(30)
    assert Listener(server, key, session["id"]).take(1) == [30]
    responses = wait_for(
        lambda: api.list_all(f"/v1/listen-sessions/{session['id']}/answers"), "the responses are stored"
    )
    assert responses[0]["status_code"] == 200
    # A later session of the same key has the same secret.
    assert api.ok("POST", "/v1/listen-sessions")["secret"] == session["secret"]


def test_a_slow_listener_does_not_affect_others(server: Server, receiver: Receiver) -> None:
    account, operator = server.account()
    operator.endpoint(receiver.url("/production"))
    listeners = []
    for _ in range(5):
        api, key = developer(server, account)
        listeners.append(Listener(server, key, api.ok("POST", "/v1/listen-sessions")["id"]))
    for start in range(0, EVENTS, 100):
        events = [
            {"type": "test.numbered", "data": {"number": number}, "account": account}
            for number in range(start, start + 100)
        ]
        server.api().ok("POST", "/v1/events/batch", {"events": events})
    # The first listener does not read for a while. The others do not wait for it.
    for listener in listeners[1:]:
        assert listener.take(EVENTS) == list(range(EVENTS))
    wait_for(lambda: len(receiver.on("/production")) == EVENTS, "the endpoint receives all events")
    assert listeners[0].take(EVENTS) == list(range(EVENTS))
    for listener in listeners:
        with pytest.raises(TimeoutError):
            listener.event(timeout=0.3)


def test_a_stream_gets_only_subscribed_events_of_its_account(server: Server, receiver: Receiver) -> None:
    account, operator = server.account()
    api, key = developer(server, account)
    session = api.ok("POST", "/v1/listen-sessions", {"event_types": ["test.*"]})
    listener = Listener(server, key, session["id"])
    endpoint = operator.endpoint(receiver.url("/x"))["id"]
    operator.ok("POST", f"/v1/endpoints/{endpoint}/test", {"type": "test.numbered"})
    example = operator.ok("GET", "/v1/event-types/athlete.created")["example"]
    operator.ok("POST", "/v1/events", {"type": "athlete.created", "data": example})
    past = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    operator.send(1, expires_at=past)
    assert listener.take(1) == [1]
    with pytest.raises(TimeoutError):
        listener.event(timeout=0.3)
    health = operator.ok("GET", f"/v1/endpoints/{endpoint}")["health"]
    assert health["status"] in {"healthy", "unknown"}


def test_since_accepts_a_timestamp_or_an_event(server: Server) -> None:
    account, operator = server.account()
    api, key = developer(server, account)
    sent = []
    for number in range(5):
        sent.append(operator.send(number).json)
        time.sleep(0.005)
    after_two = api.ok("POST", "/v1/listen-sessions", {"since": sent[2]["id"]})
    assert Listener(server, key, after_two["id"]).take(2) == [3, 4]
    from_one = api.ok("POST", "/v1/listen-sessions", {"since": sent[1]["created_at"]})
    assert Listener(server, key, from_one["id"]).take(4) == [1, 2, 3, 4]
    for wrong in ("yesterday", "01999999-0000-7000-8000-000000000000"):
        rejected = api("POST", "/v1/listen-sessions", {"since": wrong})
        assert rejected.status == 422
        assert rejected.json["errors"][0]["field"] == "since"


def test_a_test_event_goes_to_one_session_and_returns_the_response(server: Server) -> None:
    account, _ = server.account()
    api, key = developer(server, account)
    session = api.ok("POST", "/v1/listen-sessions")["id"]
    path = f"/v1/listen-sessions/{session}/test"
    assert api("POST", path).status == 409
    listener = Listener(server, key, session)
    assert api("POST", path, {"type": "no.such"}).status == 422
    result = api.ok("POST", path, {"type": "export.completed"})
    assert result["answer"] is None
    event = listener.event()
    assert (event.header["event"], event.header["test"]) == (result["event"], True)
    listener.respond(event, 401, body="who are you?")
    responses = wait_for(lambda: api.list_all(f"/v1/listen-sessions/{session}/answers"), "the response is stored")
    assert (responses[0]["status_code"], responses[0]["body"], responses[0]["type"]) == (
        401,
        "who are you?",
        "export.completed",
    )


def test_any_local_response_is_stored_as_text(server: Server) -> None:
    account, operator = server.account()
    api, key = developer(server, account)
    session = api.ok("POST", "/v1/listen-sessions")["id"]
    listener = Listener(server, key, session)
    operator.send(0)
    event = listener.event()
    # JSON can contain lone surrogates.
    listener.respond(event, None, body="a\ud800", error="\udfff")
    (kept,) = wait_for(lambda: api.list_all(f"/v1/listen-sessions/{session}/answers"), "the response is stored")
    assert (kept["body"], kept["error"]) == ("a?", "?")
    operator.send(1)
    assert listener.take(1) == [1]


def test_rejected_handshakes_get_a_problem_response(server: Server) -> None:
    account, _ = server.account()
    api, key = developer(server, account)
    _, other_key = developer(server, account)
    foreign, _ = server.account("Lions")
    _, foreign_key = developer(server, foreign)
    _, lacking = developer(server, account, scopes=["events:read"])
    session = api.ok("POST", "/v1/listen-sessions")["id"]
    for used, status in ((foreign_key, 404), (other_key, 403), (lacking, 403), ("sk_wrong", 401)):
        with pytest.raises(InvalidStatus) as rejected:
            Listener(server, used, session)
        assert rejected.value.response.status_code == status
        assert json.loads(rejected.value.response.body or b"")["status"] == status
    with pytest.raises(InvalidStatus) as rejected:
        Listener(server, key, session, after="nonsense")
    assert rejected.value.response.status_code == 422
    [wrong] = json.loads(rejected.value.response.body or b"")["errors"]
    assert (wrong["field"], "`place`" in wrong["message"]) == ("after", True)
    assert server.stop() == 0
    assert not any("handshake" in line or "Traceback" in line for line in server.log), server.log


def test_a_new_session_gets_nothing_from_a_deleted_one(server: Server) -> None:
    account, operator = server.account()
    foreign, _ = server.account("Lions")
    api, key = developer(server, account)
    foreign_api, _ = developer(server, foreign)
    other = Listener(server, key, other_id := api.ok("POST", "/v1/listen-sessions")["id"])
    for number in range(5):
        session = api.ok("POST", "/v1/listen-sessions")["id"]
        listener = Listener(server, key, session)
        operator.send(number)
        assert listener.take(1) == other.take(1) == [number]
        api("DELETE", f"/v1/listen-sessions/{session}")
        # The next session can get the database number of the deleted one before the last response is stored.
        next_one = foreign_api.ok("POST", "/v1/listen-sessions")["id"]
        responses = f"/v1/listen-sessions/{other_id}/answers"
        wait_for(lambda: len(api.list_all(responses)) == number + 1, "the response is stored")  # noqa: B023
        assert foreign_api.list_all(f"/v1/listen-sessions/{next_one}/answers") == []
        foreign_api("DELETE", f"/v1/listen-sessions/{next_one}")


def test_a_stream_ends_when_its_session_key_or_connection_is_replaced(server: Server) -> None:
    account, _ = server.account()
    api, key = developer(server, account)

    def code_of(listener: Listener) -> int:
        with pytest.raises(ConnectionClosed) as closed:
            listener.event(5)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code

    session = api.ok("POST", "/v1/listen-sessions")["id"]
    first = Listener(server, key, session)
    second = Listener(server, key, session)
    assert code_of(first) == 4009
    api("DELETE", f"/v1/listen-sessions/{session}")
    assert code_of(second) == 4004
    with pytest.raises(InvalidStatus):
        Listener(server, key, session)
    listener = Listener(server, key, api.ok("POST", "/v1/listen-sessions")["id"])
    (found,) = server.api().ok("GET", f"/v1/accounts/{account}/keys")["data"]
    server.api().ok("DELETE", f"/v1/accounts/{account}/keys/{found['id']}")
    assert code_of(listener) == 4004
    deleted_account, _ = server.account("Lions")
    api, key = developer(server, deleted_account)
    own = Listener(server, key, api.ok("POST", "/v1/listen-sessions")["id"])
    # An operator key outlives the account that it selects.
    session = server.api(account=deleted_account).ok("POST", "/v1/listen-sessions")["id"]
    operators = Listener(server, OPERATOR_KEY, session)
    server.api().ok("DELETE", f"/v1/accounts/{deleted_account}")
    assert code_of(own) == code_of(operators) == 4004
    api, key = developer(server, account)
    listener = Listener(server, key, api.ok("POST", "/v1/listen-sessions")["id"])
    listener.socket.send("nonsense")
    assert code_of(listener) == 4000
    listener = Listener(server, key, api.ok("POST", "/v1/listen-sessions")["id"])
    began = time.monotonic()
    server.terminate()
    assert code_of(listener) == 1012
    assert server.process is not None
    assert server.process.wait(20) == 0
    assert time.monotonic() - began < 10
