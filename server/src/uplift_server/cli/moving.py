"""Migration from SQLite to PostgreSQL: `uplift-server migrate --from … --to …`."""

import asyncio
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Final

from uplift_server.cli.session import Session
from uplift_server.config import Config, ConfigError, ConfigProblem, check_rescued
from uplift_server.config.parsers import POSTGRESQL, SQLITE, InvalidValue, direct_database_url
from uplift_server.config.secret_key import NAME, read_key
from uplift_server.store.errors import InUse, Misaddressed
from uplift_server.store.sqlite.connection import FileLock
from uplift_server.store.transfer import CannotTransfer, Progress, Transferred, transfer
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.tables import Column

PROGRESS_EVERY_SECONDS: Final = 2.0
_COLUMNS: Final = [Column("table", "TABLE"), Column("rows", "ROWS"), Column("checksum", "CHECKSUM")]


def run(session: Session, source: str, target: str | None) -> None:
    """Copy all data from SQLite to PostgreSQL, and print the progress.

    The default target is the configured database.
    """
    config = session.config()
    path, url = _source(source), _target(target or config.database_url)
    lock = FileLock(path)
    try:
        lock.acquire()
    except InUse as error:
        remedy = "stop that server, then repeat this command; after the migration, start servers only on the target"
        raise CliError(str(error).partition("; ")[0], remedy, ExitCode.TRY_LATER) from error
    try:
        check_rescued(path)
        _check_key(config, path)
        moved = asyncio.run(transfer(path, url, _ProgressReporter(session.output)))
    except CannotTransfer as error:
        cause, _, remedy = str(error).partition("; ")
        raise CliError(cause, remedy) from error
    except Misaddressed as error:
        place = "UPLIFT_DATABASE_URL" if target is None else "--to"
        cause, _, remedy = str(error).partition("; ")
        raise CliError(cause, remedy.replace("UPLIFT_DATABASE_URL", place), ExitCode.USAGE) from error
    finally:
        lock.release()
    _show_moved(session.output, config, path, moved)


def _source(text: str) -> Path:
    if not text.startswith(SQLITE):
        remedy = "use a URL such as sqlite:////var/lib/uplift/uplift.db"
        raise CliError("--from must be the URL of a SQLite file", remedy, ExitCode.USAGE)
    path = Path(text.removeprefix(SQLITE))
    try:
        is_there = stat.S_ISREG(path.stat().st_mode)
    except PermissionError as error:
        remedy = "run this command as the server's user"
        raise CliError(f"your user cannot read {path.absolute()}", remedy, ExitCode.USAGE) from error
    except OSError:
        is_there = False
    if not is_there:
        raise CliError(f"there is no database at {path.absolute()}", "correct --from", ExitCode.NOT_FOUND)
    return path


def _target(text: str) -> str:
    if not text.startswith(POSTGRESQL):
        remedy = "set --to or UPLIFT_DATABASE_URL to postgresql://user:password@host:5432/database"
        raise CliError("the target must be a PostgreSQL URL", remedy, ExitCode.USAGE)
    try:
        return direct_database_url(text)
    except InvalidValue as wrong:
        raise CliError(f"the target {wrong.reason}", wrong.remedy, ExitCode.USAGE) from wrong


def _check_key(config: Config, path: Path) -> None:
    """Check that the encryption key decrypts all values in the SQLite database. Raises ConfigError."""
    from uplift_server.store import inspection  # noqa: PLC0415 - slow to load
    from uplift_server.store.encryption import Cipher, WrongSecretKey, parse_key  # noqa: PLC0415

    kept = path.with_name("secret.key")
    if path.with_name("secret.key.new").exists() and config.secret_key is None:
        reason = "has an unfinished rotation"
        raise ConfigError(ConfigProblem(NAME, reason, "complete the rotation with `uplift-server secret-key rotate`"))
    if config.secret_key is None and not kept.exists():
        reason = f"is not set, and {kept} is missing"
        raise ConfigError(
            ConfigProblem(NAME, reason, "set UPLIFT_SECRET_KEY to the key that encrypts the secrets in the SQLite file")
        )
    key = parse_key(config.secret_key or read_key(kept))
    cipher = Cipher(key, accepts_unbound=inspection.accepts_unbound(path))
    opens: Counter[bool] = Counter()
    for owner_id, column, value in inspection.encrypted_values(path):
        try:
            cipher.decrypt(value, owner_id, column)
        except WrongSecretKey:
            opens[False] += 1
        else:
            opens[True] += 1
    if opens[False]:
        where = f"(in {kept}) " if config.secret_key is None else ""
        reason = f"{where}cannot decrypt {opens[False]} of {opens.total()} encrypted secrets and headers in {path}"
        raise ConfigError(
            ConfigProblem(NAME, reason, "set UPLIFT_SECRET_KEY to the key that encrypts the secrets in the SQLite file")
        )


class _ProgressReporter:
    """Prints the progress of the migration every PROGRESS_EVERY_SECONDS seconds."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._at < PROGRESS_EVERY_SECONDS:
            return
        self._at = now
        if self._output.as_json:
            self._output.json(
                {"kind": "progress", "step": progress.step, "table": progress.table, "rows": progress.rows,
                 "of": progress.of}
            )  # fmt: skip
            return
        self._output.note(f"{progress.step} {progress.table}: {progress.rows:,} of {progress.of:,} rows")


def _show_moved(output: Output, config: Config, path: Path, moved: list[Transferred]) -> None:
    output.rows(
        (
            {"kind": "moved", "table": each.table, "rows": each.rows, "checksum": each.checksum,
             "characters_replaced": each.characters_replaced}
            for each in moved
        ),
        _COLUMNS,
        empty="",
    )  # fmt: skip
    replaced = sum(each.characters_replaced for each in moved)
    if replaced:
        output.note(f"Replaced {replaced:,} NUL characters, which PostgreSQL cannot store, with U+FFFD.")
    output.note("All data is in PostgreSQL, and the checksums match. Set these variables for every server:")
    output.note("  UPLIFT_DATABASE_URL: the URL of the PostgreSQL database")
    if config.secret_key is None:
        output.note(f"  UPLIFT_SECRET_KEY: the contents of {path.with_name('secret.key')}")
    else:
        output.note("  UPLIFT_SECRET_KEY: the current value")
    if path.with_name("operator.key").exists() and config.operator_key is None:
        output.note(f"  UPLIFT_OPERATOR_KEY (for commands): the contents of {path.with_name('operator.key')}")
    output.note(f"Do not start a server on {path} again: it would send the pending deliveries a second time.")
