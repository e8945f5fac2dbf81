"""Commands for the configuration and the database schema."""

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

_COLUMNS: Final = [Column("name", "NAME"), Column("value", "VALUE", folds=True), Column("source", "FROM", folds=True)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
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
    """Show every setting with its value and where that comes from. Secrets are masked."""
    session.output.rows(
        (
            {"name": each.setting.name, "value": each.value, "source": each.source, "help": each.setting.help}
            for each in describe(session.config())
        ),
        _COLUMNS,
        empty="",
    )
    if session.output.results.is_terminal:
        session.output.note(
            "They are what this command finds here; a server that runs keeps those it was started with."
        )


def migrate(
    session: Session,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Move everything from this SQLite file instead.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="URL", help="Into this empty PostgreSQL database, in place of the configured one."
        ),
    ] = None,
) -> None:
    """Create the database, or bring it to this version's schema; an older SQLite file is copied aside first.

    `serve` does the same when it starts. Repeating it is safe. With --from, everything is moved from SQLite to
    PostgreSQL, while no server runs; cut off at any moment, the same command goes on.
    """
    if source is not None:
        from uplift_server.cli import moving  # noqa: PLC0415 - takes long to load

        moving.run(session, source, target)
        return
    if target is not None:
        raise CliError("--to says where to, but not from where", "give --from sqlite:///… as well", ExitCode.USAGE)
    from uplift_server.store import schema_version  # noqa: PLC0415 - takes long to load
    from uplift_server.store.sqlite.connection import FileLock  # noqa: PLC0415

    found = session.config()
    if found.on_postgresql:
        _migrate_postgresql(session, found)
        return
    if server_runs(found):
        raise CliError(
            "a server uses the database",
            "stop it; it brings the database up to date when it starts",
            ExitCode.TRY_LATER,
        )
    path = found.database_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"names a directory that cannot be made ({error.strerror})"
        raise ConfigError(ConfigProblem("UPLIFT_DATABASE_URL", reason, "choose another, or make it by hand")) from error
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
    from uplift_server.store.postgres.schema_version import current, upgrade  # noqa: PLC0415 - takes long to load
    from uplift_server.store.schema_version import HEAD  # noqa: PLC0415

    async def upgraded() -> str | None:
        before = await current(config.database_url)
        await upgrade(config.database_url)
        return before

    before = asyncio.run(upgraded())
    session.output.fields({"database": config.shown_database, "before": before or "none", "now": HEAD, "copy": "none"})
    if before not in (None, HEAD):
        session.output.note("Nothing was copied aside: a backup of PostgreSQL has what was there before.")
