"""`uplift listen` between a real server and a real local receiver."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3

from uplift_webhooks import Webhook

from .harness import Server, free_port, wait_for
from .listening import (
    PATH,
    PROGRAM,
    Listening,
    Network,
    developer_environment,
    numbers,
    on_terminal,
    send_batch,
    uplift,
)
from .receiving import Receiver

BURST = 10_000


def test_forwarded_requests_equal_those_of_endpoints(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    api, environ = developer_environment(server, account)
    secret = uplift(environ, "listen", "--print-secret").stdout.strip()
    listening = start(environ, "--forward-to", f"{receiver.port}{PATH}", "--json").ready()
    endpoint = operator.endpoint(receiver.url("/production"), secret=secret)
    sent = operator.send(1).json["id"]
    [local] = receiver.wait(PATH, 1)
    [production] = receiver.wait("/production", 1)
    assert local.body == production.body
    # The local delivery has its own delivery ID, timestamp and signature, because the client creates them.
    expected_differences = {
        "host",
        "user-agent",
        "webhook-timestamp",
        "webhook-signature",
        "x-uplift-delivery",
        "connection",
    }
    assert {n: v for n, v in local.headers.items() if n not in expected_differences} == {
        n: v for n, v in production.headers.items() if n not in expected_differences
    }
    assert set(local.headers) - {"connection"} == set(production.headers) - {"connection"}
    event = Webhook(secret).unwrap(local.body, local.headers)
    assert (event.id, event.type) == (sent, "test.numbered")
    Webhook(secret, allow_uplift_signature=True).verify(
        local.body, {"x-uplift-signature-256": local.headers["x-uplift-signature-256"]}
    )
    [printed_delivery] = wait_for(lambda: listening.printed("delivery"), "the delivery is printed")
    assert (
        printed_delivery["event"],
        printed_delivery["type"],
        printed_delivery["status_code"],
        printed_delivery["duplicate"],
    ) == (sent, "test.numbered", 200, False)
    assert listening.printed("ready")[0]["forward_to"] == f"http://localhost:{receiver.port}{PATH}"
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    responses = wait_for(
        lambda: api.list_all(f"/v1/listen-sessions/{session['id']}/answers"), "the responses are stored"
    )
    assert (responses[0]["event"], responses[0]["status_code"], responses[0]["body"]) == (sent, 200, "ok")
    assert listening.stop(signal.SIGINT) == 0
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
    assert endpoint["id"]


@pytest.mark.timeout(300)  # the command forwards the events one after another
def test_a_burst_arrives_complete_and_in_order(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, _ = server.account()
    _, environ = developer_environment(server, account)
    listening = start(environ, "--forward-to", receiver.url(PATH)).ready()
    send_batch(server, account, range(BURST))
    receiver.wait(PATH, BURST, within=150)
    assert numbers(receiver) == list(range(BURST))
    assert numbers(receiver, redelivered=True) == []
    # The command forwards all events over one connection.
    assert len({request.peer for request in receiver.on(PATH)}) == 1
    assert listening.stop() == 0


def test_five_listeners_each_get_every_event_once(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, _ = server.account()
    listeners = []
    for name in "abcde":
        _, environ = developer_environment(server, account)
        listeners.append(start(environ, "--forward-to", receiver.url(f"/{name}")))
    for each in listeners:
        each.ready()
    send_batch(server, account, range(200))
    for name in "abcde":
        receiver.wait(f"/{name}", 200)
        assert [request.json["data"]["number"] for request in receiver.on(f"/{name}")] == list(range(200))
    assert [each.stop() for each in listeners] == [0] * 5
    assert all(len(receiver.on(f"/{name}")) == 200 for name in "abcde")


def test_event_types_and_since_filter_events(
    server: Server, receiver: Receiver, start: Callable[..., Listening]
) -> None:
    account, operator = server.account()
    _, environ = developer_environment(server, account)
    example = operator.ok("GET", "/v1/event-types/athlete.created")["example"]
    first = operator.send(1).json["id"]
    operator.ok("POST", "/v1/events", {"type": "athlete.created", "data": example})
    operator.send(2)
    printed = start(environ, "--since", "15m", "--events", "test.*", "--json").ready()
    wait_for(lambda: len(printed.printed("delivery")) == 2, "both deliveries are printed")
    bodies = [each["body"]["data"] for each in printed.printed("delivery")]
    assert bodies == [{"number": 1}, {"number": 2}]
    behind = start(environ, "--since", first).ready()
    lines = wait_for(lambda: behind.out[1:] and behind.out, "two lines are printed")
    assert ["athlete.created" in line for line in lines] == [True, False]
    assert [printed.stop(), behind.stop(signal.SIGINT)] == [0, 0]
    assert "\x1b" not in "".join(behind.out + behind.err)


def test_the_secret_is_the_same_for_later_sessions(server: Server) -> None:
    account, _ = server.account()
    api, environ = developer_environment(server, account)
    first = uplift(environ, "listen", "--print-secret")
    second = uplift(environ, "listen", "--print-secret", "--json")
    assert first.stdout.startswith("whsec_")
    assert json.loads(second.stdout) == {"secret": first.stdout.strip()}
    assert (first.returncode, second.returncode, first.stderr) == (0, 0, "")
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
    _, other = developer_environment(server, account)
    assert uplift(other, "listen", "--print-secret").stdout != first.stdout


def test_the_secret_is_shown_on_terminals_only(server: Server, start: Callable[..., Listening]) -> None:
    account, _ = server.account()
    _, environ = developer_environment(server, account)
    environ.pop("CI", None)
    secret = uplift(environ, "listen", "--print-secret").stdout.strip()
    piped = start(environ, "--json").ready()
    [line] = [piped.wait_for_line("  export UPLIFT_WEBHOOK_SECRET=").strip()]
    assert line == 'export UPLIFT_WEBHOOK_SECRET="$(uplift listen --print-secret)"'
    [ready] = wait_for(lambda: piped.printed("ready"), "the command is ready")
    assert ready["secret"] is None
    with_secret = start(environ, "--json", "--show-secret").ready()
    assert (
        with_secret.wait_for_line("  export UPLIFT_WEBHOOK_SECRET=").strip() == f"export UPLIFT_WEBHOOK_SECRET={secret}"
    )
    [ready] = wait_for(lambda: with_secret.printed("ready"), "the command is ready")
    assert ready["secret"] == secret
    assert [piped.stop(), with_secret.stop()] == [0, 0]
    assert secret not in "".join(piped.out + piped.err)
    with on_terminal(environ, "listen") as (_, shown):
        wait_for(lambda: f"export UPLIFT_WEBHOOK_SECRET={secret}".encode() in shown, "the terminal shows the secret")
    with on_terminal({**environ, "CI": "true"}, "listen") as (_, shown):
        wait_for(lambda: b"--print-secret" in shown, "the log names the option")
        assert secret.encode() not in shown


def test_the_documented_receiver_verifies_forwarded_requests(server: Server, start: Callable[..., Listening]) -> None:
    account, _ = server.account()
    _, environ = developer_environment(server, account)
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
        send_batch(server, account, range(20))
        url = f"http://127.0.0.1:{port}/received"
        wait_for(lambda: urllib3.request("GET", url).json()["verified"] == 20, "all requests are verified")
        assert urllib3.request("GET", url).json()["rejected"] == 0
        assert listening.stop() == 0
    finally:
        article.kill()
        article.wait(5)
        article.stdout.close()


def test_exit_codes_and_final_messages(own_server: Server, receiver: Receiver, start: Callable[..., Listening]) -> None:
    server = own_server
    account, _ = server.account()
    api, environ = developer_environment(server, account)
    url = receiver.url(PATH)

    def run_rejected(*arguments: str, **changed: str) -> tuple[int, str]:
        done = uplift({**environ, **changed}, "listen", *arguments)
        return done.returncode, done.stderr

    assert run_rejected("--forward-to", "ftp://x")[0] == 2
    assert run_rejected("--events", "test.numberd") == (
        4,
        (
            "Error: there is no event type test.numberd\n"
            "How to fix: did you mean test.numbered? To list all: `uplift event-types`\n"
        ),
    )
    assert run_rejected("--since", "yesterday")[0] == 2
    assert run_rejected("--duplicate")[0] == 2
    assert run_rejected("--nonsense")[0] == 2
    assert run_rejected(UPLIFT_API_KEY="sk_wrong")[0] == 3
    assert run_rejected(UPLIFT_API_KEY="")[0] == 3
    assert run_rejected(UPLIFT_API_URL="")[0] == 2
    assert run_rejected(UPLIFT_API_URL=f"http://127.0.0.1:{free_port()}")[0] == 75
    lacking = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "reader", "scopes": ["events:read"]})[
        "key"
    ]
    assert run_rejected(UPLIFT_API_KEY=lacking)[0] == 3
    # The session is deleted, or the key is revoked.
    listening = start(environ, "--forward-to", url).ready()
    [session] = api.ok("GET", "/v1/listen-sessions")["data"]
    api("DELETE", f"/v1/listen-sessions/{session['id']}")
    assert listening.wait() == 4
    listening = start(environ, "--forward-to", url).ready()
    for key in server.api().ok("GET", f"/v1/accounts/{account}/keys")["data"]:
        server.api().ok("DELETE", f"/v1/accounts/{account}/keys/{key['id']}")
    assert listening.wait() == 3
    assert listening.err[-2].startswith("Error: ")
    assert listening.err[-1].startswith("How to fix: ")
    # The server is down for longer than the command waits.
    _, environ = developer_environment(server, account)
    listening = start(environ, "--forward-to", url, "--exit-on-disconnect", "1s").ready()
    server.kill()
    began = time.monotonic()
    assert listening.wait() == 75
    assert 0.9 < time.monotonic() - began < 8
    server.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_exit_is_not_a_failure(
    server: Server, start: Callable[..., Listening], number: signal.Signals
) -> None:
    account, _ = server.account()
    _, environ = developer_environment(server, account)
    network = Network(server.port)
    listening = start({**environ, "UPLIFT_API_URL": network.url}).ready()
    network.silence()
    before = network.connections
    listening.process.send_signal(number)
    # The command asks the server to delete the session, and gets no response.
    wait_for(lambda: network.connections > before, "the command ends the session")
    assert listening.stop(number) == 0
    assert "Traceback" not in "".join(listening.err)
    network.close()


def test_a_closed_pipe_ends_the_command_cleanly(server: Server) -> None:
    account, operator = server.account()
    api, environ = developer_environment(server, account)
    operator.send(1)
    pipe = subprocess.Popen(
        [PROGRAM, "listen", "--since", "1h", "--json"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert pipe.stdout is not None
    assert pipe.stderr is not None
    assert json.loads(pipe.stdout.readline())["kind"] == "ready"
    pipe.stdout.close()
    wait_for(lambda: [operator.send(2), pipe.poll() is not None][1], "the command exits", every=0.1)
    assert pipe.wait(10) == 0
    assert "Error" not in pipe.stderr.read()
    pipe.stderr.close()
    assert api.ok("GET", "/v1/listen-sessions")["data"] == []
