"""The key that encrypts endpoint secrets. The operator sets it, or the server generates and stores it."""

import base64
import contextlib
import os
import re
from pathlib import Path
from typing import Final

from uplift_server.config.parsers import ENCRYPTION_KEY_BYTES, MAKE_KEY, InvalidValue
from uplift_server.config.parsers import secret_key as parse
from uplift_server.config.problems import ConfigError, ConfigProblem
from uplift_server.config.settings import Config

NAME: Final = "UPLIFT_SECRET_KEY"


def secret_key(config: Config) -> str:
    """Return the encryption key as base64.

    On PostgreSQL, the operator must set the key. On SQLite, the server generates and stores a key at its first start,
    unless the operator sets the key. At this start, call the function before the database is created. A new key's file
    has a temporary name until `publish_key` is called.

    Raises ConfigError if the key is not available, or if a rotation is not finished. If a database exists without its
    key, the key was lost. In this case, the function does not generate a key, because a new key would hide the loss.
    """
    if config.secret_key is not None:
        return config.secret_key
    if config.on_postgresql:
        reason = "is not set, but all servers on a PostgreSQL database need the same key"
        raise ConfigError(ConfigProblem(NAME, reason, f"use the key of the other servers, or {MAKE_KEY}"))
    path, database, next_path = config.secret_key_path, config.database_path, config.next_secret_key_path
    try:
        if next_path.exists():
            reason = f"has an unfinished rotation: {next_path} exists"
            raise ConfigError(ConfigProblem(NAME, reason, "finish the rotation with `uplift-server secret-key rotate`"))
        if path.exists():
            return read_key(path)
        draft = _draft(path)
        if not draft.exists():
            if not is_missing(database):
                reason = f"is not set and {path} is missing, but {database} exists"
                raise ConfigError(ConfigProblem(NAME, reason, f"restore the key to {path}, or set {NAME}"))
            store_key(draft, new_key())
    except OSError as error:
        raise storage_error(f"be stored in {path}", error) from error
    return read_key(draft)


def publish_key(config: Config) -> None:
    """Give a new key its final name after the database is created.

    Until then, the key has a temporary name. If it had its final name, a failed start would leave a key without a
    database, and `check_database` would report that the database was lost. If a key with the final name already exists,
    keep that key and delete the new one, because the operator may have restored the key after a failed start.

    Raises ConfigError.
    """
    path = config.secret_key_path
    draft = _draft(path)
    try:
        if config.secret_key is None and draft.exists():
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
            make_durable(path.parent)
    except OSError as error:
        raise storage_error(f"be stored in {path}", error) from error


def check_database(config: Config, *, new: bool = False) -> None:
    """Raise ConfigError if the SQLite database was lost: its key exists without it, or a server saved its content.

    If `new` is true, the server must create a new database. In this case, ignore a lost database without saved content,
    and raise ConfigError if a database exists.
    """
    path = config.database_path
    try:
        missing = is_missing(path)
        has_key = config.secret_key is None and config.secret_key_path.exists()
    except OSError as error:
        raise storage_error(f"be read from {config.secret_key_path}", error) from error
    check_rescued(path)
    if new and not missing:
        reason = f"requires an empty database, but {path} exists"
        raise ConfigError(ConfigProblem("--new-database", reason, "omit the option, or move the file"))
    if missing and has_key and not new:
        reason = f"points to {path}, which is missing or empty, but its key {config.secret_key_path} exists"
        remedy = "restore the database from a backup, or create a new one: uplift-server serve --new-database"
        raise ConfigError(ConfigProblem("UPLIFT_DATABASE_URL", reason, remedy))


def check_rescued(database: Path) -> None:
    """Raise ConfigError if a server saved the content of a lost SQLite file in the directory of `database`.

    Otherwise, the server would accept events into the file that replaced the lost one, or into a new one.
    """
    name = re.compile(re.escape(database.name) + r"\.rescued-\d{8}T\d{6}Z")
    try:
        saved = sorted(each for each in database.parent.iterdir() if name.fullmatch(each.name))
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(f"be read from {database.parent}", error) from error
    if saved:
        names = ", ".join(map(str, saved))
        reason = f"points to {database}, but a server saved the content of a lost database: {names}"
        remedy = (
            f"if {database} is the correct database, move the saved file to another directory. Otherwise, move"
            f" {database} away, and the newest saved file to {database}"
        )
        raise ConfigError(ConfigProblem("UPLIFT_DATABASE_URL", reason, remedy))


def is_missing(database: Path) -> bool:
    """Return whether a SQLite file is missing or empty. Raises OSError."""
    return not database.exists() or database.stat().st_size == 0


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.draft")


def new_key() -> str:
    """Return a random key as base64."""
    return base64.b64encode(os.urandom(ENCRYPTION_KEY_BYTES)).decode("ascii")


def read_key(path: Path) -> str:
    """Return the key in a file, as base64. Raises ConfigError."""
    try:
        text = path.read_text(encoding="ascii").strip()
        parse(text)
    except InvalidValue as wrong:
        problem = ConfigProblem(f"{NAME} (in {path})", wrong.reason, "restore the correct key from a backup")
        raise ConfigError(problem) from wrong
    except UnicodeDecodeError as error:
        problem = ConfigProblem(f"{NAME} (in {path})", "is not ASCII text", "restore the correct key from a backup")
        raise ConfigError(problem) from error
    except OSError as error:
        reason = f"cannot be read from {path}: {error.strerror}"
        raise ConfigError(
            ConfigProblem(NAME, reason, f"give the server's user read access to the file, or set {NAME}")
        ) from error
    return text


def store_key(path: Path, key: str) -> None:
    """Write a key atomically and durably.

    If another process has already written a key, keep that key. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, f"{key}\n".encode("ascii"))
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    make_durable(path.parent)


def make_durable(directory: Path) -> None:
    """Sync a directory to disk, so that its changes survive a crash."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(what: str, error: OSError) -> ConfigError:
    """Return a ConfigError for a failed operation on a key file. `what` follows the word "cannot" in the message."""
    reason = f"cannot {what}: {error.strerror}"
    return ConfigError(
        ConfigProblem(NAME, reason, f"give the server's user write access to the directory, or set {NAME}")
    )
