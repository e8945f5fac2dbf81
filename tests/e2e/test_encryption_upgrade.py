"""The encryption upgrade of a database of release 0.1.1, by one server or during a rolling upgrade."""

import asyncio
import base64
import os
import time
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.engines import Place
from tests.postgres import PostgresServer

from uplift_server.core import ids
from uplift_server.store.encryption import COLUMNS, Cipher
from uplift_server.store.postgres import schema_version
from uplift_server.store.schema import endpoints
from uplift_server.store.schema_processes import processes
from uplift_webhooks import Webhook

from .harness import Api, Server, serving, wait_for
from .receiving import Receiver

KEY = b"seals what is stored, tests only"
SETTINGS = {"UPLIFT_SECRET_KEY": base64.b64encode(KEY).decode()}


def as_0_1_1_encrypts(value: str, endpoint_id: bytes) -> bytes:
    """Encrypt like releases up to 0.1.1."""
    nonce = os.urandom(12)
    return b"\x01" + nonce + AESGCM(KEY).encrypt(nonce, value.encode(), endpoint_id)


def as_0_1_1_decrypts(value: bytes, endpoint_id: bytes) -> str:
    """Decrypt like releases up to 0.1.1."""
    assert value[:1] == b"\x01"
    return AESGCM(KEY).decrypt(value[1:13], value[13:], endpoint_id).decode()


def encrypt_as_0_1_1(place: Place) -> None:
    """Replace every encrypted value with the value that release 0.1.1 would have stored."""
    cipher = Cipher(KEY)

    def run(connection: sa.Connection) -> None:
        columns = [endpoints.c[column] for column in COLUMNS]
        for seq, endpoint_id, *values in connection.execute(sa.select(endpoints.c.seq, endpoints.c.id, *columns)).all():
            new = {
                column: None
                if value is None
                else as_0_1_1_encrypts(cipher.decrypt(value, endpoint_id, column), endpoint_id)
                for column, value in zip(COLUMNS, values, strict=True)
            }
            connection.execute(sa.update(endpoints).where(endpoints.c.seq == seq).values(new))

    place.run(run)


LATER_TRIGGERS = ("deliveries_unblock", "deliveries_count_failed")
LATER_TABLES = (
    "commands",
    "minute_rollups",
    "delivery_totals",
    "event_objects",
    "service_keys",
    "erasures",
    "operational_events",
    "failed_deliveries",
    "rejected_events",
    "identities",
    "second_factors",
    "recovery_codes",
)
LATER_INDEXES = ("accounts_by_uid", "endpoints_by_uid", "deliveries_ordered", "invitations_by_email")
LATER_COLUMNS = {
    "accounts": ("uid", "metadata"),
    "api_keys": ("expires_at",),
    "endpoints": (
        "last_status_code",
        "last_error",
        "last_location",
        "probe_at",
        "tested_at",
        "verified_at",
        "uid",
        "metadata",
        "retry_schedule_ms",
        "attempt_timeout_ms",
        "ordering",
        "filter",
        "auth",
        "certificate_expires_at",
        "certificate_warned_at",
    ),
    "events": ("object_id", "erased_at", "ordering_key"),
    "deliveries": ("order_group",),
    "sessions": ("reader_key_digest", "subject", "operator_name", "id_token"),
    "links": ("reader_key_digest",),
    "replays": ("outcomes", "status_codes", "object_id", "batch_id", "missing_type_seqs"),
}


def make_earlier(place: Place) -> None:
    """Convert a database to the state of release 0.1.1."""
    encrypt_as_0_1_1(place)
    on_postgresql = place.environ["UPLIFT_DATABASE_URL"].startswith("postgresql")
    for trigger in LATER_TRIGGERS:
        drop = f"DROP FUNCTION {trigger} CASCADE" if on_postgresql else f"DROP TRIGGER {trigger}"
        place.run(lambda c, drop=drop: c.execute(sa.text(drop)))
    for table in LATER_TABLES:
        place.run(lambda c, table=table: c.execute(sa.text(f"DROP TABLE {table}")))
    for index in LATER_INDEXES:  # SQLite does not drop an indexed column
        place.run(lambda c, index=index: c.execute(sa.text(f"DROP INDEX {index}")))
    for table, columns in LATER_COLUMNS.items():
        for column in columns:
            place.run(lambda c, at=(table, column): c.execute(sa.text("ALTER TABLE {} DROP COLUMN {}".format(*at))))
    place.run(lambda c: c.execute(sa.text("UPDATE alembic_version SET version_num = '0010'")))
    place.run(lambda c: c.execute(sa.text("DELETE FROM marks WHERE name = 'schema.needs_release'")))


def versions(place: Place) -> set[int]:
    """Return the version bytes of all encrypted values."""
    rows = place.query(f"SELECT {', '.join(COLUMNS)} FROM endpoints")
    return {bytes(value)[0] for row in rows for value in row if value is not None}


def secret_of(api: Api, endpoint: str) -> str:
    return str(api.ok("GET", f"/v1/endpoints/{endpoint}/secret")["secret"])


def check_delivery(api: Api, receiver: Receiver, path: str, secrets: list[str]) -> None:
    """Check that a request arrives with the custom header, signed with all secrets."""
    before = len(receiver.on(path))
    api.send(before)
    receiver.wait(path, before + 1)
    request = receiver.on(path)[-1]
    assert request.headers["x-jwt"] == "hush"
    for secret in secrets:
        Webhook(secret).verify(request.body, request.headers)


def test_a_0_1_1_database_is_upgraded_and_moved_values_are_rejected(tmp_path: Path, receiver: Receiver) -> None:
    data = tmp_path / "data"
    with serving(data, **SETTINGS) as server:
        account, api = server.account()
        made = api.endpoint(receiver.url("/hook"), headers={"X-Jwt": "hush"})
        rotated = api.ok("POST", f"/v1/endpoints/{made['id']}/secret/rotate", {})["secret"]
        assert versions(server.place) == {2}
        check_delivery(api, receiver, "/hook", [made["secret"], rotated])
    make_earlier(server.place)
    if (url := server.place.environ["UPLIFT_DATABASE_URL"]).startswith("postgresql"):
        asyncio.run(schema_version.upgrade(url))

    with serving(data, **SETTINGS) as server:
        api = server.api(account=account)
        wait_for(lambda: versions(server.place) == {2}, "all values have the new encryption")
        assert secret_of(api, made["id"]) == rotated
        check_delivery(api, receiver, "/hook", [made["secret"], rotated])
        server.place.run(lambda c: c.execute(sa.text("UPDATE endpoints SET secret = headers")))
        response = api("GET", f"/v1/endpoints/{made['id']}/secret")
        assert response.status == 500
        assert "hush" not in str(response)
        server.stop()

        second_start = Server(data, **SETTINGS)
        second_start.launch()
        assert second_start.process is not None
        assert second_start.process.wait(20) == 2
        second_start.end()
        assert "cannot decrypt a stored value" in "".join(second_start.log)


def test_servers_of_both_releases_read_all_values_during_the_upgrade(
    tmp_path: Path, receiver: Receiver, postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database(empty=True)
    with serving(tmp_path, UPLIFT_DATABASE_URL=url, **SETTINGS) as first:
        account, api = first.account()
        made = api.endpoint(receiver.url("/hook"), headers={"X-Jwt": "hush"})
    make_earlier(first.place)
    asyncio.run(schema_version.upgrade(url))
    # This row represents a running server of release 0.1.1. Its heartbeat is in the future, so that it does not expire.
    future_ms = (time.time_ns() // 1_000_000) + 3_600_000
    row = {"role": "all", "host": "a", "pid": 17, "version": "0.1.1", "started_at": 1, "seen_at": future_ms, "view": 0}
    first.place.run(lambda c: c.execute(sa.insert(processes).values(**row, delivers=False)))

    with ExitStack() as stack:
        servers = [stack.enter_context(serving(tmp_path, UPLIFT_DATABASE_URL=url, **SETTINGS)) for _ in range(2)]
        apis = [server.api(account=account) for server in servers]
        later = apis[0].endpoint(receiver.url("/later"), headers={"X-Jwt": "hush"})
        rotated = apis[1].ok("POST", f"/v1/endpoints/{made['id']}/secret/rotate", {})["secret"]
        apis[0].ok("PATCH", f"/v1/endpoints/{made['id']}", {"headers": {"X-Jwt": "hush", "X-New": "a"}})
        found = {endpoint: as_0_1_1_secret(first.place, endpoint) for endpoint in (made["id"], later["id"])}
        assert found == {made["id"]: rotated, later["id"]: later["secret"]}
        assert versions(first.place) == {1}
        for api in apis:
            check_delivery(api, receiver, "/hook", [made["secret"], rotated])

        first.place.run(lambda c: c.execute(sa.delete(processes).where(processes.c.version == "0.1.1")))
        wait_for(lambda: versions(first.place) == {2}, "all values have the new encryption")
        for api in apis:
            check_delivery(api, receiver, "/hook", [made["secret"], rotated])
            assert secret_of(api, later["id"]) == later["secret"]
        newest = apis[0].endpoint(receiver.url("/newest"), headers={"X-Jwt": "hush"})
        path = f"/v1/endpoints/{newest['id']}/secret"
        wait_for(lambda: apis[1]("GET", path).status == 200, "the second server knows the endpoint")
        assert secret_of(apis[1], newest["id"]) == newest["secret"]
        assert versions(first.place) == {2}
        # The earlier release cannot start again, and its values are rejected.
        assert first.place.query("SELECT value FROM marks WHERE name = 'schema.needs_release'") == [(1002,)]
        encrypt_as_0_1_1(first.place)
        path = f"/v1/endpoints/{made['id']}/secret"
        wait_for(
            lambda: {api("GET", path).status for api in apis} == {500}, "values of the earlier release are rejected"
        )


def as_0_1_1_secret(place: Place, endpoint: str) -> str:
    """Read the secret like a server of release 0.1.1."""
    endpoint_id = ids.parse_prefixed(ids.ENDPOINT, endpoint)
    assert endpoint_id is not None
    secret = place.run(lambda c: c.scalar(sa.select(endpoints.c.secret).where(endpoints.c.id == endpoint_id)))
    return as_0_1_1_decrypts(secret, endpoint_id)
