"""The doctor reports every problem with its fix, and no false problems."""

import json
import os
import shutil
import socket
import sys
import time
from collections import namedtuple
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.fake_api import fake_api
from tests.oidc_provider import identity_provider
from typer.testing import CliRunner

from uplift_server.cli import checks
from uplift_server.cli.main import app
from uplift_server.config import load, publish_key, secret_key
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service import diagnostics
from uplift_server.store import inspection, schema_version
from uplift_server.store.encryption import Cipher, parse_key
from uplift_server.store.errors import Unavailable
from uplift_server.store.sqlite.connection import FileLock, connect


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPLIFT_PORT", "0")
    monkeypatch.setattr(diagnostics, "RESOLVED_NAME", "localhost")


def examine(**environ: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run the doctor. Return the exit code, and the result and the text of each check."""
    result = CliRunner().invoke(app, ["doctor", "--json"], env=environ)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for row in rows:
        assert bool(row["remedy"]) == (row["result"] != "ok"), row
    return result.exit_code, {row["check"]: (row["result"], row["text"]) for row in rows}


def database(*, encrypted_with: str | None = None) -> Path:
    """Create a database with an endpoint, and its encryption key file. Return the path of the database."""
    config = load({})
    config.database_path.parent.mkdir(exist_ok=True)
    key = secret_key(config)
    schema_version.upgrade(config.database_path, now_ms=0)
    publish_key(config)
    encrypted = Cipher(parse_key(encrypted_with or key)).encrypt("a secret", b"e" * 16, "secret")
    raw = connect(config.database_path, read_only=False)
    raw.execute(
        "INSERT INTO endpoints (id, account_seq, url, description, event_types, secret, secret_created_at, state,"
        " created_at, updated_at) VALUES (?, 1, '', '', '[]', ?, 0, 0, 0, 0)",
        (b"e" * 16, encrypted),
    )
    raw.close()
    return config.database_path


def test_a_new_machine_passes_and_is_not_changed(tmp_path: Path) -> None:
    code, found = examine()
    assert code == 0
    assert set(found) == {"python", "clock", "settings", "disk", "port", "database", "trust", "dns", "mail"}
    assert list(tmp_path.iterdir()) == []


def test_a_healthy_database_passes() -> None:
    database()
    code, found = examine()
    assert code == 0
    assert {found[name][0] for name in ("database", "schema", "secret key")} == {"ok"}
    assert found["secret key"][1] == "decrypts all 1 encrypted secrets and headers"


def test_old_and_missing_backups_are_found() -> None:
    path = database()
    assert "backup" not in examine()[1]
    backups = path.with_name("backups")
    backups.mkdir()
    (backups / "uplift.db.new.partial").write_bytes(b"copy")
    (backups / "uplift.db.20261126T021500Z").touch()
    (backups / "notes.txt").write_text("notes")
    assert examine()[1]["backup"] == ("warn", f"{backups.absolute()} contains no copy of the database")
    copy = backups / "uplift.db.20261126T031500Z"
    copy.write_bytes(b"copy")
    assert examine()[1]["backup"][0] == "ok"
    at = int(time.time()) - diagnostics.BACKUP_AGE_S_WARN - 1
    os.utime(copy, (at, at))
    result, text = examine()[1]["backup"]
    assert (result, format_timestamp(int(at * 1000)) in text) == ("warn", True)


def test_a_missing_operations_account_is_found() -> None:
    with closing(connect(database(), read_only=False)) as raw:
        raw.execute(
            "INSERT INTO accounts (id, name, contact_emails, created_at, updated_at, uid)"
            " VALUES (?, 'Operations', '[]', 0, 0, 'operations')",
            (b"o" * 16,),
        )
    for account in ("operations", "acc_" + (b"o" * 16).hex()):
        assert examine(UPLIFT_OPERATIONS_ACCOUNT=account)[1]["operations account"][0] == "ok"
    for account in ("operation", "acc_" + "00" * 16):
        code, found = examine(UPLIFT_OPERATIONS_ACCOUNT=account)
        assert code == 1
        result, text = found["operations account"]
        assert result == "fail"
        assert account in text


def test_a_wrong_encryption_key_is_found() -> None:
    database(encrypted_with="d3JvbmcgICAgICAgICAgICAgICAgICAgICAgICAgICE=")
    assert examine()[1]["secret key"] == ("fail", "cannot decrypt 1 of 1 encrypted secrets and headers")


def store_held_delivery(path: Path, endpoint_seq: int, event_seq: int, created_at: int) -> None:
    """Store an event whose delivery to an endpoint is held."""
    with closing(connect(path, read_only=False)) as raw:
        raw.execute(
            "INSERT INTO events (seq, id, account_seq, type_seq, created_at, body) VALUES (?, ?, 1, 1, ?, x'')",
            (event_seq, event_seq.to_bytes(16, "big"), created_at),
        )
        raw.execute(
            "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, lease_owner, fence, attempts_made,"
            " scheduled_attempts, trigger) VALUES (?, ?, 1, 3, 0, 0, 0, 0, 0)",
            (event_seq, endpoint_seq),
        )


def test_deliveries_held_longer_than_the_retention_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check also runs while a server has locked the database."""
    path = database()
    assert examine()[1]["held"] == ("ok", "no deliveries are held")
    now = time.time_ns() // 1_000_000
    store_held_delivery(path, 7, 12, now)
    text = f"1 held delivery of 1 endpoint; the oldest event is from {format_timestamp(now)}"
    assert examine()[1]["held"] == ("ok", text)
    old = now - 31 * 86_400_000
    store_held_delivery(path, 7, 11, now)
    store_held_delivery(path, 9, 10, old)
    text = f"3 held deliveries of 2 endpoints; the oldest event is from {format_timestamp(old)}"
    warned = ("warn", f"{text}, longer ago than UPLIFT_RETENTION; retention does not delete held deliveries")
    assert examine()[1]["held"] == warned
    assert examine(UPLIFT_RETENTION="0")[1]["held"] == ("ok", text)
    lock = FileLock(path)
    lock.acquire()
    assert examine()[1]["held"] == warned
    lock.release()
    monkeypatch.setattr(diagnostics, "HELD_COUNTED_MAX", 2)
    assert examine()[1]["held"][1].startswith("at least 2 held deliveries of 2 endpoints")


def test_every_encrypted_value_is_checked() -> None:
    """The check includes all endpoints, old secrets and headers."""
    path = database()
    key = parse_key(secret_key(load({})))
    with closing(connect(path, read_only=False)) as raw:
        raw.execute(
            "UPDATE endpoints SET previous_secret = ?",
            (Cipher(b"x" * 32).encrypt("old", b"e" * 16, "previous_secret"),),
        )
        raw.execute("UPDATE endpoints SET headers = ?", (Cipher(key).encrypt("{}", b"another endpoint", "headers"),))
        raw.execute(
            "INSERT INTO endpoints (id, account_seq, url, description, event_types, secret, secret_created_at, state,"
            " created_at, updated_at) VALUES (?, 1, '', '', '[]', ?, 0, 0, 0, 0)",
            (b"n" * 16, Cipher(key).encrypt("a newer one", b"n" * 16, "secret")),
        )
        for person, owner in ((b"p" * 16, b"p" * 16), (b"q" * 16, b"p" * 16)):
            raw.execute(
                "INSERT INTO second_factors (person_id, totp_secret, last_step, created_at) VALUES (?, ?, 0, 0)",
                (person, Cipher(key).encrypt("a key", owner, "totp_secret")),
            )
    assert examine()[1]["secret key"] == ("fail", "cannot decrypt 3 of 6 encrypted secrets and headers")


def test_an_interrupted_key_rotation_is_found() -> None:
    path = database()
    path.with_name("secret.key.new").write_text("whatever")
    code, found = examine()
    assert code == 1
    assert found["secret key"][0] == "fail"
    assert "unfinished rotation" in found["secret key"][1]


def test_a_missing_and_a_readable_key_are_found() -> None:
    path = database()
    path.with_name("secret.key").chmod(0o644)
    assert examine()[1]["secret key"][0] == "warn"
    path.with_name("secret.key").unlink()
    code, found = examine()
    assert code == 1
    assert found["secret key"] == ("fail", "the database exists, but its key is missing")
    assert not path.with_name("secret.key").exists()


def test_a_damaged_database_is_found() -> None:
    path = database()
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)
    assert examine()[1]["database"][0] == "fail"
    path.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    assert examine()[1]["database"][0] == "fail"


def test_a_database_of_another_program_is_found() -> None:
    path = Path("uplift-data/uplift.db")
    path.parent.mkdir()
    raw = connect(path, read_only=False, create=True)
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    assert examine()[1]["database"][0] == "fail"


def test_an_empty_database_differs_from_an_older_schema() -> None:
    path = Path("uplift-data/uplift.db")
    path.parent.mkdir()
    path.touch()
    assert examine()[1]["schema"][0] == "ok"
    database()
    for revision, result in (("0000", "warn"), ("9999", "fail")):
        raw = connect(path, read_only=False)
        raw.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
        raw.close()
        code, found = examine()
        assert (code, found["schema"][0]) == (int(result == "fail"), result)


def test_the_key_of_an_older_schema_is_not_checked_but_must_exist() -> None:
    path = database()
    raw = connect(path, read_only=False)
    raw.execute("UPDATE alembic_version SET version_num = '0000'")
    raw.close()
    assert examine()[1]["secret key"][0] == "warn"
    load({}).secret_key_path.unlink()
    code, found = examine()
    assert (code, found["secret key"]) == (1, ("fail", "the database exists, but its key is missing"))


def test_traces_without_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "traces" not in examine()[1]
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    result, text = examine(**environ)[1]["traces"]
    assert (result, "OTEL_EXPORTER_OTLP_ENDPOINT" in text) == ("ok", True)
    monkeypatch.setitem(sys.modules, "uplift_server.observe.tracing", None)
    code, found = examine(**environ)
    assert code == 1
    assert found["traces"][0] == "fail"
    assert found["traces"][1].startswith("OTEL_EXPORTER_OTLP_ENDPOINT needs packages that are not installed")


def test_a_check_that_takes_too_long_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    path = database()
    monkeypatch.setattr(inspection, "_STEPS_BETWEEN_CHECKS", 1)
    assert inspection.find_damage(path, seconds=-1) is None
    monkeypatch.setattr(checks, "INTEGRITY_SECONDS", -1)
    assert examine()[1]["database"][0] == "warn"


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    for read in (
        lambda path: inspection.find_damage(path, seconds=1),
        lambda path: list(inspection.encrypted_values(path)),
    ):
        with pytest.raises(Unavailable):
            read(tmp_path / "missing.db")


def test_invalid_settings_end_the_checks() -> None:
    code, found = examine(UPLIFT_LEASE="1s")
    assert code == 1
    assert found["settings"][0] == "fail"
    assert "database" not in found


def test_a_port_in_use_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, found = examine(UPLIFT_PORT=str(taken.getsockname()[1]))
    assert code == 1
    assert found["port"][0] == "fail"


def test_a_server_that_does_not_respond_is_found() -> None:
    lock = FileLock(database())
    lock.acquire()
    try:
        code, found = examine(UPLIFT_PORT="1")
    finally:
        lock.release()
    assert code == 1
    assert found["server"][0] == "fail"
    assert "database" not in found


def test_a_lock_error_is_not_a_damaged_database() -> None:
    """The doctor must not suggest a restore: a backup would replace a good file and lose newer data."""
    lock = FileLock(database())
    lock.path.symlink_to("elsewhere")
    code, found = examine()
    assert (code, found["database"][0]) == (1, "fail")
    assert found["database"][1] == f"{lock.path} is a symbolic link"


@pytest.mark.parametrize(("status", "result"), [(200, "ok"), (503, "fail")])
def test_the_readiness_of_a_running_server_is_checked(status: int, result: str) -> None:
    lock = FileLock(database())
    lock.acquire()
    try:
        with fake_api() as api:
            api.responses = {"GET /readyz": (status, b"ready\n", {})}
            _, found = examine(UPLIFT_PORT=api.url.rpartition(":")[2])
    finally:
        lock.release()
    assert found["server"][0] == result


def test_invalid_egress_settings_are_found(tmp_path: Path) -> None:
    certificates = tmp_path / "none.pem"
    certificates.write_text("no certificates")
    _, found = examine(UPLIFT_EGRESS_ADDRESS="192.0.2.1", UPLIFT_EGRESS_CA_FILE=str(certificates))
    assert (found["egress"][0], found["source ips"][0], found["trust"][0]) == ("fail", "warn", "fail")
    _, found = examine(UPLIFT_EGRESS_ADDRESS="127.0.0.1", UPLIFT_SOURCE_IPS="127.0.0.1")
    assert found["egress"] == ("ok", "outbound connections use 127.0.0.1")
    assert "source ips" not in found
    _, found = examine(UPLIFT_EGRESS_ADDRESS="127.0.0.1,2001:db8::1", UPLIFT_SOURCE_IPS="127.0.0.1")
    assert found["egress"][0] == "fail"
    assert found["source ips"][0] == "warn"
    assert found["source ips"][1].startswith(
        "outbound connections use 2001:db8::1, which UPLIFT_SOURCE_IPS does not list"
    )


def test_an_upcoming_source_ip_is_not_yet_published() -> None:
    _, found = examine(UPLIFT_EGRESS_ADDRESS="127.0.0.1", UPLIFT_SOURCE_IPS="127.0.0.1@2999-01-01T00:00:00Z")
    assert found["source ips"][0] == "warn"
    _, found = examine(UPLIFT_EGRESS_ADDRESS="127.0.0.1", UPLIFT_SOURCE_IPS="127.0.0.1@2020-01-01T00:00:00Z")
    assert "source ips" not in found


@pytest.mark.parametrize(("address", "translated"), [("127.0.0.1", True), ("8.8.8.8", False)])
def test_address_translation_hides_the_egress_ip(address: str, translated: bool) -> None:
    _, found = examine(UPLIFT_EGRESS_ADDRESS=address)
    assert ("cannot detect address translation" in found["source ips"][1]) is translated


def test_the_egress_proxy_is_checked() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        code, found = examine(UPLIFT_EGRESS_PROXY=f"http://user:hush@127.0.0.1:{port}")
        assert (code, found["egress proxy"]) == (0, ("ok", f"127.0.0.1 port {port} accepts connections"))
    code, found = examine(UPLIFT_EGRESS_PROXY=f"http://user:hush@127.0.0.1:{port}")
    assert (code, found["egress proxy"][0]) == (1, "fail")
    assert "hush" not in found["egress proxy"][1]


def test_a_full_disk_a_wrong_clock_and_missing_dns_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1024))
    monkeypatch.setattr(diagnostics, "CLOCK_EARLIEST_S", 1e12)
    monkeypatch.setattr(diagnostics, "RESOLVED_NAME", "name.invalid")
    _, found = examine()
    assert (found["disk"][0], found["clock"][0], found["dns"][0]) == ("fail", "fail", "warn")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1024**3))
    assert examine()[1]["disk"][0] == "warn"


def test_a_terminal_shows_lines_with_fixes() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"UPLIFT_EGRESS_ADDRESS": "192.0.2.1"})
    assert result.exit_code == 1
    assert "fail egress" in result.stdout
    assert "-> add the address to an interface" in result.stdout
    assert "1 of 12 checks failed" in result.stderr


def test_a_postgresql_database_is_checked(postgres_url: str) -> None:
    """On PostgreSQL, the checks also run while servers are running, because commands share the database with them."""
    key = "c2VhbHMgd2hhdCBpcyBzdG9yZWQsIHRlc3RzIG9ubHk="
    code, found = examine(UPLIFT_DATABASE_URL=postgres_url, UPLIFT_SECRET_KEY=key)
    assert code == 0
    assert "disk" not in found
    assert {name: found[name][0] for name in ("database", "database clock", "connections", "vacuum", "schema")} == {
        "database": "ok", "database clock": "ok", "connections": "ok", "vacuum": "ok", "schema": "ok",
    }  # fmt: skip
    assert found["secret key"] == ("ok", "no encrypted values yet")
    assert found["held"] == ("ok", "no deliveries are held")


def test_an_unavailable_postgresql_database_is_reported_once(postgres_url: str) -> None:
    code, found = examine(UPLIFT_DATABASE_URL="postgresql://uplift:hidden@127.0.0.1:1/uplift")
    assert code == 1
    assert found["database"][0] == "fail"
    assert "hidden" not in found["database"][1]
    assert not {"schema", "secret key", "held", "connections"} & set(found)


def test_a_placeholder_in_a_url_is_not_replaced_with_a_generated_password() -> None:
    environ = {
        "UPLIFT_SMTP_URL": "smtp://uplift:password@smtp.rapids.test", "UPLIFT_MAIL_FROM": "hooks@rapids.test",
        "UPLIFT_PUBLIC_URL": "https://hooks.rapids.test",
    }  # fmt: skip
    rows = map(json.loads, CliRunner().invoke(app, ["doctor", "--json"], env=environ).stdout.splitlines())
    (found,) = [row["remedy"] for row in rows if row["check"] == "example value"]
    assert found == "replace the placeholder with the real value"


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("UPLIFT_PUBLIC_URL", "https://hooks.example.com", "warn"),
        ("UPLIFT_OPERATOR_KEY", "op_change-me-change-me-change-me", "fail"),
        ("UPLIFT_METRICS_TOKEN", "your-metrics-token", "fail"),
        ("UPLIFT_SECRET_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "warn"),
    ],
)
def test_values_of_examples_are_found(name: str, value: str, result: str) -> None:
    code, found = examine(**{name: value})
    assert (code, found["example value"][0]) == (int(result == "fail"), result)
    assert found["example value"][1].startswith(f"{name} (environment) ")
    assert result == "warn" or value not in found["example value"][1]


def test_a_server_with_another_database_is_found() -> None:
    """The check finds it even if no server, or a different one, has locked the configured file."""
    database()
    with fake_api() as api:
        api.responses = {"GET /readyz": (200, b"ready\n", {"uplift-database": "another"})}
        port = api.url.rpartition(":")[2]
        code, found = examine(UPLIFT_PORT=port)
        assert (code, found["server"][0]) == (1, "fail")
        assert (
            found["server"][1]
            == f"the server at http://127.0.0.1:{port} uses a different database than this configuration"
        )
        assert found["database"][0] == "ok"
        lock = FileLock(load({}).database_path)
        lock.acquire()
        with closing(connect(load({}).database_path, read_only=False)) as raw:
            raw.execute("INSERT INTO marks VALUES ('database.id', 7)")
        code, found = examine(UPLIFT_PORT=port)
        lock.release()
        assert (code, found["server"][0]) == (1, "fail")
        assert "uses a different database than this configuration" in found["server"][1]


def test_the_identity_provider_is_checked() -> None:
    with identity_provider() as provider:
        environ = {"UPLIFT_OIDC_ISSUER": provider.url, "UPLIFT_OIDC_CLIENT_ID": "a", "UPLIFT_OIDC_CLIENT_SECRET": "b"}
        code, found = examine(**environ, UPLIFT_PUBLIC_URL="https://hooks.uplift.example")
        assert (code, found["single sign-on"]) == (
            0,
            ("warn", f"{provider.url} does not use https, so others can read and change the tokens"),
        )
        code, found = examine(**environ)
        assert (code, found["single sign-on"][0]) == (0, "ok")
        assert found["single sign-on"][1].startswith(
            f"{provider.url} responds, with 1 usable key; the redirect URI is http://"
        )
        code, found = examine(**{**environ, "UPLIFT_OIDC_ISSUER": f"{provider.url}/"})
        assert (code, found["single sign-on"][0]) == (1, "fail")
        assert f"the provider's issuer is '{provider.url}'" in found["single sign-on"][1]
        provider.faults["/keys"] = (200, b'{"keys": [{"kty": "RSA", "use": "enc"}]}')
        code, found = examine(**environ)
        assert (code, found["single sign-on"]) == (
            1,
            ("fail", f"{provider.url} responds, but publishes no usable signing key, so single sign-on fails"),
        )
        provider.faults["/keys"] = (404, b"")
        code, found = examine(**environ)
        assert (code, found["single sign-on"]) == (
            1,
            ("fail", "keys (jwks_uri): the provider responded with 404"),
        )
    code, found = examine(**environ)
    assert (code, found["single sign-on"][0]) == (1, "fail")
