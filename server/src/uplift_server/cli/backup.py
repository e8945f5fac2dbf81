"""The command `uplift-server backup`, which copies a SQLite database to a file."""

import os
import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

_FREE_BYTES_MIN: Final = 64 * 1024 * 1024
"""The minimum free space after a backup. The server may use the same disk."""


def register(app: typer.Typer) -> None:
    """Add the `backup` command to the program."""
    command(app, "backup", examples=("uplift-server backup /var/lib/uplift/backups/uplift.db",))(backup)


def backup(
    session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="New file for the backup.")]
) -> None:
    """Back up the SQLite database to a file.

    You can run this command while the server is running. The backup is a consistent snapshot. The backup does not
    include the encryption key: back up the key separately.

    A server that starts with the backup sends the deliveries that were pending when the backup was made.
    """
    from uplift_server.store import schema_version  # noqa: PLC0415 - slow to load
    from uplift_server.store.sqlite.copying import copy  # noqa: PLC0415

    config = session.config()
    if config.on_postgresql:
        remedy = "use pg_dump --format=custom or continuous archiving; see /docs/backup on your server"
        raise CliError("this command backs up only SQLite, but the database is PostgreSQL", remedy, ExitCode.USAGE)
    path = config.database_path
    revision = schema_version.current(path)
    if revision is None:
        raise CliError(
            f"there is no database at {path.absolute()}",
            "set the location of the database with UPLIFT_DATABASE_URL or --config",
            ExitCode.NOT_FOUND,
        )
    directory = file.absolute().parent
    if not directory.is_dir():
        raise CliError(f"the directory {directory} does not exist", "create the directory first", ExitCode.USAGE)
    if not os.access(directory, os.W_OK | os.X_OK):
        remedy = "give your user write access, or use another directory"
        raise CliError(f"your user cannot write to {directory}", remedy, ExitCode.USAGE)
    _require_space(path, directory)
    try:
        copied = copy(path, file)
    except FileExistsError as error:
        raise CliError(f"{file} already exists", "use a file name that does not exist yet", ExitCode.USAGE) from error
    session.output.fields(
        {
            "database": str(path),
            "copy": str(file),
            "bytes": copied.bytes,
            "events": copied.events,
            "schema": revision,
        }
    )
    where = "in UPLIFT_SECRET_KEY" if config.secret_key is not None else str(config.secret_key_path.absolute())
    session.output.note(
        f"Back up the encryption key ({where}) separately. The backup's secrets are unreadable without it."
    )


def _require_space(database: Path, directory: Path) -> None:
    """Raise CliError if the copy of a database would fill the disk of a directory."""
    log = database.with_name(f"{database.name}-wal")
    needed = database.stat().st_size + (log.stat().st_size if log.exists() else 0)
    free = shutil.disk_usage(directory).free
    if free < needed + _FREE_BYTES_MIN:
        cause = f"the backup takes up to {needed:,} bytes, but {directory} has only {free:,} bytes of free space"
        raise CliError(cause, "delete old backups, or use a directory on a larger disk", ExitCode.FAILED)
