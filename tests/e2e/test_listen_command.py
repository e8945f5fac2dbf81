"""`uplift listen`: the real command between a real server and a real receiver of its user's."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from uplift_webhooks import Webhook

from .harness import Api, Server, free_port, serving, wait_for
from .listening import PROGRAM, Listening, Network, environment, on_terminal, uplift
from .receiving import Connection, Received, Receiver, answer, close, garbage, hang

BURST = 10_000
PATH = "/webhook"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """One that may be killed."""
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def start() -> Iterator[Callable[..., Listening]]:
    """Starts `uplift listen`, once for each call."""
    started: list[Listening] = []

    def start(environ: dict[str, str], *arguments: str) -> Listening:
        started.append(Listening(environ, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()
        print(*each.out[-5:], *each.err)  # shown with what failed


def developer(server: Server, account: str) -> tuple[Api, dict[str, str]]:
    """A key of an account, and the environment of whoever has it."""
    made = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})
    return server.api(made["key"]), environment(server, made["key"])


def batch(server: Server, account: str, numbers: range) -> None:
    """Send numbered events, in their order."""
    for start in range(numbers.start, numbers.stop, 500):
        events = [
            {"type": "test.numbered", "data": {"number": number}, "account": account}
            for number in range(start, min(start + 500, numbers.stop))
        ]
        server.api().ok("POST", "/v1/events/batch", {"events": events})


def numbers(receiver: Receiver, *, again: bool = False) -> list[int]:
    """The events that came, in their order; those marked as handed over again, or the others."""
    return [
        request.json["data"]["number"]
        for request in receiver.on(PATH)
        if ("x-uplift-redelivered" in request.headers) is again
    ]


def test_what_is_handed_over_is_what_endpoints_get(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    api, environ = developer(server, account)
    secret = uplift(environ, "listen", "--print-secret").stdout.strip()
    listening = start(environ, "--forward-to", f"{receiver.port}{PATH}", "--json").ready()
    endpoint = operator.endpoint(receiver.url("/production"), secret=secret)
    sent = operator.send(1).json["id"]
    [local] = receiver.wait(PATH, 1)
    [production] = receiver.wait("/production", 1)
    assert local.body == production.body
    # Of the client's own making are the ids that differ, and what is signed with them and the instant.
    own = {"host", "user-agent", "webhook-timestamp", "webhook-signature", "x-uplift-delivery", "connection"}
    assert {n: v for n, v in local.headers.items() if n not in own} == {
        n: v for n, v in production.headers.items() if n not in own
    }
    assert set(local.headers) - {"connection"} == set(production.headers) - {"connection"}
    event = Webhook(secret).unwrap(local.body, local.headers)
    assert (event.id, event.type) == (sent, "test.numbered")
    Webhook(secret, allow_uplift_signature=True).verify(
        local.body, {"x-uplift-signature-256": local.headers["x-uplift-signature-256"]}
    )
    [told] = wait_for(lambda: listening.told("delivery"), "the delivery is told")
    assert (told["event"], told["type"], told["status_code"], told["duplicate"]) == (sent, "test.numbered", 200, False)
    assert listening.told("ready")[0]["forward_to"] == f"http://localhost:{receiver.port}{PATH}"
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    answers = wait_for(lambda: api.everything(f"/v1/listen-sessions/{session['id']}/answers"), "answers are kept")
    assert (answers[0]["event"], answers[0]["status_code"], answers[0]["body"]) == (sent, 200, "ok")
    assert listening.stop(signal.SIGINT) == 0
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
    assert endpoint["id"]


def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(
    own_server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    server = own_server
    account, _ = server.account()
    _, environ = developer(server, account)
    receiver.url(PATH, answer(after=0.005))
    listening = start(environ, "--forward-to", receiver.url(PATH), "--json").ready()
    batch(server, account, range(400))
    receiver.wait(PATH, 100)
    server.kill()
    listening.until("Reconnecting")
    server.start()
    batch(server, account, range(400, 500))
    receiver.wait(PATH, 500)
    assert numbers(receiver) == list(range(500))
    assert numbers(receiver, again=True) == []
    assert listening.told("reconnected")
    wait_for(lambda: len(listening.told("delivery")) == 500, "each delivery is told")
    assert {each["status_code"] for each in listening.told("delivery")} == {200}
    # A stop that is announced is another way to go.
    server.stop()
    wait_for(lambda: any("restarts" in line for line in listening.err), "it knows why")
    server.start()
    batch(server, account, range(500, 510))
    receiver.wait(PATH, 510)
    assert numbers(receiver) == list(range(510))
    assert listening.stop() == 0


def test_a_network_that_is_cut_loses_and_doubles_nothing(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer(server, account)
    network = Network(server.port)
    receiver.url(PATH, answer(after=0.002))
    listening = start({**environ, "UPLIFT_API_URL": network.url}, "--forward-to", receiver.url(PATH)).ready()
    for start_of in range(0, 900, 300):
        batch(server, account, range(start_of, start_of + 299))
        receiver.wait(PATH, start_of + 50)
        network.cut()
        tries = listening.count("Reconnecting")
        wait_for(lambda tries=tries: listening.count("Reconnecting") > tries, "it tries again")  # type: ignore[misc]
        operator.send(start_of + 299)
        network.mend()
        receiver.wait(PATH, start_of + 300)
    assert numbers(receiver) == list(range(900))
    wait_for(lambda: listening.count("Reconnected") == 3, "it says so")
    assert numbers(receiver, again=True) == []
    assert listening.count("Ready") == 1
    assert listening.stop() == 0
    network.close()


def test_a_session_that_expired_while_the_machine_was_away_is_replaced(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    api, environ = developer(server, account)
    network = Network(server.port)
    arguments = ("--forward-to", receiver.url(PATH), "--json")
    listening = start({**environ, "UPLIFT_API_URL": network.url}, *arguments).ready()
    for count in (1, 2):
        operator.send(2 * count)
        receiver.wait(PATH, 2 * count - 1)
        network.cut()
        listening.until("Reconnecting")
        [session] = api.ok("GET", "/v1/listen-sessions")["data"]
        api("DELETE", f"/v1/listen-sessions/{session['id']}")
        operator.send(2 * count + 1)
        network.mend()
        receiver.wait(PATH, 2 * count)
    assert numbers(receiver) == [2, 3, 4, 5]
    assert listening.count("The session has expired") == 2
    assert len({each["session"] for each in listening.told("ready")}) == 3
    assert listening.stop() == 0
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
    network.close()


def test_what_was_being_handed_over_when_the_session_expired_is_marked(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    api, environ = developer(server, account)
    network = Network(server.port)
    hook = receiver.url(PATH, hang)
    listening = start({**environ, "UPLIFT_API_URL": network.url}, "--forward-to", hook).ready()
    for number in range(3):
        operator.send(number)
    receiver.wait(PATH, 1)
    network.cut()
    listening.until("Reconnecting")
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    api("DELETE", f"/v1/listen-sessions/{session['id']}")
    receiver.url(PATH, answer())
    network.mend()
    receiver.wait(PATH, 4)
    assert [
        (request.json["data"]["number"], request.headers["x-uplift-attempt"], "x-uplift-redelivered" in request.headers)
        for request in receiver.on(PATH)
    ] == [(0, "1", False), (0, "2", True), (1, "1", False), (2, "1", False)]
    assert listening.stop() == 0
    network.close()


def test_a_burst_comes_whole_and_in_order(server: Server, receiver: Receiver, start: Callable[..., Listening]) -> None:
    account, _ = server.account()
    _, environ = developer(server, account)
    listening = start(environ, "--forward-to", receiver.url(PATH)).ready()
    batch(server, account, range(BURST))
    receiver.wait(PATH, BURST, within=60)
    assert numbers(receiver) == list(range(BURST))
    assert numbers(receiver, again=True) == []
    # One connection is enough.
    assert len({request.peer for request in receiver.on(PATH)}) == 1
    assert listening.stop() == 0


def test_five_listeners_get_everything_once_each(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, _ = server.account()
    listeners = []
    for name in "abcde":
        _, environ = developer(server, account)
        listeners.append(start(environ, "--forward-to", receiver.url(f"/{name}")))
    for each in listeners:
        each.ready()
    batch(server, account, range(200))
    for name in "abcde":
        receiver.wait(f"/{name}", 200)
        assert [request.json["data"]["number"] for request in receiver.on(f"/{name}")] == list(range(200))
    assert [each.stop() for each in listeners] == [0] * 5
    assert all(len(receiver.on(f"/{name}")) == 200 for name in "abcde")


def test_events_wait_for_a_server_that_is_not_there_or_reloads(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer(server, account)
    port = free_port()
    listening = start(environ, "--forward-to", str(port)).ready()
    assert f"http://localhost:{port}" in listening.until("Nothing listens on")
    batch(server, account, range(5))
    time.sleep(0.5)  # nothing can be seen of what waits
    found: list[int] = []
    with _flask(port, found):
        wait_for(lambda: found == list(range(5)), f"all come: {found}")
    operator.send(5)
    wait_for(lambda: listening.count("Nothing listens on") == 2, "it is told once more, after it was there")
    with _flask(port, found):
        wait_for(lambda: found == list(range(6)), f"all come: {found}")
    assert listening.stop() == 0


@contextmanager
def _flask(port: int, found: list[int]) -> Iterator[None]:
    """A development server of the usual kind."""
    from flask import Flask, request
    from werkzeug.serving import make_server

    app = Flask(__name__)

    @app.post("/")
    def receive() -> str:
        found.append(request.get_json()["data"]["number"])
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


def test_a_server_that_cuts_off_gets_the_event_again_and_is_told_so(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer(server, account)
    came: list[int] = []

    def cut_off_once(connection: Connection, received: Received) -> bool:
        came.append(received.json["data"]["number"])
        return (close if came.count(came[-1]) == 1 and came[-1] else answer())(connection, received)

    listening = start(environ, "--forward-to", receiver.url(PATH, cut_off_once), "--json").ready()
    for number in range(3):
        operator.send(number)
    receiver.wait(PATH, 5)
    assert came == [0, 1, 1, 2, 2]
    assert numbers(receiver) == [0, 1, 2]
    assert numbers(receiver, again=True) == [1, 2]
    assert [request.headers["x-uplift-attempt"] for request in receiver.on(PATH)] == ["1", "1", "2", "1", "2"]
    wait_for(lambda: len(listening.told("delivery")) == 3, "each is told once")
    assert [each["duplicate"] for each in listening.told("delivery")] == [False, True, True]
    assert listening.stop() == 0


def test_mischief_is_marked_and_loses_nothing(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, _ = server.account()
    _, environ = developer(server, account)
    listening = start(environ, "--forward-to", receiver.url(PATH), "--duplicate").ready()
    batch(server, account, range(10))
    receiver.wait(PATH, 20)
    assert numbers(receiver) == numbers(receiver, again=True) == list(range(10))
    assert listening.stop() == 0
    api, environ = developer(server, account)
    listening = start(environ, "--forward-to", receiver.url(PATH), "--shuffle", "--fail", "50%").ready()
    receiver.requests.clear()
    batch(server, account, range(60))
    wait_for(lambda: sorted(numbers(receiver)) == list(range(60)), "all come once")
    assert numbers(receiver) != list(range(60))
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    answers = f"/v1/listen-sessions/{session['id']}/answers"
    wait_for(lambda: len(api.everything(answers)) == 60, "each is answered")
    again = numbers(receiver, again=True)
    assert 5 < len(again) == len(set(again)) < 55
    assert listening.stop() == 0


def test_a_late_or_refusing_server_is_told_of_and_waited_for_no_longer(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer(server, account)
    actions = iter([garbage, answer(401, b"who are you?"), answer(500), answer(302, location="/x"), answer()])

    def next_action(connection: Connection, received: Received) -> bool:
        return next(actions)(connection, received)

    listening = start(environ, "--forward-to", receiver.url(PATH, next_action), "--json").ready()
    for number in range(5):
        operator.send(number)
    wait_for(lambda: len(listening.told("delivery")) == 5, "all are told")
    assert [each["status_code"] for each in listening.told("delivery")] == [None, 401, 500, 302, 200]
    assert "HTTP" in listening.told("delivery")[0]["error"]
    assert listening.count("Your server answered 401") == 1
    assert numbers(receiver) == list(range(5))
    assert listening.stop() == 0


def test_types_and_since(server: Server, receiver: Receiver, start: Callable[..., Listening]) -> None:
    account, operator = server.account()
    _, environ = developer(server, account)
    example = operator.ok("GET", "/v1/event-types/athlete.created")["example"]
    first = operator.send(1).json["id"]
    operator.ok("POST", "/v1/events", {"type": "athlete.created", "data": example})
    operator.send(2)
    printed = start(environ, "--since", "15m", "--events", "test.*", "--json").ready()
    wait_for(lambda: len(printed.told("delivery")) == 2, "both come")
    bodies = [each["body"]["data"] for each in printed.told("delivery")]
    assert bodies == [{"number": 1}, {"number": 2}]
    behind = start(environ, "--since", first).ready()
    lines = wait_for(lambda: behind.out[1:] and behind.out, "two come")
    assert ["athlete.created" in line for line in lines] == [True, False]
    assert [printed.stop(), behind.stop(signal.SIGINT)] == [0, 0]
    assert "\x1b" not in "".join(behind.out + behind.err)


def test_the_secret_is_the_same_for_later_sessions(server: Server) -> None:
    account, _ = server.account()
    api, environ = developer(server, account)
    first = uplift(environ, "listen", "--print-secret")
    second = uplift(environ, "listen", "--print-secret", "--json")
    assert first.stdout.startswith("whsec_")
    assert json.loads(second.stdout) == {"secret": first.stdout.strip()}
    assert (first.returncode, second.returncode, first.stderr) == (0, 0, "")
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
    _, other = developer(server, account)
    assert uplift(other, "listen", "--print-secret").stdout != first.stdout


def test_the_secret_is_told_to_people_and_not_to_logs(server: Server, start: Callable[..., Listening]) -> None:
    account, _ = server.account()
    _, environ = developer(server, account)
    environ.pop("CI", None)
    secret = uplift(environ, "listen", "--print-secret").stdout.strip()
    piped = start(environ, "--json").ready()
    [line] = [piped.until("  export UPLIFT_WEBHOOK_SECRET=").strip()]
    assert line == 'export UPLIFT_WEBHOOK_SECRET="$(uplift listen --print-secret)"'
    [ready] = wait_for(lambda: piped.told("ready"), "it is ready")
    assert ready["secret"] is None
    wanted = start(environ, "--json", "--show-secret").ready()
    assert wanted.until("  export UPLIFT_WEBHOOK_SECRET=").strip() == f"export UPLIFT_WEBHOOK_SECRET={secret}"
    [ready] = wait_for(lambda: wanted.told("ready"), "it is ready")
    assert ready["secret"] == secret
    assert [piped.stop(), wanted.stop()] == [0, 0]
    assert secret not in "".join(piped.out + piped.err)
    with on_terminal(environ, "listen") as (_, shown):
        wait_for(lambda: f"export UPLIFT_WEBHOOK_SECRET={secret}".encode() in shown, "a person sees it")
    with on_terminal({**environ, "CI": "true"}, "listen") as (_, shown):
        wait_for(lambda: b"--print-secret" in shown, "a log has how to get it")
        assert secret.encode() not in shown


def test_the_documented_receiver_verifies_what_is_handed_over(server: Server, start: Callable[..., Listening]) -> None:
    account, _ = server.account()
    _, environ = developer(server, account)
    secret = uplift(environ, "listen", "--print-secret").stdout.strip()
    program = Path(__file__).parents[1] / "receiver/article_receiver.py"
    article = subprocess.Popen(
        [sys.executable, str(program), "--secret", secret],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert article.stdout is not None
        port = article.stdout.readline().split()[-1]
        listening = start(environ, "--forward-to", f"localhost:{port}/webhook/submit").ready()
        batch(server, account, range(20))
        url = f"http://127.0.0.1:{port}/received"
        wait_for(lambda: urllib3.request("GET", url).json()["verified"] == 20, "all are verified")
        assert urllib3.request("GET", url).json()["rejected"] == 0
        assert listening.stop() == 0
    finally:
        article.kill()
        article.wait(5)
        article.stdout.close()


def test_how_it_ends(own_server: Server, receiver: Receiver, start: Callable[..., Listening]) -> None:
    server = own_server
    account, _ = server.account()
    api, environ = developer(server, account)
    url = receiver.url(PATH)

    def refused(*arguments: str, **changed: str) -> tuple[int, str]:
        done = uplift({**environ, **changed}, "listen", *arguments)
        return done.returncode, done.stderr

    assert refused("--forward-to", "ftp://x")[0] == 2
    assert refused("--events", "test.numberd") == (
        4, "Error: there is no event type test.numberd\nRemedy: did you mean test.numbered?\n",
    )  # fmt: skip
    assert refused("--since", "yesterday")[0] == 2
    assert refused("--duplicate")[0] == 2
    assert refused("--nonsense")[0] == 2
    assert refused(UPLIFT_API_KEY="sk_wrong")[0] == 3
    assert refused(UPLIFT_API_KEY="")[0] == 3
    assert refused(UPLIFT_API_URL="")[0] == 2
    assert refused(UPLIFT_API_URL=f"http://127.0.0.1:{free_port()}")[0] == 75
    lacking = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "reader", "scopes": ["events:read"]})[
        "key"
    ]
    assert refused(UPLIFT_API_KEY=lacking)[0] == 3
    # Somebody ends the session, or revokes the key.
    listening = start(environ, "--forward-to", url).ready()
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    api("DELETE", f"/v1/listen-sessions/{session['id']}")
    assert listening.ended() == 4
    listening = start(environ, "--forward-to", url).ready()
    for key in server.api().ok("GET", f"/v1/accounts/{account}/keys")["data"]:
        server.api().ok("DELETE", f"/v1/accounts/{account}/keys/{key['id']}")
    assert listening.ended() == 3
    assert listening.err[-2].startswith("Error: ")
    assert listening.err[-1].startswith("Remedy: ")
    # The server stays away for longer than it is wanted to be waited for.
    _, environ = developer(server, account)
    listening = start(environ, "--forward-to", url, "--exit-on-disconnect", "1s").ready()
    server.kill()
    began = time.monotonic()
    assert listening.ended() == 75
    assert 0.9 < time.monotonic() - began < 8
    server.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_ends_is_no_failure(
    server: Server, start: Callable[..., Listening], number: signal.Signals
) -> None:
    account, _ = server.account()
    _, environ = developer(server, account)
    network = Network(server.port)
    listening = start({**environ, "UPLIFT_API_URL": network.url}).ready()
    network.silence()
    before = network.connections
    listening.process.send_signal(number)
    # It asks the server to end the session, and gets no answer.
    wait_for(lambda: network.connections > before, "it ends the session")
    assert listening.stop(number) == 0
    assert "Traceback" not in "".join(listening.err)
    network.close()


def test_a_reader_who_goes_away_ends_it_without_a_fuss(server: Server) -> None:
    account, operator = server.account()
    api, environ = developer(server, account)
    operator.send(1)
    pipe = subprocess.Popen(
        [PROGRAM, "listen", "--since", "1h", "--json"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert pipe.stdout is not None
    assert pipe.stderr is not None
    assert json.loads(pipe.stdout.readline())["kind"] == "ready"
    pipe.stdout.close()
    wait_for(lambda: [operator.send(2), pipe.poll() is not None][1], "it ends", every=0.1)
    assert pipe.wait(10) == 0
    assert "Error" not in pipe.stderr.read()
    pipe.stderr.close()
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
