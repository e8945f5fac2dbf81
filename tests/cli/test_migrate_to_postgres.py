"""`uplift-server migrate --from … --to …`: its output, and its checks before the move."""

import asyncio
import base64
import errno
import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.store.filled_file import TABLES, create_file, rows_in_postgres, rows_in_sqlite
from typer.testing import CliRunner, Result

from uplift_server.cli.main import app
from uplift_server.store.encryption import Cipher, parse_key
from uplift_server.store.postgres import schema_version as postgres_version
from uplift_server.store.sqlite.connection import FileLock, connect

KEY = base64.b64encode(b"k" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with rows in every table, and its encryption key file."""
    monkeypatch.chdir(tmp_path)
    path = create_file(tmp_path / "uplift.db")
    cipher = Cipher(parse_key(KEY))
    with closing(connect(path, read_only=False)) as raw:
        raw.execute("UPDATE endpoints SET headers = NULL, previous_secret = NULL, deleted_at = NULL")
        for seq, owner in raw.execute("SELECT seq, id FROM endpoints").fetchall():
            raw.execute(
                "UPDATE endpoints SET secret = ? WHERE seq = ?", (cipher.encrypt("whsec", owner, "secret"), seq)
            )
        for seq, owner in raw.execute("SELECT seq, person_id FROM second_factors").fetchall():
            raw.execute(
                "UPDATE second_factors SET totp_secret = ? WHERE seq = ?",
                (cipher.encrypt("A" * 32, owner, "totp_secret"), seq),
            )
    (tmp_path / "secret.key").write_text(KEY)
    (tmp_path / "operator.key").write_text("op_whatever")
    return path


@pytest.fixture
def target(postgres_server: PostgresServer) -> str:
    """An empty PostgreSQL database."""
    return postgres_server.new_database(empty=True)


def migrate(source: Path, target: str | None, *options: str, **environ: str) -> Result:
    """Run the command."""
    to = [] if target is None else ["--to", target]
    return CliRunner().invoke(app, ["migrate", "--from", f"sqlite:///{source}", *to, *options], env=environ)


def test_a_move_reports_rows_and_next_steps(source: Path, target: str) -> None:
    result = migrate(source, target)
    assert result.exit_code == 0, result.output
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["TABLE", *(each.name for each in TABLES)]
    text = " ".join(result.stderr.split())
    assert f"UPLIFT_SECRET_KEY: the contents of {source.with_name('secret.key')}" in text
    assert f"UPLIFT_OPERATOR_KEY (for commands): the contents of {source.with_name('operator.key')}" in text
    assert KEY not in result.output
    assert "op_whatever" not in result.output
    assert "NUL characters" in text
    assert asyncio.run(rows_in_postgres(target)) == rows_in_sqlite(source)


def test_a_target_error_names_its_option_or_setting(source: Path, target: str) -> None:
    unknown = target.replace("postgres@", "nobody@")
    named = migrate(source, unknown)
    configured = migrate(source, None, UPLIFT_DATABASE_URL=unknown)
    for result, place in ((named, "--to"), (configured, "UPLIFT_DATABASE_URL")):
        assert result.exit_code == 2
        assert f"correct the user in {place}\n" in result.stderr


def test_a_second_move_is_rejected(source: Path, target: str) -> None:
    assert migrate(source, target, "--json").exit_code == 0
    again = migrate(source, target, "--json")
    assert again.exit_code == 1
    assert "is not empty" in json.loads(again.stderr)["error"]["cause"]


@pytest.mark.parametrize(
    ("environ", "code", "text"),
    [
        ({"UPLIFT_SECRET_KEY": OTHER}, 2, "cannot decrypt 46 of 46 encrypted secrets and headers"),
        ({"UPLIFT_SECRET_KEY": "short"}, 2, "is not base64"),
    ],
)
def test_with_a_wrong_key_nothing_is_moved(
    source: Path, target: str, environ: dict[str, str], code: int, text: str
) -> None:
    result = migrate(source, target, **environ)
    assert result.exit_code == code
    assert text in result.stderr
    assert asyncio.run(postgres_version.current(target)) is None


def test_without_any_key_nothing_is_moved(source: Path, target: str) -> None:
    source.with_name("secret.key").unlink()
    result = migrate(source, target)
    assert result.exit_code == 2
    assert "UPLIFT_SECRET_KEY is not set, and" in result.stderr
    assert asyncio.run(postgres_version.current(target)) is None


def test_nothing_is_moved_during_a_key_rotation(source: Path, target: str) -> None:
    source.with_name("secret.key.new").write_text(OTHER)
    result = migrate(source, target)
    assert result.exit_code == 2
    assert "uplift-server secret-key rotate" in result.stderr


def test_an_unreadable_file_is_not_reported_as_missing(
    source: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original_stat = Path.stat

    def deny_access(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name == source.name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original_stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", deny_access)
    result = migrate(source, target)
    monkeypatch.undo()
    assert result.exit_code == 2
    assert "your user cannot read" in result.stderr


def test_nothing_is_moved_while_a_server_uses_the_file(source: Path, target: str) -> None:
    lock = FileLock(source)
    lock.acquire()
    result = migrate(source, target)
    lock.release()
    assert result.exit_code == 75
    assert "another server" in result.stderr
    assert "stop that server, then repeat this command" in " ".join(result.stderr.split())
    assert asyncio.run(postgres_version.current(target)) is None


def test_a_link_to_a_file_in_use_is_rejected(source: Path, target: str) -> None:
    link = source.with_name("link.db")
    link.symlink_to(source)
    lock = FileLock(source)
    lock.acquire()
    result = migrate(link, target)
    lock.release()
    assert result.exit_code == 75, result.output
    assert asyncio.run(postgres_version.current(target)) is None


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["--from", "postgresql://here/a", "--to", "postgresql://there/b"],
            2,
            "--from must be the URL of a SQLite file",
        ),
        (["--from", "sqlite:///nowhere.db", "--to", "postgresql://there/b"], 4, "there is no database at"),
        (["--from", "sqlite:///uplift.db", "--to", "sqlite:///other.db"], 2, "the target must be a PostgreSQL URL"),
        (["--from", "sqlite:///uplift.db"], 2, "the target must be a PostgreSQL URL"),
        (["--from", "sqlite:///uplift.db", "--to", "postgresql://a/b?pooler=transaction"], 2, "parameter pooler"),
        (["--from", "sqlite:///uplift.db", "--to", "postgresql://[x/b"], 2, "invalid IPv6 address"),
        (["--to", "postgresql://there/b"], 2, "--to requires --from"),
    ],
)
def test_other_moves_are_wrong_usage(source: Path, arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(app, ["migrate", *arguments])
    assert result.exit_code == code
    assert text in result.stderr


def test_an_unavailable_target_exits_with_try_later(source: Path) -> None:
    result = migrate(source, "postgresql://nobody@127.0.0.1:1/uplift")
    assert result.exit_code == 75
    assert "127.0.0.1" in result.stderr
