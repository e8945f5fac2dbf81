"""One run of an `uplift-server` command, with its configuration and its errors."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from uplift_server.config import Config, ConfigError, find_file, load
from uplift_server.store.errors import Conflict, Misaddressed, Unavailable
from uplift_webhooks.cli.kit import session as kit
from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.errors import CliError, ExitCode


@dataclass
class Session(kit.Session):
    """The configuration, output and errors of one `uplift-server` command."""

    config_file: Path | None = None

    def config(self) -> Config:
        """Load the configuration. Raises ConfigError."""
        file = self.config_file or find_file(Path.cwd())
        return load(os.environ, file, terminal=sys.stderr.isatty())

    def reach(self) -> AbstractContextManager[Calls]:
        """Return a context manager that opens an API client.

        The client calls the running server, or a temporary one. Raises CliError or ConfigError.
        """
        # Import here, so that an import of this module does not load uvloop and structlog.
        from uplift_server.cli.reach import reach  # noqa: PLC0415

        return reach(self.config())

    def failures(self, error: Exception) -> list[CliError]:
        """Convert an exception, such as a configuration or database error, to the errors that the command reports."""
        if isinstance(error, ConfigError):
            return [CliError(f"{each.name} {each.reason}", each.remedy, ExitCode.USAGE) for each in error.problems]
        cause, _, remedy = str(error).partition("; ")
        if isinstance(error, Unavailable):
            remedy = remedy or "try again in a moment; for details, run `uplift-server doctor`"
            return [_permanent_failure(error) or CliError(cause, remedy, ExitCode.TRY_LATER)]
        # Import only after an error, because the store is slow to load.
        from uplift_server.store.encryption import WrongSecretKey  # noqa: PLC0415
        from uplift_server.store.schema_version import UnknownSchema  # noqa: PLC0415
        from uplift_server.store.sqlite.file_watch import DatabaseLost  # noqa: PLC0415

        if isinstance(error, UnknownSchema | DatabaseLost | Conflict | WrongSecretKey):
            code = ExitCode.USAGE if isinstance(error, WrongSecretKey) else ExitCode.FAILED
            return [CliError(cause, remedy or "for details, run `uplift-server doctor`", code)]
        return super().failures(error)


def _permanent_failure(error: Unavailable) -> CliError | None:
    """Return the error to show for a database failure that a retry cannot fix, or None if a retry can succeed."""
    if isinstance(error, Misaddressed):
        reason, _, remedy = str(error).partition("; ")
        return CliError(reason, remedy, ExitCode.USAGE)
    cause: object = error
    while cause is not None:
        code = str(getattr(cause, "sqlite_errorname", ""))
        if code.startswith(_DAMAGED):
            return CliError(
                f"the database file is damaged or is not a database: {cause}",
                "restore the database from a backup; for details, run `uplift-server doctor`",
            )
        if code.startswith(_NOT_OURS_TO_WRITE) or _is_of_the_file(cause):
            return CliError(
                f"the directory of the database is not writable: {cause}",
                "give your user write access to the directory and its files, or change UPLIFT_DATABASE_URL",
                ExitCode.USAGE,
            )
        cause = getattr(cause, "orig", None) or getattr(cause, "__cause__", None)
    return None


def _is_of_the_file(cause: object) -> bool:
    # If PostgreSQL is stopped, the error for its missing socket has the same `errno`, but no file name.
    return isinstance(cause, OSError) and cause.errno in _NO_ACCESS and cause.filename is not None


_DAMAGED: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_NOT_OURS_TO_WRITE: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_NO_ACCESS: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
)
_OPTIONS: Final[kit.Options] = {
    "config_file": (
        Annotated[
            Path | None,
            typer.Option(
                "--config", metavar="FILE", help="Settings file. Default: ./uplift.toml or /etc/uplift/uplift.toml."
            ),
        ],
        None,
    ),
}


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...], hidden: bool = False
) -> Callable[[Callable[..., None]], None]:
    """Register a command. If `hidden` is true, the help omits the command."""
    return kit.command(app, name, Session, _OPTIONS, examples=examples, hidden=hidden)
