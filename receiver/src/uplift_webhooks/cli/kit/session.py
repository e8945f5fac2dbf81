"""One run of a command: its options, its output and its errors."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.choices import CHOICES
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.output import Output, OutputLost
from uplift_webhooks.cli.kit.program import Command

Options = Mapping[str, tuple[Any, Any]]
"""The annotation and the default of each option. The keys are attributes of the session."""
_SHARED: Final[Options] = {
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")], False),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show the traceback for an error.")], False),
}


@dataclass
class Session:
    """One run of a command. Each program adds its own options and errors."""

    output: Output
    debug: bool = False
    resources: ExitStack = field(default_factory=ExitStack)
    """Resources that the session closes when the command ends."""

    def failures(self, error: Exception) -> list[CliError]:
        """Return the errors to report for an exception. The last error determines the exit code."""
        if isinstance(error, CliError):
            return [error]
        return [
            CliError(
                f"internal error: {type(error).__name__}: {error}",
                "repeat the command with --debug, and report the traceback",
            )
        ]

    def reach(self) -> AbstractContextManager[Calls]:
        """Return a context manager that opens an API client for the selected server."""
        raise NotImplementedError

    def choices(self, metavar: str) -> str:
        """Return a sentence with the choices for an argument or option, or with the command that lists them.

        Return an empty string if the choices are unknown or the request for them fails, because the sentence only
        extends an error message.
        """
        if "|" in metavar:
            return f"Choose one of: {', '.join(metavar.split('|'))}."
        known = CHOICES.get(metavar)
        if known is None:
            return ""
        try:
            with self.reach() as calls:
                return known.sentence(calls)
        except Exception:
            return ""

    def missing(self, option: str, metavar: str) -> CliError:
        """Return the error for a missing option, with the option's choices."""
        choices = self.choices(metavar).rstrip(".")
        remedy = choices[:1].lower() + choices[1:] if choices else f"add {option} {metavar}"
        return CliError(f"the option {option} is missing", remedy, ExitCode.USAGE)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report an error raised in the block, and exit with the error's exit code. `--debug` adds the traceback."""
        try:
            yield
            self.output.flush()
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            self.output.note("Stopped.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except OutputLost as lost:
            # Discard the rest of the output. Otherwise, the interpreter's flush at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if lost.seen_enough:
                raise typer.Exit(ExitCode.OK) from None
            remedy = "before you repeat the command, check whether it succeeded"
            self.output.failure(f"cannot write the output: {lost}", remedy, ExitCode.FAILED)
            raise typer.Exit(ExitCode.FAILED) from None
        except Exception as error:
            if self.debug:
                traceback.print_exc()
            failures = self.failures(error)
            for each in failures:
                self.output.failure(each.cause, each.remedy, each.code)
            raise typer.Exit(failures[-1].code) from None
        finally:
            self.resources.close()


def command(
    app: typer.Typer,
    name: str,
    session: type[Session],
    options: Options,
    *,
    examples: tuple[str, ...],
    hidden: bool = False,
) -> Callable[[Callable[..., None]], None]:
    """Register a function as a command. The function receives a session and the command's arguments and options.

    The command also has `--json`, `--debug` and `options`. The values of `options` become attributes of the session.
    `hidden`: the help does not show the command.
    """

    def register(body: Callable[..., None]) -> None:
        _, *own = inspect.signature(body, eval_str=True).parameters.values()
        shared = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for each, (annotation, default) in {**options, **_SHARED}.items()
        ]

        def run(**values: Any) -> None:
            output = Output(as_json=values.pop("as_json"))
            attributes = {each: values.pop(each) for each in ("debug", *options)}
            current = session(output, **attributes)
            with current.reporting():
                body(current, **values)

        def choices(metavar: str, values: Mapping[str, Any]) -> str:
            given = {each: values[each] for each in ("debug", *options) if each in values}
            return session(Output(as_json=bool(values.get("as_json"))), **given).choices(metavar)

        run.choices = choices  # type: ignore[attr-defined]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__ = body.__name__
        run.__doc__ = _paragraphs(body.__doc__)
        epilog = "\n\n".join(("Examples:", *examples))
        app.command(name, epilog=epilog, no_args_is_help=False, cls=Command, hidden=hidden)(run)

    return register


def _paragraphs(docstring: str | None) -> str:
    """Join the lines of each paragraph, because typer keeps line breaks after the first paragraph."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)
