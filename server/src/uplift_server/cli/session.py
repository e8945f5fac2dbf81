"""What every command shares: its options, its configuration, its output, and how it fails."""

import errno
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from uplift_server.cli.errors import CliError, ExitCode
from uplift_server.cli.help import Command
from uplift_server.cli.output import Output, OutputLost
from uplift_server.config import Config, ConfigError, find_file, load
from uplift_server.store.errors import Conflict, Misaddressed, Unavailable


@dataclass
class Session:
    """One run of a command."""

    output: Output
    config_file: Path | None
    debug: bool

    def config(self) -> Config:
        """The configuration of this environment. Raises ConfigError."""
        file = self.config_file or find_file(Path.cwd())
        return load(os.environ, file, terminal=sys.stderr.isatty())

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn whatever goes wrong into two lines and an exit code; `--debug` shows the traceback instead."""
        try:
            yield
            self.output.flush()
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            self.output.note("Stopped.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except OutputLost as lost:
            # Keep the interpreter from flushing into it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if lost.seen_enough:
                raise typer.Exit(ExitCode.OK) from None
            remedy = "look at the state before you repeat the command: it may have done its work"
            self.output.failure(f"the output cannot be written: {lost}", remedy, ExitCode.FAILED)
            raise typer.Exit(ExitCode.FAILED) from None
        except Exception as error:
            if self.debug:
                traceback.print_exc()
            failures = _failures(error)
            for cause, remedy, code in failures:
                self.output.failure(cause, remedy, code)
            raise typer.Exit(failures[-1][2]) from None


def _failures(error: Exception) -> list[tuple[str, str, ExitCode]]:
    if isinstance(error, CliError):
        return [(error.cause, error.remedy, error.code)]
    if isinstance(error, ConfigError):
        return [(f"{each.name} {each.reason}", each.remedy, ExitCode.USAGE) for each in error.problems]
    cause, _, remedy = str(error).partition("; ")
    if isinstance(error, Unavailable):
        lasting = _lasting(error)
        if lasting is not None:
            return [lasting]
        return [(cause, remedy or "try again in a moment; `uplift-server doctor` tells more", ExitCode.TRY_LATER)]
    # These take long to load, and errors are rare.
    from uplift_server.store.schema_version import UnknownSchema  # noqa: PLC0415
    from uplift_server.store.sealing import WrongSecretKey  # noqa: PLC0415
    from uplift_server.store.sqlite.file_watch import DatabaseLost  # noqa: PLC0415

    if isinstance(error, UnknownSchema | DatabaseLost | Conflict | WrongSecretKey):
        code = ExitCode.USAGE if isinstance(error, WrongSecretKey) else ExitCode.FAILED
        return [(cause, remedy or "see `uplift-server doctor`", code)]
    return [
        (
            f"this should not happen: {type(error).__name__}: {error}",
            "run the command again with --debug, and report what it shows",
            ExitCode.FAILED,
        )
    ]


def _lasting(error: Unavailable) -> tuple[str, str, ExitCode] | None:
    """The failure, if it is one that trying again does not mend: whoever repeats what is unavailable would never end.

    What was wrong is told by the error of the driver or the system that it was raised from.
    """
    if isinstance(error, Misaddressed):
        reason, _, remedy = str(error).partition("; ")
        return reason, remedy, ExitCode.USAGE
    cause: object = error
    while cause is not None:
        code = str(getattr(cause, "sqlite_errorname", ""))
        if code.startswith(_DAMAGED):
            return (
                f"the database file is damaged, or is none: {cause}",
                "restore it from a copy; `uplift-server doctor` tells more",
                ExitCode.FAILED,
            )
        if code.startswith(_NOT_OURS_TO_WRITE) or _is_of_the_file(cause):
            return (
                f"the place of the database cannot be written: {cause}",
                "let this user write the directory and the files in it, or name another place with UPLIFT_DATABASE_URL",
                ExitCode.USAGE,
            )
        cause = getattr(cause, "orig", None) or getattr(cause, "__cause__", None)
    return None


def _is_of_the_file(cause: object) -> bool:
    # A socket that is not there, as while PostgreSQL is stopped, has the same number and no name.
    return isinstance(cause, OSError) and cause.errno in _NO_ACCESS and cause.filename is not None


_DAMAGED: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_NOT_OURS_TO_WRITE: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_NO_ACCESS: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
)

_SHARED: Final[dict[str, Any]] = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")],
    "config_file": Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings file, in place of ./uplift.toml.")
    ],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}


def command(app: typer.Typer, name: str, *, examples: tuple[str, ...]) -> Callable[[Callable[..., None]], None]:
    """Register a function as a command: it gets a Session first, then its own arguments and options.

    The options that every command has are added here, and so is what happens when it fails.
    """

    def register(body: Callable[..., None]) -> None:
        _, *own = inspect.signature(body, eval_str=True).parameters.values()
        defaults = {"as_json": False, "config_file": None, "debug": False}
        shared = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=defaults[each], annotation=_SHARED[each])
            for each in _SHARED
        ]

        def run(**values: Any) -> None:
            as_json, config_file, debug = (values.pop(each) for each in _SHARED)
            session = Session(Output(as_json=as_json), config_file, debug)
            with session.reporting():
                body(session, **values)

        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__ = body.__name__
        run.__doc__ = body.__doc__
        epilog = "\n\n".join(("Examples:", *examples))
        app.command(name, epilog=epilog, no_args_is_help=False, cls=Command)(run)

    return register
