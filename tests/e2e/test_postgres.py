"""A server on PostgreSQL delivers, and loses nothing when it is killed or the database is unavailable."""

import asyncio
import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests import programs
from tests.postgres import PostgresServer

from .harness import PROGRAM, TYPE, Server, serving, wait_for
from .receiving import Receiver
from .test_kill import Load

KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test can stop."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def settings(postgres_server: PostgresServer) -> dict[str, str]:
    """The settings of a server on an empty database."""
    return {"UPLIFT_DATABASE_URL": postgres_server.new_database(empty=True), "UPLIFT_SECRET_KEY": KEY}


def run(server: Server, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the settings of a server."""
    environment = {name: value for name, value in {**server.environ, **environ}.items() if value}
    return programs.run([PROGRAM, *arguments], directory=server.data, environ=environment)


def test_sent_events_arrive_and_are_counted(tmp_path: Path, receiver: Receiver, settings: dict[str, str]) -> None:
    with serving(tmp_path / "data", **settings) as server:
        _, api = server.account()
        paths = ("/one", "/two", "/three")
        for path in paths:
            api.endpoint(receiver.url(path))
        events = [{"type": TYPE, "data": {"number": number}} for number in range(200)]
        api.ok("POST", "/v1/events/batch", {"events": events})
        for path in paths:
            wait_for(lambda path=path: len(receiver.numbers(path)) == 200, f"all events arrive at {path}")
            assert set(receiver.numbers(path).values()) == {1}
        wait_for(lambda: not api.ok("GET", "/v1/deliveries?status=pending&limit=1")["data"], "no delivery is pending")
        assert len(api.list_all("/v1/deliveries?status=delivered")) >= 600
        followed = api.ok("GET", "/v1/events?order=asc&limit=500")
        assert len(followed["data"]) >= 200
        # All data is in the database. The data directory contains not even an encryption key.
        assert list(server.data.iterdir()) == []
        assert run(server, "accounts", "--json").returncode == 0
        assert "postgresql" in run(server, "doctor").stdout
        assert server.stop() == 0
        server.start()
        assert api.send(1000).status == 202
        receiver.wait("/one", 201)


def test_kills_and_outages_of_the_database_lose_nothing(
    tmp_path: Path, receiver: Receiver, postgres_server: PostgresServer, settings: dict[str, str]
) -> None:
    with serving(tmp_path / "data", UPLIFT_LEASE="7s", UPLIFT_ATTEMPT_TIMEOUT="2s", **settings) as server:
        account, api = server.account()
        api.endpoint(receiver.url("/hook"), max_in_flight=64)
        load = Load(server, account)
        time.sleep(0.5)
        server.kill()
        server.start()
        for mode in ("fast", "immediate"):
            time.sleep(0.5)
            before = len(load.accepted)
            postgres_server.stop(mode)
            time.sleep(1)
            assert api("GET", "/v1/endpoints").status == 503
            postgres_server.start()
            wait_for(lambda before=before: len(load.accepted) > before + 20, "events are accepted again")
        load.finish()
        assert load.unexpected_responses == []
        expected = set(load.accepted)
        wait_for(lambda: expected <= set(receiver.numbers("/hook")), "all events arrive", 40, every=0.2)
        wait_for(lambda: _pending(api) == 0, "no delivery is pending", 40, every=0.2)
        ids: dict[int, set[str]] = {}
        for request in receiver.on("/hook"):
            ids.setdefault(request.json["data"]["number"], set()).add(request.headers["webhook-id"])
        # A request that is repeated with a key creates one event. Ignore numbers that were not accepted: a request
        # without a key may have stored an event although its response was lost.
        assert {number: ids[number] for number in expected} == {n: {each} for n, each in load.accepted.items()}


def _pending(api: Any) -> int:
    return len(api.ok("GET", "/v1/deliveries?status=pending&limit=1")["data"])


@contextlib.contextmanager
def other_server(port: int, body: bytes) -> Iterator[None]:
    """Run another HTTP server on a port. It responds with 503 and this body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: object = "-", size: object = "-") -> None: ...

    with HTTPServer(("127.0.0.1", port), Handler) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            yield
        finally:
            other.shutdown()


def run_doctor(server: Server) -> dict[str, Any]:
    """Run `doctor` with the settings of a server. Return its findings by check."""
    result = run(server, "doctor", "--json")
    assert result.returncode == 1
    return {found["check"]: found for found in map(json.loads, result.stdout.splitlines())}


def test_doctor_reports_a_blocked_database(tmp_path: Path, settings: dict[str, str]) -> None:
    """Neither `doctor` nor the server gets a response while another session blocks the database."""

    async def run_doctor_during_lock(server: Server) -> dict[str, Any]:
        session = await asyncpg.connect(settings["UPLIFT_DATABASE_URL"])
        async with session.transaction():
            await session.execute("LOCK TABLE event_types, endpoints IN ACCESS EXCLUSIVE MODE")
            findings = await asyncio.to_thread(run_doctor, server)
        await session.close()
        return findings

    with serving(tmp_path / "data", **settings) as server:
        findings = asyncio.run(run_doctor_during_lock(server))
    assert "but is not ready" in findings["server"]["text"]
    assert findings["database"]["result"] == "fail"
    assert "mail" in findings, "doctor skipped the remaining checks"


def test_commands_report_the_differences_on_postgresql(
    tmp_path: Path, settings: dict[str, str], postgres_server: PostgresServer
) -> None:
    server = Server(tmp_path, **settings)
    unset = run(server, "serve", UPLIFT_SECRET_KEY="")
    assert unset.returncode != 0
    assert "UPLIFT_SECRET_KEY is not set" in unset.stderr
    assert "head -c 32 /dev/urandom" in unset.stderr
    # Before the first start, commands have no data to work on. They fail and change nothing.
    (tmp_path / "new.key").write_text(base64.b64encode(b"n" * 32).decode())
    for command in (("accounts",), ("secret-key", "rotate", "--new-key-file", "new.key")):
        nothing = run(server, *command)
        assert nothing.returncode == 4, nothing
        assert "uplift-server serve" in nothing.stderr
    assert json.loads(run(server, "migrate", "--json").stdout)["before"] == "none"
    assert run(server, "accounts", "--json").stdout == ""
    rotated = run(server, "secret-key", "rotate", "--new-key-file", "new.key")
    assert rotated.returncode == 0, rotated.stderr
    assert "set UPLIFT_SECRET_KEY" in rotated.stderr + rotated.stdout
    copied = run(server, "backup", "copy.db")
    assert "pg_dump" in copied.stderr
    unreachable_result = run(server, "accounts", UPLIFT_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert unreachable_result.returncode != 0
    assert "the database cannot execute the operation now" in unreachable_result.stderr
    for body in (b'{"code": 14, "message": "upstream is not available"}', b'{"errors": 5}', b"[" * 100_000):
        with other_server(server.port, body):
            assert run_doctor(server)["port"]["result"] == "fail"
    missing = run(server, "accounts", UPLIFT_DATABASE_URL=postgres_server.url("nowhere"))
    assert missing.returncode == 2
    assert "CREATE DATABASE" in missing.stderr
    unknown = run(
        server, "accounts", UPLIFT_DATABASE_URL=postgres_server.url("postgres").replace("postgres@", "nobody@")
    )
    assert unknown.returncode == 2
    assert "correct the user in UPLIFT_DATABASE_URL" in unknown.stderr
    server.start()
    try:
        in_use = run(server, "secret-key", "rotate", "--new-key-file", "new.key")
        assert "a server is using the database" in in_use.stderr
        postgres_server.stop("fast")
        try:
            api = server.api()
            wait_for(lambda: api("GET", "/readyz").status == 503, "the server reports the outage")
            findings = run_doctor(server)
            without_key = run(server, "accounts", UPLIFT_OPERATOR_KEY="")
        finally:
            postgres_server.start()
        assert without_key.returncode == 75, without_key.stderr
        assert "but is not ready" in findings["server"]["text"]
        assert "port" not in findings
    finally:
        server.end()
