"""The egress proxy and egress IPs."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import deliveries_of, serving, settled, wait_for
from .receiving import Receiver, respond


class ConnectProxy:
    """A proxy that only supports CONNECT and records the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        """The peer, target and credentials of each request."""
        self.reject_with: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, peer = self._listener.accept()
                threading.Thread(target=self._tunnel, args=(client, peer[0]), daemon=True).start()

    def _tunnel(self, client: socket.socket, peer: str) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            lines = head.decode().split("\r\n")
            method, target, _ = lines[0].split(" ")
            assert method == "CONNECT"
            credentials = [line for line in lines if line.lower().startswith("proxy-authorization: ")]
            self.requests.append((peer, target, credentials[0].split(": ")[1] if credentials else ""))
            if self.reject_with is not None:
                client.sendall(self.reject_with)
                return
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as onward:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_copy, args=(onward, client), daemon=True)
                back.start()
                _copy(client, onward)
                back.join(5)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    """A running proxy."""
    proxy = ConnectProxy()
    yield proxy
    proxy.close()


def test_deliveries_use_the_proxy_and_its_failures_do_not_count(
    tmp_path: Path, receiver: Receiver, proxy: ConnectProxy
) -> None:
    settings = {
        "UPLIFT_EGRESS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy.port}",
        "UPLIFT_RETRY_SCHEDULE": ",".join(["200ms"] * 20),
    }
    with serving(tmp_path / "data", **settings) as server:
        _, api = server.account()
        endpoint = api.endpoint(receiver.url("/hook", _closing))["id"]
        api.send(1)
        receiver.wait("/hook", 1)
        wait_for(lambda: receiver.count("/hook") == 2, "the registration event arrives")
        assert {request[1:] for request in proxy.requests} == {(f"127.0.0.1:{receiver.port}", "Basic dXNlcjpwQHNz")}
        # The server needs a new connection, and the proxy rejects it.
        proxy.reject_with = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        event = api.send(2).json["id"]
        delivery = deliveries_of(api, event)[0]["id"]
        attempts = wait_for(
            lambda: api.ok("GET", f"/v1/deliveries/{delivery}/attempts")["data"], "an attempt is stored"
        )
        assert attempts[0]["outcome"] == "connect_error"
        assert "could not open an outbound connection" in attempts[0]["hint"]
        assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["failing_since"] is None
        proxy.reject_with = None
        # Without a resend, the next attempt would not start until a minute after the failure of the proxy.
        api.ok("POST", f"/v1/deliveries/{delivery}/resend")
        assert settled(api, delivery)["status"] == "delivered"
        assert all("p@ss" not in line and "p%40ss" not in line for line in server.log)


def test_connections_use_the_egress_address(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", UPLIFT_EGRESS_ADDRESS="127.0.0.2") as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook"))
        api.send(1)
        [request] = receiver.wait("/hook", 1)
        assert request.peer == "127.0.0.2"
        assert {each.peer for each in receiver.requests} == {"127.0.0.2"}


def test_an_unavailable_proxy_affects_neither_attempts_nor_health(
    tmp_path: Path, receiver: Receiver, proxy: ConnectProxy
) -> None:
    settings = {
        "UPLIFT_EGRESS_PROXY": f"http://127.0.0.1:{proxy.port}",
        "UPLIFT_RETRY_SCHEDULE": "50ms,50ms",
        "UPLIFT_BREAKER_FAILURES": "2",
    }
    with serving(tmp_path / "data", **settings) as server:
        _, api = server.account()
        endpoint = api.endpoint(receiver.url("/hook", _closing))["id"]
        wait_for(lambda: receiver.count("/hook") == 1, "the registration event arrives")
        proxy.close()
        deliveries = [deliveries_of(api, api.send(number).json["id"])[0]["id"] for number in range(5)]
        for delivery in deliveries:
            [attempt] = wait_for(
                lambda delivery=delivery: api.ok("GET", f"/v1/deliveries/{delivery}/attempts")["data"],
                "an attempt is stored",
            )
            assert attempt["outcome"] == "connect_error"
            assert attempt["error"].startswith("the egress proxy failed: could not connect to")
            assert "could not open an outbound connection" in attempt["hint"]
            # The retry schedule would allow the next attempt after 50 ms, but the server waits a minute for the proxy.
            found = api.ok("GET", f"/v1/deliveries/{delivery}")
            assert (found["status"], found["attempts_made"]) == ("pending", 1)
        health = api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]
        assert (health["failing_since"], health["next_probe_at"]) == (None, None)
        assert receiver.count("/hook") == 1


def test_an_endpoint_of_the_other_ip_version_keeps_its_health(tmp_path: Path, receiver: Receiver) -> None:
    """With only an IPv6 egress IP, the server sends nothing over IPv4."""
    with serving(tmp_path / "data", UPLIFT_EGRESS_ADDRESS="::1") as server:
        _, api = server.account()
        endpoint = api.endpoint(receiver.url("/hook"))["id"]
        delivery = deliveries_of(api, api.send(1).json["id"])[0]["id"]
        attempts = wait_for(
            lambda: api.ok("GET", f"/v1/deliveries/{delivery}/attempts")["data"], "an attempt is stored"
        )
        assert (attempts[0]["outcome"], attempts[0]["error"]) == ("blocked", "there is no egress IP for IPv4")
        assert "AAAA for IPv6" in attempts[0]["hint"]
        assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["failing_since"] is None
        assert receiver.count("/hook") == 0


def test_private_endpoints_receive_nothing_if_not_allowed(tmp_path: Path, receiver: Receiver) -> None:
    data = tmp_path / "data"
    with serving(data) as server:
        account, api = server.account()
        endpoints = [api.endpoint(receiver.url(path))["id"] for path in ("/one", "/two")]
        wait_for(lambda: receiver.count("/one") == receiver.count("/two") == 1, "the registration events arrive")
    with serving(data, UPLIFT_ALLOW_PRIVATE_NETWORKS="false", UPLIFT_RETRY_SCHEDULE="100ms") as server:
        api = server.api(account=account)
        for delivery in deliveries_of(api, api.send(1).json["id"]):
            completed = settled(api, delivery["id"])
            assert (completed["status"], completed["last_outcome"], completed["attempts_made"]) == (
                "failed",
                "blocked",
                2,
            )
            for attempt in api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"]:
                assert attempt["remote_address"] is None
                assert "are not allowed: loopback" in attempt["error"]
                assert "an address that is not allowed" in attempt["hint"]
        for endpoint in endpoints:
            assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["failing_since"] is None
        response = api("POST", "/v1/endpoints", {"url": receiver.url("/three")})
        assert (response.status, response.json["errors"][0]["code"]) == (422, "https_required")
        assert (receiver.count("/one"), receiver.count("/two")) == (1, 1)


def _closing(connection: object, received: object) -> bool:
    """Respond with success, then close the connection."""
    respond(connection="close")(connection, received)  # type: ignore[arg-type]
    return False
