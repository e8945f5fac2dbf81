"""The key that seals endpoint secrets: given by the operator, or made once and kept beside the database."""

import base64
import contextlib
import os
from pathlib import Path

from uplift_server.config.kinds import WrongValue
from uplift_server.config.kinds import secret_key as parse
from uplift_server.config.problems import ConfigError, ConfigProblem
from uplift_server.config.settings import Config

_NAME = "UPLIFT_SECRET_KEY"


def secret_key(config: Config) -> str:
    """The sealing key as base64, made and stored at the first start unless it is given.

    To be called before the database is made: one that exists without its key was sealed with another, and a new key
    would only hide that. Raises ConfigError.
    """
    if config.secret_key is not None:
        return config.secret_key
    path, database = config.secret_key_path, config.database_path
    try:
        if not path.exists():
            if database.exists() and database.stat().st_size > 0:
                remedy = f"put the key back into {path}, or set {_NAME}"
                raise ConfigError(
                    ConfigProblem(_NAME, f"is not set and {path} is missing, but {database} exists", remedy)
                )
            _make(path)
        text = path.read_text(encoding="ascii").strip()
        parse(text)
    except WrongValue as wrong:
        problem = ConfigProblem(f"{_NAME} (in {path})", wrong.reason, "put the right key back from a copy")
        raise ConfigError(problem) from wrong
    except (OSError, UnicodeDecodeError) as error:
        reason = f"cannot be kept in {path}: {getattr(error, 'strerror', None) or 'not text'}"
        raise ConfigError(ConfigProblem(_NAME, reason, f"make the directory writable, or set {_NAME}")) from error
    return text


def _make(path: Path) -> None:
    """Write a new key, whole and on the disk, or leave the one that another process wrote meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, base64.b64encode(os.urandom(32)) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
