"""Too few file descriptors: the server logs the problem, the API stays reachable, and no delivery loses an attempt."""

import json
import resource
from pathlib import Path

from .harness import PROGRAM, Server, deliveries_of, serving, settled, wait_for
from .receiving import Receiver, respond

LIMIT = 300


def test_a_low_limit_leaves_the_api_reachable_and_delivers_everything(tmp_path: Path, receiver: Receiver) -> None:
    server = Server(tmp_path, UPLIFT_LOG_FORMAT="json")
    server._command = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", PROGRAM, "serve", "--json"]
    try:
        server.start()
        account, api = server.account()
        paths = [f"/slow/{number}" for number in range(6)]
        for path in paths:
            api.endpoint(receiver.url(path, respond(after=1)), max_in_flight=256)
        events = [api.send(number) for number in range(80)]
        assert all(each.status == 202 for each in events)
        most = 0
        while any(len(receiver.numbers(path)) < len(events) for path in paths):
            other = server.api(account=account)
            assert other("GET", "/healthz").status == 200, "a new connection is not served"
            assert other("GET", "/v1/endpoints").status == 200
            other.close()
            most = max(most, len(_used(server)))
        assert LIMIT // 3 < most < LIMIT
        assert all(set(receiver.numbers(path).values()) == {1} for path in paths)
        for delivery in deliveries_of(api, events[-1].json["id"]):
            completed = settled(api, delivery["id"])
            assert (completed["status"], completed["attempts_made"]) == ("delivered", 1)
        [warning] = [each for each in _lines(server) if each["message"].startswith("file descriptor limit too low")]
        assert warning["limit"] == LIMIT
        assert warning["needed"] > LIMIT
        assert server.stop() == 0
    finally:
        server.end()


def test_a_start_with_too_few_descriptors_fails(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server._command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", PROGRAM, "serve"]
    server.launch()
    assert server.process is not None
    try:
        assert server.process.wait(20) == 2
    finally:
        server.end()
    assert "64" in "".join(server.log)


def test_idle_connections_are_closed_without_a_free_descriptor(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", UPLIFT_LOG_FORMAT="json") as server:
        # Keep the clients: if one ended, the server would close its connection and have a free descriptor.
        clients = [server.account(f"account {number}")[1] for number in range(12)]
        for number, client in enumerate(clients):
            client.endpoint(receiver.url(f"/kept/{number}"))
        _, api = server.account()
        url = receiver.url("/hook", respond(connection="close"))
        endpoint = api.endpoint(url)["id"]
        wait_for(lambda: _messages(server).count("attempt") == 13, "the registration events are delivered")
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (_lowest_free(server), before[1]))
        sent = api.send(1)
        assert sent.status == 202
        receiver.wait("/hook", 1)
        [delivery] = deliveries_of(api, sent.json["id"])
        completed = settled(api, delivery["id"])
        assert (completed["status"], completed["attempts_made"]) == ("delivered", 1)
        assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["failing_since"] is None
        assert server.api()("GET", "/healthz").status == 200, "a new connection is not served"
        assert _messages(server).count("out of file descriptors") == 1


def _used(server: Server) -> set[int]:
    return {int(each.name) for each in Path(f"/proc/{server.pid}/fd").iterdir()}


def _lowest_free(server: Server) -> int:
    used = _used(server)
    return next(number for number in range(3, 1 << 20) if number not in used)


def _messages(server: Server) -> list[object]:
    return [each["message"] for each in _lines(server)]


def _lines(server: Server) -> list[dict[str, object]]:
    return [json.loads(each) for each in server.log if each.startswith('{"at"')]
