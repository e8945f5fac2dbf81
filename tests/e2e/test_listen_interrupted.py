"""`uplift listen` while the server, network, session or local receiver is unavailable."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .harness import Server, free_port, wait_for
from .listening import PATH, Listening, Network, developer_environment, numbers, send_batch
from .receiving import Connection, Received, Receiver, close, garbage, hang, respond


def test_a_killed_server_loses_and_repeats_nothing(
    own_server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    server = own_server
    account, _ = server.account()
    _, environ = developer_environment(server, account)
    receiver.url(PATH, respond(after=0.005))
    listening = start(environ, "--forward-to", receiver.url(PATH), "--json").ready()
    send_batch(server, account, range(400))
    receiver.wait(PATH, 100)
    server.kill()
    listening.wait_for_line("Reconnecting")
    server.start()
    send_batch(server, account, range(400, 500))
    receiver.wait(PATH, 500)
    assert numbers(receiver) == list(range(500))
    assert numbers(receiver, redelivered=True) == []
    assert listening.printed("reconnected")
    wait_for(lambda: len(listening.printed("delivery")) == 500, "each delivery is printed")
    assert {each["status_code"] for each in listening.printed("delivery")} == {200}
    # The server announces a clean stop.
    server.stop()
    wait_for(lambda: any("restarting" in line for line in listening.err), "the command prints the reason")
    server.start()
    send_batch(server, account, range(500, 510))
    receiver.wait(PATH, 510)
    assert numbers(receiver) == list(range(510))
    assert listening.stop() == 0


def test_a_network_outage_loses_and_repeats_nothing(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer_environment(server, account)
    network = Network(server.port)
    receiver.url(PATH, respond(after=0.002))
    listening = start({**environ, "UPLIFT_API_URL": network.url}, "--forward-to", receiver.url(PATH)).ready()
    for start_of in range(0, 900, 300):
        send_batch(server, account, range(start_of, start_of + 299))
        receiver.wait(PATH, start_of + 50)
        network.cut()
        tries = listening.count("Reconnecting")
        wait_for(lambda tries=tries: listening.count("Reconnecting") > tries, "the command reconnects")  # type: ignore[misc]
        operator.send(start_of + 299)
        network.restore()
        receiver.wait(PATH, start_of + 300)
    assert numbers(receiver) == list(range(900))
    wait_for(lambda: listening.count("Reconnected") == 3, "the command reports three reconnects")
    assert numbers(receiver, redelivered=True) == []
    assert listening.count("Ready") == 1
    assert listening.stop() == 0
    network.close()


def test_an_expired_session_is_replaced(server: Server, receiver: Receiver, start: Callable[..., Listening]) -> None:
    account, operator = server.account()
    api, environ = developer_environment(server, account)
    network = Network(server.port)
    arguments = ("--forward-to", receiver.url(PATH), "--json")
    listening = start({**environ, "UPLIFT_API_URL": network.url}, *arguments).ready()
    for count in (1, 2):
        operator.send(2 * count)
        receiver.wait(PATH, 2 * count - 1)
        network.cut()
        listening.wait_for_line("Reconnecting")
        [session] = api.ok("GET", "/v1/listen-sessions")["data"]
        api("DELETE", f"/v1/listen-sessions/{session['id']}")
        operator.send(2 * count + 1)
        network.restore()
        receiver.wait(PATH, 2 * count)
    assert numbers(receiver) == [2, 3, 4, 5]
    assert listening.count("The session expired") == 2
    assert len({each["session"] for each in listening.printed("ready")}) == 3
    assert listening.stop() == 0
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
    network.close()


def test_events_in_flight_when_the_session_expired_are_marked(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    api, environ = developer_environment(server, account)
    network = Network(server.port)
    hook = receiver.url(PATH, hang)
    listening = start({**environ, "UPLIFT_API_URL": network.url}, "--forward-to", hook).ready()
    for number in range(3):
        operator.send(number)
    receiver.wait(PATH, 1)
    network.cut()
    listening.wait_for_line("Reconnecting")
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    api("DELETE", f"/v1/listen-sessions/{session['id']}")
    receiver.url(PATH, respond())
    network.restore()
    receiver.wait(PATH, 4)
    assert [
        (request.json["data"]["number"], request.headers["x-uplift-attempt"], "x-uplift-redelivered" in request.headers)
        for request in receiver.on(PATH)
    ] == [(0, "1", False), (0, "2", True), (1, "1", False), (2, "1", False)]
    assert listening.stop() == 0
    network.close()


def test_events_wait_for_an_unavailable_local_server(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer_environment(server, account)
    port = free_port()
    listening = start(environ, "--forward-to", str(port)).ready()
    assert f"http://localhost:{port}" in listening.wait_for_line("No server is listening on")
    send_batch(server, account, range(5))
    time.sleep(0.5)  # Let the command receive the events. The test cannot observe how many are waiting.
    received_numbers: list[int] = []
    with _flask(port, received_numbers):
        wait_for(lambda: received_numbers == list(range(5)), f"all events arrive: {received_numbers}")
    operator.send(5)
    wait_for(lambda: listening.count("No server is listening on") == 2, "the missing server is reported twice")
    with _flask(port, received_numbers):
        wait_for(lambda: received_numbers == list(range(6)), f"all events arrive: {received_numbers}")
    assert listening.stop() == 0


@contextmanager
def _flask(port: int, received_numbers: list[int]) -> Iterator[None]:
    """A typical development server."""
    from flask import Flask, request
    from werkzeug.serving import make_server

    app = Flask(__name__)

    @app.post("/")
    def receive() -> str:
        received_numbers.append(request.get_json()["data"]["number"])
        return "thanks"

    development = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=development.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        development.shutdown()
        development.server_close()
        thread.join(5)


def test_an_interrupted_event_is_forwarded_again_with_a_header(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer_environment(server, account)
    received_numbers: list[int] = []

    def cut_off_once(connection: Connection, received: Received) -> bool:
        received_numbers.append(received.json["data"]["number"])
        return (close if received_numbers.count(received_numbers[-1]) == 1 and received_numbers[-1] else respond())(
            connection, received
        )

    listening = start(environ, "--forward-to", receiver.url(PATH, cut_off_once), "--json").ready()
    for number in range(3):
        operator.send(number)
    receiver.wait(PATH, 5)
    assert received_numbers == [0, 1, 1, 2, 2]
    assert numbers(receiver) == [0, 1, 2]
    assert numbers(receiver, redelivered=True) == [1, 2]
    assert [request.headers["x-uplift-attempt"] for request in receiver.on(PATH)] == ["1", "1", "2", "1", "2"]
    wait_for(lambda: len(listening.printed("delivery")) == 3, "each forward is printed")
    assert [each["duplicate"] for each in listening.printed("delivery")] == [False, True, True]
    assert listening.stop() == 0


def test_invalid_responses_are_marked_and_lose_nothing(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, _ = server.account()
    _, environ = developer_environment(server, account)
    listening = start(environ, "--forward-to", receiver.url(PATH), "--duplicate").ready()
    send_batch(server, account, range(10))
    receiver.wait(PATH, 20)
    assert numbers(receiver) == numbers(receiver, redelivered=True) == list(range(10))
    assert listening.stop() == 0
    api, environ = developer_environment(server, account)
    listening = start(environ, "--forward-to", receiver.url(PATH), "--shuffle", "--fail", "50%").ready()
    receiver.requests.clear()
    send_batch(server, account, range(60))
    wait_for(lambda: sorted(numbers(receiver)) == list(range(60)), "all events arrive once")
    assert numbers(receiver) != list(range(60))
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    responses = f"/v1/listen-sessions/{session['id']}/answers"
    wait_for(lambda: len(api.list_all(responses)) == 60, "each event has a response")
    redelivered = numbers(receiver, redelivered=True)
    assert 5 < len(redelivered) == len(set(redelivered)) < 55
    assert listening.stop() == 0


def test_a_slow_or_failing_local_server_is_reported(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer_environment(server, account)
    actions = iter([garbage, respond(401, b"who are you?"), respond(500), respond(302, location="/x"), respond()])

    def next_action(connection: Connection, received: Received) -> bool:
        return next(actions)(connection, received)

    listening = start(environ, "--forward-to", receiver.url(PATH, next_action), "--json").ready()
    for number in range(5):
        operator.send(number)
    wait_for(lambda: len(listening.printed("delivery")) == 5, "all deliveries are printed")
    assert [each["status_code"] for each in listening.printed("delivery")] == [None, 401, 500, 302, 200]
    assert "HTTP" in listening.printed("delivery")[0]["error"]
    assert listening.count("Your server responded with 401") == 1
    assert numbers(receiver) == list(range(5))
    assert listening.stop() == 0
