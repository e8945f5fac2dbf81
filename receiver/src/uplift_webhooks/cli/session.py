"""What every command shares: its options, its server, its output, and how it fails."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.calls import Calls
from uplift_webhooks.cli.errors import CliError, ExitCode
from uplift_webhooks.cli.help import Command
from uplift_webhooks.cli.output import Output, OutputLost
from uplift_webhooks.cli.profiles import Asked, find_access
from uplift_webhooks.errors import WebhookVerificationError


@dataclass
class Session:
    """One run of a command."""

    output: Output
    asked: Asked = field(default_factory=Asked)
    debug: bool = False
    _opened: ExitStack = field(default_factory=ExitStack)

    def calls(self, *, keyless: bool = False) -> Calls:
        """The server that is meant; `keyless`: for a call that needs no key. Raises CliError."""
        access = find_access(self.asked, keyless=keyless)
        if access.warning:
            self.output.note(f"Warning: {access.warning}")
        calls = Calls(access)
        self._opened.callback(calls.close)
        return calls

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
            cause, remedy, code = _failure(error)
            self.output.failure(cause, remedy, code)
            raise typer.Exit(code) from None
        finally:
            self._opened.close()


def _failure(error: Exception) -> tuple[str, str, ExitCode]:
    if isinstance(error, CliError):
        return error.cause, error.remedy, error.code
    if isinstance(error, WebhookVerificationError) and error.reason in {"secret_missing", "secret_invalid"}:
        return error.cause, error.hint, ExitCode.USAGE
    return (
        f"this should not happen: {type(error).__name__}: {error}",
        "run the command again with --debug, and report what it shows",
        ExitCode.FAILED,
    )


_SHARED: Final[dict[str, Any]] = {
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")], False),
}
_OF_THE_SERVER: Final[dict[str, Any]] = {
    "api_url": (
        Annotated[str | None, typer.Option("--api-url", metavar="URL", help="The server, in place of UPLIFT_API_URL.")],
        None,
    ),
    "api_key": (
        Annotated[
            str | None,
            typer.Option(
                "--api-key", metavar="KEY", help="The key, in place of UPLIFT_API_KEY (which nobody else sees)."
            ),
        ],
        None,
    ),
    "profile": (
        Annotated[
            str | None,
            typer.Option("--profile", metavar="NAME", help="Server and key, from ~/.config/uplift/config.toml."),
        ],
        None,
    ),
}


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...], server: bool = True
) -> Callable[[Callable[..., None]], None]:
    """Register a function as a command: it gets a Session first, then its own arguments and options.

    The options that every command has are added here, and so is what happens when it fails. `server`: whether it talks
    to one.
    """

    def register(body: Callable[..., None]) -> None:
        _, *own = inspect.signature(body, eval_str=True).parameters.values()
        options = {**(_OF_THE_SERVER if server else {}), **_SHARED}
        shared = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for each, (annotation, default) in options.items()
        ]

        def run(**values: Any) -> None:
            as_json, debug = values.pop("as_json"), values.pop("debug")
            asked = Asked(**{each: values.pop(each) for each in _OF_THE_SERVER if each in values})
            session = Session(Output(as_json=as_json), asked, debug)
            with session.reporting():
                body(session, **values)

        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__ = body.__name__
        run.__doc__ = body.__doc__
        app.command(name, epilog="\n\n".join(("Examples:", *examples)), no_args_is_help=False, cls=Command)(run)

    return register
