"""A dump of a busy PostgreSQL database, restored as documented, delivers the pending events."""

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.postgres import PostgresServer

from uplift_server.store.postgres import PostgresDatabase

from .harness import Server, sending, wait_for
from .receiving import Receiver, respond
from .test_postgres import KEY, run

SETTINGS: Final = {
    "UPLIFT_RETRY_SCHEDULE": ",".join(["2s"] * 60),
    "UPLIFT_BREAKER_FAILURES": "0",
    "UPLIFT_SECRET_KEY": KEY,
}
RESTORED: Final = "uplift_restored"


def tool(postgres: PostgresServer, name: str, *arguments: str) -> None:
    """Run a program of PostgreSQL as the administrator."""
    environ = {"PATH": "/usr/bin:/bin", "PGHOST": str(postgres.directory), "PGUSER": "postgres"}
    command = [str(postgres.commands / name), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def another_partition(url: str) -> None:
    """Start the next partition."""

    async def begin() -> None:
        database = PostgresDatabase(url)
        assert database.partitions is not None
        assert await database.partitions.start_next(now=time.time_ns() // 1_000_000, lasts_ms=1)
        await database.close()

    asyncio.run(begin())


def test_a_dump_made_under_traffic_delivers_pending_events(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, receiver: Receiver
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    url = postgres_url
    server = Server(tmp_path / "first", **SETTINGS, UPLIFT_DATABASE_URL=url).start()
    try:
        account, api = server.account()
        api.endpoint(receiver.url("/down", respond(500)))
        with sending(api) as accepted:
            wait_for(lambda: len(accepted) > 50, "events are accepted")
            another_partition(url)
            wait_for(lambda: len(accepted) > 100, "events are still accepted")
            before = list(accepted)
            tool(postgres_server, "pg_dump", "--format=custom", f"--file={tmp_path}/uplift.dump", url)
            during = len(accepted)
    finally:
        server.end()
    assert during > len(before), "no event was accepted during the dump"

    tool(postgres_server, "createdb", "--template=template0", RESTORED)
    tool(
        postgres_server, "pg_restore", "--exit-on-error", "--no-owner", "--role=postgres", f"--dbname={RESTORED}",
        f"{tmp_path}/uplift.dump",
    )  # fmt: skip
    receiver.requests.clear()
    receiver.url("/down", respond(200))
    restored = Server(
        tmp_path / "second", **SETTINGS, UPLIFT_DATABASE_URL=postgres_server.url(RESTORED), UPLIFT_RETENTION="30d"
    )
    examined = run(restored, "doctor")
    assert "decrypts" in examined.stdout + examined.stderr
    restored.start()
    try:
        api = restored.api(account=account)
        wait_for(
            lambda: not api.ok("GET", "/v1/deliveries?status=pending")["data"], "the copy has no pending deliveries"
        )
        assert not set(before) - set(receiver.numbers("/down"))
        assert api.send(-1).status == 202
        wait_for(lambda: -1 in receiver.numbers("/down"), "the new event arrives")
        another_partition(postgres_server.url(RESTORED))
        assert api.send(-2).status == 202
    finally:
        restored.end()
        postgres_server.execute(f"DROP DATABASE {RESTORED} WITH (FORCE)")
