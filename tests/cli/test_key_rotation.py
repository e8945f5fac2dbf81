"""Rotation of the encryption key. After a kill at any step, the same command finishes the rotation."""

import base64
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from uplift_server.cli.main import app
from uplift_server.config import Config, ConfigError, load, publish_key, secret_key
from uplift_server.store import inspection, schema_version
from uplift_server.store.encryption import Cipher, WrongSecretKey, parse_key
from uplift_server.store.sqlite.connection import FileLock, connect

SECRETS = ["whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from uplift_server.cli.main import app
from uplift_server.store import reencryption
from uplift_server.store.sqlite import SqliteDatabase

base = Path(sys.argv[1])
count = 0

def step(where, at):
    global count
    count += 1
    if count == at:
        print(where, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

def before(function, name, at):
    def call(*arguments, **named):
        if name != "open" or ".key" in str(arguments[0]):
            step(f"before {name}", at)
        return function(*arguments, **named)
    return call

def rotate(at):
    for name in ("open", "write", "fsync", "link", "unlink", "replace", "rename"):
        setattr(os, name, before(getattr(os, name), name, at))
    reencrypt, write = reencryption.reencrypt, SqliteDatabase.write
    def resealed(*arguments):
        found = reencrypt(*arguments)
        step("before the commit", at)
        return found
    async def written(*arguments):
        found = await write(*arguments)
        step("after the commit", at)
        return found
    reencryption.reencrypt, SqliteDatabase.write = resealed, written
    app(["secret-key", "rotate", "--json"])

at = 1
while True:
    folder = base / f"killed-{at}"
    shutil.copytree(base / "whole", folder)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        rotate(at)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    at += 1
"""
"""Rotates the key in copies of a folder. Each rotation is killed one step later than the last, until one finishes."""


def create_database(config: Config, *, encrypted_with: str | None = None) -> None:
    """Create a database with its encryption key and endpoints, one with an old secret and headers."""
    config.database_path.parent.mkdir(parents=True)
    cipher = Cipher(parse_key(encrypted_with or secret_key(config)))
    schema_version.upgrade(config.database_path, now_ms=0)
    publish_key(config)
    with closing(connect(config.database_path, read_only=False)) as raw:
        raw.execute("INSERT INTO accounts VALUES (1, x'01', 'a', '[]', 1, 1, NULL, NULL, NULL)")
        for number, secret in enumerate(SECRETS):
            owner = bytes([number]) * 16
            raw.execute(
                "INSERT INTO endpoints (id, account_seq, url, description, event_types, secret, secret_created_at,"
                " state, created_at, updated_at) VALUES (?, 1, 'https://example.com/', '', '[]', ?, 0, 0, 0, 0)",
                (owner, cipher.encrypt(secret, owner, "secret")),
            )
        raw.execute(
            "UPDATE endpoints SET previous_secret = ?, previous_expires_at = 9, headers = ? WHERE id = ?",
            (
                cipher.encrypt("the one before", owner, "previous_secret"),
                cipher.encrypt("{}", owner, "headers"),
                owner,
            ),
        )


def decrypted_values(config: Config, key: str) -> list[str]:
    """Return all encrypted values, decrypted with a key."""
    cipher = Cipher(parse_key(key))
    return sorted(
        cipher.decrypt(each.value, each.owner_id, each.column)
        for each in inspection.encrypted_values(config.database_path)
    )


ALL = sorted([*SECRETS, "the one before", "{}"])


def rotate(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, ["secret-key", "rotate", *arguments], env=environ)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration of a database in a new directory."""
    monkeypatch.chdir(tmp_path)
    return load({})


def test_all_values_are_encrypted_with_a_new_key_and_the_old_key_stays(config: Config) -> None:
    create_database(config)
    old = secret_key(config)
    result = rotate("--json")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = json.loads(result.stdout)
    new = secret_key(config)
    assert new != old
    assert decrypted_values(config, new) == ALL
    kept = Path(shown.pop("old_key"))
    assert shown == {"sealed_values": 5, "sealed_anew": 5, "key": str(config.secret_key_path)}
    assert kept.read_text().strip() == old
    assert kept.name.startswith("secret.key.before-")
    for path in (kept, config.secret_key_path):
        assert path.stat().st_mode & 0o777 == 0o600
    names = {path.name for path in config.database_path.parent.iterdir()}
    assert {"secret.key", kept.name} == {name for name in names if ".key" in name}
    assert old not in result.stdout
    assert new not in result.stdout
    with pytest.raises(WrongSecretKey, match="after a key rotation"):
        decrypted_values(config, old)
    assert "Back up the new key" in rotate().stderr


def test_a_given_key_replaces_the_old_key(config: Config, tmp_path: Path) -> None:
    create_database(config)
    own = tmp_path / "own.key"
    own.write_text(base64.b64encode(b"k" * 32).decode() + "\n")
    assert rotate("--new-key-file", str(own)).exit_code == 0
    assert secret_key(config) == own.read_text().strip()
    assert decrypted_values(config, secret_key(config)) == ALL
    again = rotate("--new-key-file", str(own), "--json")
    assert json.loads(again.stdout)["sealed_anew"] == 0
    assert json.loads(again.stdout)["old_key"] is None


def test_a_key_from_the_environment_is_replaced_from_a_file(config: Config, tmp_path: Path) -> None:
    old, new = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))
    create_database(config, encrypted_with=old)
    without = rotate(UPLIFT_SECRET_KEY=old)
    assert without.exit_code == 2
    assert "--new-key-file FILE" in without.stderr
    file = tmp_path / "new.key"
    file.write_text(new)
    result = rotate("--new-key-file", str(file), UPLIFT_SECRET_KEY=old)
    assert result.exit_code == 0
    assert result.stderr == (
        f"Before you start the server again, set UPLIFT_SECRET_KEY (environment) to the contents of {file}.\n"
    )
    assert new not in result.stdout + result.stderr
    assert decrypted_values(config, new) == ALL
    # Repeat the rotation with the old and with the new setting.
    for given in (old, new):
        again = rotate("--new-key-file", str(file), "--json", UPLIFT_SECRET_KEY=given)
        assert json.loads(again.stdout)["sealed_anew"] == 0
    assert not list(config.database_path.parent.glob("secret.key*"))
    # Without the new setting, the error says how to fix it.
    started = CliRunner().invoke(app, ["endpoints", "--json"], env={"UPLIFT_SECRET_KEY": old})
    assert started.exit_code == 2
    error = json.loads(started.stderr)["error"]
    assert "UPLIFT_SECRET_KEY" in error["cause"]
    assert "after a key rotation" in error["remedy"]
    started = CliRunner().invoke(app, ["endpoints", "--json"], env={"UPLIFT_SECRET_KEY": new})
    assert len(started.stdout.splitlines()) == len(SECRETS)


def test_a_rotation_killed_at_any_step_is_finished_by_the_next(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    create_database(config)
    old = secret_key(config)
    program = [sys.executable, "-c", KILLED, str(tmp_path)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    *steps, done = ran.stdout.splitlines()
    assert json.loads(done)["sealed_anew"] == 5
    # The kills include steps before the new key is complete, before the commit, and around the swap of the key files.
    assert {"before the commit", "after the commit", "before link", "before fsync"} <= set(steps)
    assert len(steps) >= 10
    next_key = config.next_secret_key_path
    unfinished = [number for number in range(1, len(steps) + 1) if (tmp_path / f"killed-{number}" / next_key).exists()]
    assert len(unfinished) >= 5
    for number in range(1, len(steps) + 1):
        monkeypatch.chdir(tmp_path / f"killed-{number}")
        if number in unfinished:
            with pytest.raises(ConfigError, match="finish the rotation with `uplift-server secret-key rotate`"):
                secret_key(config)
        else:
            assert decrypted_values(config, secret_key(config)) == ALL
        if number == unfinished[-1]:
            # Run a process, because the server writes its output from threads until the process ends.
            serve = [Path(sys.executable).with_name("uplift-server"), "serve"]
            environ = os.environ | {"UPLIFT_PORT": "0"}
            started = subprocess.run(serve, env=environ, capture_output=True, text=True, timeout=100, check=False)
            assert started.returncode == 2
            assert started.stderr.endswith("How to fix: finish the rotation with `uplift-server secret-key rotate`\n")
        result = rotate("--json")
        assert result.exit_code == 0, (steps[number - 1], result.stderr)
        new = secret_key(config)
        assert decrypted_values(config, new) == ALL
        assert Path(json.loads(result.stdout)["old_key"]).exists()
        kept = {path.read_text().strip() for path in config.database_path.parent.glob("secret.key.before-*")}
        assert old in kept
        assert new not in kept


def test_a_given_key_waits_for_an_unfinished_rotation(config: Config, tmp_path: Path) -> None:
    create_database(config)
    first, second = (base64.b64encode(letter * 32).decode() for letter in (b"1", b"2"))
    config.next_secret_key_path.write_text(first)
    own = tmp_path / "own.key"
    own.write_text(second)
    rejected = rotate("--new-key-file", str(own))
    assert rejected.exit_code == 2
    assert "without --new-key-file" in rejected.stderr
    assert rotate().exit_code == 0
    assert secret_key(config) == first
    assert rotate("--new-key-file", str(own)).exit_code == 0
    assert secret_key(config) == second
    assert decrypted_values(config, second) == ALL


def test_a_value_that_neither_key_decrypts_stops_the_rotation(config: Config) -> None:
    create_database(config)
    old = secret_key(config)
    owner = b"x" * 16
    with closing(connect(config.database_path, read_only=False)) as raw:
        raw.execute(
            "INSERT INTO endpoints (id, account_seq, url, description, event_types, secret, secret_created_at,"
            " state, created_at, updated_at) VALUES (?, 1, '', '', '[]', ?, 0, 0, 0, 0)",
            (owner, Cipher(b"?" * 32).encrypt("lost", owner, "secret")),
        )
    result = rotate()
    assert result.exit_code == 2
    assert "cannot decrypt a stored value" in result.stderr
    with closing(connect(config.database_path, read_only=False)) as raw:
        raw.execute("DELETE FROM endpoints WHERE id = ?", (owner,))
    assert decrypted_values(config, old) == ALL
    assert rotate().exit_code == 0


def test_a_rotation_needs_exclusive_access(config: Config) -> None:
    create_database(config)
    before = config.secret_key_path.read_text()
    lock = FileLock(config.database_path)
    lock.acquire()
    try:
        result = rotate()
    finally:
        lock.release()
    assert result.exit_code == 75
    assert (
        result.stderr == "Error: a server is using the database\n"
        "How to fix: stop the server, repeat this command, then start the server\n"
    )
    assert config.secret_key_path.read_text() == before
    assert not config.next_secret_key_path.exists()


def test_a_rotation_needs_a_database_and_valid_keys(config: Config, tmp_path: Path) -> None:
    assert rotate().exit_code == 4
    assert not config.database_path.parent.exists()
    create_database(config)
    for content in (b"", b"c2hvcnQ=", b"\xff\xfe"):
        (tmp_path / "wrong.key").write_bytes(content)
        assert rotate("--new-key-file", str(tmp_path / "wrong.key")).exit_code == 2
    missing = rotate("--new-key-file", str(tmp_path / "missing.key"))
    assert (missing.exit_code, "cannot be read" in missing.stderr) == (2, True)
    shutil.move(config.secret_key_path, tmp_path / "elsewhere")
    lost = rotate()
    assert (lost.exit_code, "cannot be read" in lost.stderr) == (2, True)
    assert not config.next_secret_key_path.exists()
