"""The command that rotates the encryption key while no server is running."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from uplift_server.cli.reach import database_exists, database_is_used, no_database
from uplift_server.cli.session import Session, command
from uplift_server.config import Config, check_rescued
from uplift_server.config.key_rotation import begin
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.program import add, group

if TYPE_CHECKING:
    from uplift_server.store.reencryption import Reencrypted

key_app: Final = group("Rotate the key that encrypts endpoint secrets at rest.")


def register(app: typer.Typer) -> None:
    """Add the `secret-key` commands to the program."""
    add(app, "secret-key", key_app)


@command(
    key_app,
    "rotate",
    examples=("uplift-server secret-key rotate", "uplift-server secret-key rotate --new-key-file /run/keys/new.key"),
)
def rotate(
    session: Session,
    new_key_file: Annotated[
        Path | None,
        typer.Option(
            "--new-key-file",
            metavar="FILE",
            help="File that contains the new key: 32 bytes in base64. Required if UPLIFT_SECRET_KEY is set.",
        ),
    ] = None,
) -> None:
    """Replace the encryption key and encrypt all secrets with the new key.

    Stop all servers first. If the command is interrupted, run it again: servers do not start until the rotation is
    complete. The rotation invalidates pending invitations and sign-in links, but sessions stay valid.
    """
    config = session.config()
    if database_is_used(config):
        raise CliError(
            "a server is using the database",
            "stop the server, repeat this command, then start the server",
            ExitCode.TRY_LATER,
        )
    if not database_exists(config):
        if config.on_postgresql:
            raise no_database(config)
        raise CliError(
            f"there is no database at {config.shown_database}",
            "set the location of the database with UPLIFT_DATABASE_URL or --config; for a new database, the server"
            " creates the key when it first starts",
            ExitCode.NOT_FOUND,
        )
    resealed, kept = asyncio.run(_rotate(config, new_key_file))
    ours = config.secret_key is None
    session.output.fields(
        {
            "sealed_values": resealed.values,
            "sealed_anew": resealed.changed,
            "key": str(config.secret_key_path if ours else new_key_file),
            "old_key": None if kept is None else str(kept),
        }
    )
    if not ours:
        source = config.given["UPLIFT_SECRET_KEY"][0]
        session.output.note(
            f"Before you start the server again, set UPLIFT_SECRET_KEY ({source}) to the contents of {new_key_file}."
        )
    if kept is not None:
        session.output.note("Back up the new key. Keep the old key as long as you keep older backups that need it.")


async def _rotate(config: Config, new_key_file: Path | None) -> "tuple[Reencrypted, Path | None]":
    """Encrypt all values with the new key.

    Return the total number of values, the number of re-encrypted values, and the path of the file that keeps the old
    key. The path is None if the rotation replaces no key file, for example if UPLIFT_SECRET_KEY contains the key.
    """
    from uplift_server.store.encryption import Cipher, parse_key  # noqa: PLC0415
    from uplift_server.store.encryption_upgrade import accepts_unbound  # noqa: PLC0415
    from uplift_server.store.postgres import PostgresDatabase  # noqa: PLC0415 - slow to load
    from uplift_server.store.postgres.schema_version import upgrade  # noqa: PLC0415
    from uplift_server.store.reencryption import reencrypt  # noqa: PLC0415
    from uplift_server.store.schema_version import upgrade as upgrade_file  # noqa: PLC0415
    from uplift_server.store.sqlite import SqliteDatabase  # noqa: PLC0415

    now_ms = time.time_ns() // 1_000_000
    database: PostgresDatabase | SqliteDatabase
    if config.on_postgresql:
        database = PostgresDatabase(config.database_url)
    else:
        database = SqliteDatabase(config.database_path)
        database.lock()
    try:
        if not config.on_postgresql:
            check_rescued(config.database_path)
        rotation = begin(config, new_key_file)
        # First upgrade the database, which may be from an earlier release.
        if config.on_postgresql:
            await upgrade(config.database_url)
        else:
            upgrade_file(config.database_path, now_ms=now_ms)
        await database.open()
        unbound = await database.read(accepts_unbound)
        old, new = (Cipher(parse_key(key), accepts_unbound=unbound) for key in (rotation.old, rotation.new))
        resealed = await database.write(lambda connection: reencrypt(connection, old, new))
        return resealed, rotation.finish(now_ms)
    finally:
        await database.close()
