"""The backup command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.errors import CliError, ExitCode


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    command(app, "backup", examples=("uplift-server backup /var/lib/uplift/backups/uplift.db",))(backup)


def backup(
    session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="Where nothing is yet.")]
) -> None:
    """Copy the SQLite database as it is now, also while the server runs. The sealing key is not in it.

    A copy restored elsewhere delivers what was pending when it was made.
    """
    from uplift_server.store import schema_version  # noqa: PLC0415 - takes long to load
    from uplift_server.store.sqlite.copying import copy  # noqa: PLC0415

    config = session.config()
    if config.on_postgresql:
        remedy = "use PostgreSQL's own: pg_dump --format=custom, or continuous archiving; see docs/deployment.md"
        raise CliError("this copies SQLite files, and the database is PostgreSQL", remedy, ExitCode.USAGE)
    path = config.database_path
    revision = schema_version.current(path)
    if revision is None:
        raise CliError(
            f"there is no database at {path.absolute()}",
            "name it with UPLIFT_DATABASE_URL or --config",
            ExitCode.NOT_FOUND,
        )
    directory = file.absolute().parent
    if not directory.is_dir():
        raise CliError(f"there is no directory {directory}", "make it first", ExitCode.USAGE)
    if not os.access(directory, os.W_OK | os.X_OK):
        remedy = "let this user write there, or name another place for the copy"
        raise CliError(f"this user cannot write in {directory}", remedy, ExitCode.USAGE)
    try:
        copied = copy(path, file)
    except FileExistsError as error:
        raise CliError(f"{file} is there already", "name a file that is not", ExitCode.USAGE) from error
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
    session.output.note(f"Its secrets open with the sealing key ({where}) alone: have a copy of that, too, elsewhere.")
