"""Transfer from SQLite to PostgreSQL: pending deliveries are delivered there, and nothing is lost."""

import shutil
import subprocess
from pathlib import Path

from tests.postgres import PostgresServer

from .harness import TYPE, Server, serving, wait_for
from .receiving import Receiver, respond

SETTINGS = {"UPLIFT_RETRY_SCHEDULE": ",".join(["500ms"] * 60), "UPLIFT_BREAKER_FAILURES": "0"}


def migrate(server: Server, target: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in the data directory of the server."""
    return server.run("migrate", "--from", server.environ["UPLIFT_DATABASE_URL"], "--to", target)


def test_a_transfer_to_postgresql_continues_a_killed_sqlite_server(
    tmp_path: Path, receiver: Receiver, postgres_server: PostgresServer
) -> None:
    target = postgres_server.new_database(empty=True)
    url = receiver.url("/moved", respond(500))
    with serving(tmp_path / "sqlite", **SETTINGS) as server:
        account, api = server.account()
        key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "theirs"})["key"]
        endpoint = api.endpoint(url)
        sent = [api.send(number, idempotency_key=f"n-{number}").json["id"] for number in range(40)]
        receiver.wait("/moved", 40)
        page = api.ok("GET", "/v1/events?limit=15")
        assert migrate(server, target).returncode == 75
        server.kill()
        made = migrate(server, target)
        assert made.returncode == 0, made
    secret_key = (tmp_path / "sqlite" / "secret.key").read_text().strip()
    shutil.rmtree(tmp_path / "sqlite")

    receiver.requests.clear()
    receiver.url("/moved", respond(200))
    with serving(tmp_path / "postgres", UPLIFT_DATABASE_URL=target, UPLIFT_SECRET_KEY=secret_key, **SETTINGS) as server:
        theirs, api = server.api(key), server.api(account=account)
        receiver.wait("/moved", 40)
        assert set(receiver.numbers("/moved")) == set(range(40))
        rest = theirs.ok("GET", f"/v1/events?limit=500&cursor={page['next_cursor']}")
        # The pages also contain the registration event of the endpoint, which has another type.
        assert [each["id"] for each in [*page["data"], *rest["data"]] if each["type"] == TYPE] == sent[::-1]
        again = api.send(7, idempotency_key="n-7").json
        assert (again["id"], again["duplicate"]) == (sent[7], True)
        assert api.send(40).status == 202
        receiver.wait("/moved", 41)
        assert theirs.ok("GET", f"/v1/endpoints/{endpoint['id']}")["url"] == url

        def none_pending() -> bool:
            return not api.ok("GET", "/v1/deliveries?status=pending")["data"]

        wait_for(none_pending, "all events are delivered")
