"""The dashboard behind a proxy that terminates TLS."""

import asyncio
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from playwright.sync_api import Page, expect
from tests.dashboard.visitors import Guest
from tests.e2e.harness import OPERATOR_KEY, Server


@contextmanager
def terminating_tls(upstream_port: Callable[[], int]) -> Iterator[int]:
    """Forward TLS connections to a plain port of 127.0.0.1. Yield the TLS port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    port: Future[int] = Future()
    stop: list[Callable[[], object]] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(65_536):
                sink.write(chunk)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", upstream_port())
        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))

    async def listen() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port.set_result(listening.sockets[0].getsockname()[1])
        await stopped.wait()
        listening.close()

    thread = threading.Thread(target=asyncio.run, args=(listen(),), daemon=True)
    thread.start()
    yield port.result(10)
    stop[0]()
    thread.join(10)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server with an HTTPS public URL."""
    servers: list[Server] = []
    with terminating_tls(lambda: servers[0].port) as port:
        url = f"https://localhost:{port}"
        data = tmp_path / "data"
        data.mkdir()
        server = Server(data, UPLIFT_PUBLIC_URL=url)
        servers.append(server)
        try:
            yield server.start(), url
        finally:
            server.end()


def test_cookies_over_https_have_the_host_prefix(secure: tuple[Server, str], page: Page) -> None:
    server, url = secure
    # Connect to the server without TLS, as a reverse proxy on this machine does.
    guest = Guest(server.url)
    guest.post("/sign-in/operator", key=OPERATOR_KEY, follow=False)
    assert set(guest.cookies) == {"__Host-uplift_session", "__Host-uplift_form"}
    old = Guest(server.url, {"uplift_session": guest.cookies["__Host-uplift_session"]})
    assert old.get("/", follow=False).headers["location"] == "/sign-in"

    assert page.context.browser is not None
    context = page.context.browser.new_context(ignore_https_errors=True)
    visiting = context.new_page()
    visiting.goto(f"{url}/sign-in/operator")
    visiting.get_by_label("Operator key").fill(OPERATOR_KEY)
    visiting.get_by_role("button", name="Sign in").click()
    expect(visiting).to_have_url(re.compile(f"^{url}/operator"))
    kept = {cookie["name"]: (cookie["domain"], cookie["path"], cookie["secure"]) for cookie in context.cookies()}
    assert kept["__Host-uplift_session"] == ("localhost", "/", True)
    assert not any(name.startswith("uplift_") for name in kept)
    visiting.get_by_role("button", name="Sign out").click()
    expect(visiting.get_by_text("You are signed out.")).to_be_visible()
    context.close()
