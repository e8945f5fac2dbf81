"""Commands that show the settings (`uplift-server config`) and set up the database (`uplift-server migrate`)."""

import asyncio
import time
from typing import Annotated, Final

import typer

from uplift_server.cli.reach import server_runs
from uplift_server.cli.session import Session, command
from uplift_server.config import (
    Config,
    ConfigError,
    ConfigProblem,
    check_database,
    describe,
    publish_key,
    secret_key,
)
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.tables import Column

_COLUMNS: Final = [Column("name", "NAME"), Column("value", "VALUE", folds=True), Column("source", "SOURCE", folds=True)]


def register(app: typer.Typer) -> None:
    """Add the `config` and `migrate` commands to the program."""
    command(app, "config", examples=("uplift-server config", "uplift-server config --config production.toml"))(config)
    command(
        app,
        "migrate",
        examples=(
            "uplift-server migrate",
            "uplift-server migrate --from sqlite:////var/lib/uplift/uplift.db --to postgresql://uplift@db/uplift",
        ),
    )(migrate)


def config(session: Session) -> None:
    """Show every setting with its value and source.

    The output masks secrets. The command reads the environment and the configuration file. A running server keeps the
    settings that it started with.
    """
    session.output.rows(
        (
            {"name": each.setting.name, "value": each.value, "source": each.source, "help": each.setting.help}
            for each in describe(session.config())
        ),
        _COLUMNS,
        empty="",
    )
    if session.output.results.is_terminal:
        session.output.note("A running server keeps the settings that it started with.")


def migrate(
    session: Session,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="SQLite file to copy from, such as sqlite:////path/uplift.db."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="Empty PostgreSQL database to copy to. Default: UPLIFT_DATABASE_URL."),
    ] = None,
) -> None:
    """Create or upgrade the database schema, or copy SQLite to PostgreSQL.

    Without options, the command creates the schema or upgrades it to this version. Before an upgrade, the command backs
    up a SQLite file. You can repeat the command safely. On SQLite, `serve` does the same when it starts. On PostgreSQL,
    `serve` creates the tables in an empty database but does not upgrade older tables: run this command before you start
    a new version.

    With --from, the command copies all data from a SQLite file to an empty PostgreSQL database and compares checksums.
    Stop all servers first. If the copy is interrupted, run the same command again to resume it. If UPLIFT_SECRET_KEY is
    set, it must be the key that encrypts the secrets in the SQLite file. Use PGPASSWORD or ~/.pgpass instead of a
    password in the URL, because other users on this machine can see arguments. Connect to the database directly, not
    through a pooler.
    """
    if source is not None:
        from uplift_server.cli import moving  # noqa: PLC0415 - slow to load

        moving.run(session, source, target)
        return
    if target is not None:
        raise CliError("--to requires --from", "add --from sqlite:///…", ExitCode.USAGE)
    from uplift_server.store import schema_version  # noqa: PLC0415 - slow to load
    from uplift_server.store.sqlite.connection import FileLock  # noqa: PLC0415

    found = session.config()
    if found.on_postgresql:
        _migrate_postgresql(session, found)
        return
    if server_runs(found):
        raise CliError(
            "a server is using the database",
            "stop the server, then repeat this command; a restart of the server also upgrades the database",
            ExitCode.TRY_LATER,
        )
    path = found.database_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"names a directory that your user cannot create ({error.strerror})"
        remedy = "create the directory, or set UPLIFT_DATABASE_URL to a file in another directory"
        raise ConfigError(ConfigProblem("UPLIFT_DATABASE_URL", reason, remedy)) from error
    lock = FileLock(path)
    lock.acquire()
    try:
        check_database(found)
        secret_key(found)
        before = schema_version.current(path)
        copy = schema_version.upgrade(path, now_ms=time.time_ns() // 1_000_000)
        publish_key(found)
    finally:
        lock.release()
    session.output.fields(
        {
            "database": str(path),
            "before": before or "none",
            "now": schema_version.HEAD,
            "copy": "none needed" if copy is None else str(copy),
        }
    )


def _migrate_postgresql(session: Session, config: Config) -> None:
    from uplift_server.store.postgres.schema_version import current, upgrade  # noqa: PLC0415 - slow to load
    from uplift_server.store.schema_version import HEAD  # noqa: PLC0415

    async def upgraded() -> str | None:
        before = await current(config.database_url)
        await upgrade(config.database_url)
        return before

    before = asyncio.run(upgraded())
    session.output.fields({"database": config.shown_database, "before": before or "none", "now": HEAD, "copy": "none"})
    if before not in (None, HEAD):
        session.output.note("This command does not back up PostgreSQL. To revert the upgrade, restore your own backup.")
