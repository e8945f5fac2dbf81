"""Connections to the API: reuse, replacement, limits, TLS and proxies."""

import base64
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.cli.fake_api import Request, fake_api

from uplift_webhooks.api import ApiUnreachable, AsyncClient, Client, connections

from .scripted_api import ScriptedApi, json_response, scripted


def _client_without_retries(api: ScriptedApi, **settings: float) -> Client:
    return Client(api.url, "sk_secret_of_the_test", retries=0, **settings)  # type: ignore[arg-type]


def test_a_connection_is_reused(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({}), json_response(status=404), json_response({})]

    client.request("GET", "/v1/a")
    with pytest.raises(Exception, match="404"):
        client.request("GET", "/v1/b")
    client.request("GET", "/v1/c")

    assert [request.connection for request in api.requests] == [0, 0, 0]


def test_a_connection_closed_by_the_server_is_replaced(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({}), json_response({"id": "x"})]
    client.request("GET", "/v1/a")
    api.drop()

    assert client.request("POST", "/v1/b") == {"id": "x"}
    assert [request.connection for request in api.requests] == [0, 1]


def test_a_connection_closed_during_reuse_is_replaced_once(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closes the connection between the check and the response."""
    api.script = [json_response({}), lambda connection: None, json_response({"id": "x"}), lambda connection: None]
    with _client_without_retries(api) as client:
        client.request("GET", "/v1/a")

        assert client.request("POST", "/v1/b") == {"id": "x"}

        first, again = api.requests[1:]
        assert (first.connection, again.connection) == (0, 1)
        assert first.headers["idempotency-key"] == again.headers["idempotency-key"]


def test_an_incomplete_response_causes_no_repeat(api: ScriptedApi) -> None:
    api.script = [
        json_response({}),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
    ]
    with _client_without_retries(api) as client:
        client.request("GET", "/v1/a")

        with pytest.raises(ApiUnreachable, match="failed: IncompleteRead"):
            client.request("POST", "/v1/b")

    assert len(api.requests) == 2


def test_a_closed_client_closes_connections_and_can_be_reused(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({}), json_response({}, connection="close"), json_response({})]

    client.request("GET", "/v1/a")
    client.close()
    client.request("GET", "/v1/b")
    client.request("GET", "/v1/c")

    assert [request.connection for request in api.requests] == [0, 1, 2]


def test_threads_share_a_client_and_few_idle_connections_remain(api: ScriptedApi, client: Client) -> None:
    barrier = threading.Barrier(12)

    def work(number: int) -> bool:
        barrier.wait(10)
        return client.request("GET", f"/v1/{number}") == {"id": "x"}

    api.script = [json_response({"id": "x"})] * 12
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(12)))

    assert len(client._connections._idle) <= connections.IDLE_MAX


def test_a_refused_connection() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with Client(url, retries=0) as client, pytest.raises(ApiUnreachable) as caught:
            client.request("GET", "/v1/x")

    assert str(caught.value) == f"The request to {url} failed: Connection refused."


def test_a_silent_server_times_out(api: ScriptedApi) -> None:
    done = threading.Event()
    api.script = [lambda connection: done.wait(10) and None]
    with _client_without_retries(api, timeout_seconds=0.2) as client, pytest.raises(ApiUnreachable, match="timed out"):
        client.request("GET", "/v1/x")
    done.set()


JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "chunk"),
    [
        (JSON_HEAD + b"Content-Length: 1000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 O", b"K"),
        (JSON_HEAD + b"X-Long: ", b"a"),
        (JSON_HEAD, b"X-More: 1\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
    ],
    ids=["body", "status", "header", "headers", "interim responses", "chunk size", "trailers"],
)
def test_a_slow_response_times_out(api: ScriptedApi, first: bytes, chunk: bytes) -> None:
    done = threading.Event()

    def send_slowly(connection: socket.socket) -> None:
        connection.sendall(first)
        # The large chunk is sent without pauses.
        while not done.wait(0.02 if len(chunk) < 100 else 0):
            connection.sendall(chunk)

    api.script = [send_slowly]
    began = time.monotonic()
    with (
        _client_without_retries(api, timeout_seconds=0.3) as client,
        pytest.raises(ApiUnreachable, match="took too long"),
    ):
        client.request("GET", "/v1/x")
    done.set()

    assert time.monotonic() - began < 5


def test_a_slow_proxy_response_times_out(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def send_slowly(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not done.wait(0.02):
            connection.sendall(b"X-More: 1\r\n")

    api.script = [send_slowly]
    monkeypatch.setenv("HTTPS_PROXY", api.url)
    client = Client("https://api.example", retries=0, timeout_seconds=0.3)
    with client, pytest.raises(ApiUnreachable, match="took too long"):
        client.request("GET", "/v1/x")
    done.set()


def test_each_call_on_a_kept_connection_has_the_full_timeout(api: ScriptedApi) -> None:
    def late(connection: socket.socket) -> None:
        time.sleep(0.4)
        connection.sendall(JSON_HEAD + b"Content-Length: 2\r\n\r\n{}")

    api.script = [json_response({}), late]
    with _client_without_retries(api, timeout_seconds=0.6) as client:
        client.request("GET", "/v1/x")
        # The second call would time out if it shared the timeout of the first.
        time.sleep(0.4)
        assert client.request("GET", "/v1/y") == {}
    assert [request.connection for request in api.requests] == [0, 0]


def test_a_response_over_the_size_limit_is_rejected(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "RESPONSE_BYTES_MAX", 100_000)
    api.script = [json_response("x" * 100_001), json_response("x" * 99_998)]
    with _client_without_retries(api) as client:
        with pytest.raises(ApiUnreachable, match="larger than 100000 bytes"):
            client.request("GET", "/v1/x")
        assert len(client.request("GET", "/v1/x")) == 99_998


def test_a_response_that_is_not_http_is_reported(api: ScriptedApi) -> None:
    api.script = [lambda connection: connection.sendall(b"220 smtp.example ESMTP\r\n")]
    with _client_without_retries(api) as client, pytest.raises(ApiUnreachable, match="220 smtp"):
        client.request("GET", "/v1/x")


def test_a_failed_call_closes_its_connection(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({}), json_response({})]
    client.request("GET", "/v1/a")

    with pytest.raises(ValueError, match="control characters"):
        client.request("GET /v1/b HTTP/1.1\r\n", "/v1/b")
    client.request("GET", "/v1/c")

    assert [request.connection for request in api.requests] == [0, 1]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that replaces those of the system."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return authority


def _tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_https_through_a_proxy_with_a_password(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(json_response({"id": "x"}), json_response({"id": "y"}), tls=_tls(authority, "api.example")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        with Client("https://api.example/behind", "sk_secret_of_the_test") as client:
            assert client.request("GET", "/v1/x") == {"id": "x"}
            assert client.request("GET", "/v1/y") == {"id": "y"}

    tunnel, first, second = proxy.requests
    assert (tunnel.method, tunnel.target) == ("CONNECT", "api.example:443")
    assert tunnel.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'user:p@ss').decode()}"
    assert "authorization" not in tunnel.headers
    assert (first.target, second.target) == ("/behind/v1/x", "/behind/v1/y")
    assert first.headers["authorization"] == "Bearer sk_secret_of_the_test"
    assert "proxy-authorization" not in first.headers


@pytest.fixture
def one_tls_connection(authority: trustme.CA) -> Iterator[str]:
    """The URL of a server that accepts one connection and two requests, and responds with [1] and [2]."""
    context = _tls(authority, "127.0.0.1")

    def behind_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            for content in (b"[1]", b"[2]"):
                assert secured.recv(65_536).startswith(b"GET /v1/")
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + content)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=lambda: behind_tls(listener.accept()[0]))
        server.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        server.join(5)


def test_https_on_a_kept_connection(one_tls_connection: str) -> None:
    with Client(one_tls_connection, timeout_seconds=5) as client:
        assert [client.request("GET", "/v1/x"), client.request("GET", "/v1/y")] == [[1], [2]]


FORKS = """
import os, sys
from uplift_webhooks.api import Client
client = Client(retries=0)
client.request("GET", "/v1/parent")
children = []
for number in range(4):
    child = os.fork()
    if not child:
        sys.exit(client.request("GET", f"/v1/{number}") != {"number": number})
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_forked_processes_use_their_own_connections() -> None:
    together = threading.Barrier(4)

    def respond(request: Request) -> Any:
        together.wait(5)
        return {"number": int(request.path[-1])}

    with fake_api() as api:
        api.responses = {"GET /v1/parent": {}, **{f"GET /v1/{number}": respond for number in range(4)}}
        subprocess.run([sys.executable, "-c", FORKS], env={**os.environ, "UPLIFT_API_URL": api.url}, check=True)


FORK_BETWEEN_CALLS = """
import os, sys
from uplift_webhooks.api import Client
client = Client(retries=0)
client.request("GET", "/v1/x")
if not os.fork():
    sys.exit()
os.wait()
sys.exit(client.request("GET", "/v1/y") != [2])
"""


def test_a_forked_process_does_not_end_the_tls_connections_of_its_parent(one_tls_connection: str) -> None:
    environ = {**os.environ, "UPLIFT_API_URL": one_tls_connection}
    subprocess.run([sys.executable, "-c", FORK_BETWEEN_CALLS], env=environ, check=True)


def test_a_child_process_drops_idle_connections_and_locks(api: ScriptedApi, client: Client) -> None:
    """The test calls the function that runs in a child, because coverage does not measure a forked process."""
    api.script = [json_response({}), json_response({})]
    client.request("GET", "/v1/a")
    with client._connections._lock:  # Another thread can hold the lock when the process forks.
        connections._begin_in_child()
        client.request("GET", "/v1/b")

    assert [request.connection for request in api.requests] == [0, 1]


def test_a_certificate_for_another_name_is_rejected(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(tls=_tls(authority, "other.example")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        with (
            Client("https://api.example", "sk_secret_of_the_test", retries=0) as client,
            pytest.raises(ApiUnreachable, match="certificate"),
        ):
            client.request("GET", "/v1/x")
    assert [request.method for request in proxy.requests] == ["CONNECT"]


def test_http_through_a_proxy(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user@127.0.0.1:{api.port}")
    api.script = [json_response({"id": "x"})]
    with Client("http://api.example:8420/behind", "sk_secret_of_the_test") as client:
        assert client.request("GET", "/v1/x") == {"id": "x"}

    [request] = api.requests
    assert (request.target, request.headers["host"]) == ("http://api.example:8420/behind/v1/x", "api.example:8420")
    assert request.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'user:').decode()}"


def test_a_proxy_rejection_is_reported(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", api.url)
    api.script = [json_response(status=407)]
    with Client("https://api.example", retries=0) as client, pytest.raises(ApiUnreachable, match="407"):
        client.request("GET", "/v1/x")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connections_to_this_machine_use_no_proxy(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    api.script = [json_response({"id": "x"})]
    with Client(f"http://{host}:{api.port}") as client:
        assert client.request("GET", "/v1/x") == {"id": "x"}


def test_no_proxy_excludes_a_host(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", api.url)
    monkeypatch.setenv("NO_PROXY", "invalid")
    with (
        Client("http://api.invalid", retries=0) as client,
        pytest.raises(ApiUnreachable, match="The request to"),
    ):
        client.request("GET", "/v1/x")
    assert api.requests == []


def test_a_client_can_ignore_the_proxy(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", api.url)
    with (
        Client("http://api.invalid", retries=0, use_proxy=False) as client,
        pytest.raises(ApiUnreachable, match="The request to"),
    ):
        client.request("GET", "/v1/x")
    assert api.requests == []


async def test_an_async_client_can_ignore_the_proxy(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", api.url)
    async with AsyncClient("http://api.invalid", retries=0, use_proxy=False) as client:
        with pytest.raises(ApiUnreachable, match="The request to"):
            await client.request("GET", "/v1/x")
    assert api.requests == []


@pytest.mark.parametrize("proxy", ["socks5://user:hidden@proxy.example", "https://proxy.example", "http://[::1:hidden"])
def test_an_invalid_proxy_is_rejected(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ValueError, match="proxy URL") as caught:
        Client("https://api.example")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("host", ["webhooks..example", f"{'a' * 64}.example"])
def test_a_host_that_no_name_server_knows_is_rejected(host: str) -> None:
    with pytest.raises(ValueError, match="api_url is not a valid URL"):
        Client(f"https://{host}", "sk_1")


def test_an_invalid_environment_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", "nonsense")
    monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
    with pytest.raises(ValueError, match="UPLIFT_API_URL must start with https"):
        Client()
    monkeypatch.setenv("UPLIFT_API_KEY", "sk 1")
    with pytest.raises(ValueError, match="UPLIFT_API_KEY must have"):
        Client()


def test_a_version_at_the_end_of_the_url_is_removed(api: ScriptedApi) -> None:
    api.script = [json_response({})]
    with Client(f"{api.url}/v1", "sk_1") as client:
        client.request("GET", "/v1/x")
    assert api.requests[0].target == "/v1/x"


def test_https_on_an_http_port_is_reported() -> None:
    with fake_api() as plain:
        url = plain.url.replace("http:", "https:")
        with Client(url, "sk_1", retries=0) as client, pytest.raises(ApiUnreachable) as caught:
            client.request("GET", "/v1/x")
    assert str(caught.value) == f"{url} does not use TLS. Use http:// for this port."
