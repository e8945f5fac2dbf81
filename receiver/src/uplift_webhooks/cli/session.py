"""Selects the server for an `uplift` command, and explains how to fix failed calls."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer

from uplift_webhooks.cli.kit import session as kit
from uplift_webhooks.cli.kit.calls import Advice, Calls
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.profiles import Access, Asked, find_access
from uplift_webhooks.errors import WebhookVerificationError

_CALLS: Final = re.compile(r"GET /v1/(event-types|endpoints|events|deliveries)\b")


@dataclass
class Session(kit.Session):
    """One run of an `uplift` command."""

    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    profile: str | None = None

    def calls(self, *, keyless: bool = False) -> Calls:
        """Return the API client for the selected server. `keyless`: a key is not required. Raises CliError."""
        access = find_access(Asked(self.api_url, self.api_key, self.profile), keyless=keyless)
        if access.warning:
            self.output.note(f"Warning: {access.warning}")
        calls = Calls(access.api_url, access.api_key, _advice(access))
        self.resources.callback(calls.close)
        return calls

    @contextmanager
    def reach(self) -> Iterator[Calls]:
        """Open an API client for the selected server. Raises CliError."""
        with closing(self.calls()) as calls:
            yield calls

    def failures(self, error: Exception) -> list[CliError]:
        """Return the errors to report for an exception, such as a missing or invalid signing secret."""
        if isinstance(error, WebhookVerificationError) and error.reason in {"secret_missing", "secret_invalid"}:
            return [CliError(error.cause, error.hint, ExitCode.USAGE)]
        return super().failures(error)


def _advice(access: Access) -> Advice:
    return Advice(
        address=access.url_origin,
        key=access.key_origin,
        unreachable=f"check {access.url_origin}, and check that the server is running",
        server_error="try again later, or contact the operator of the server",
        remedies={
            "account_required": "use an account key (sk_…)",
            401: "check the key: --api-key, UPLIFT_API_KEY or the profile",
            403: "use a key with the required scope",
            404: "list the existing objects with `uplift endpoints`, `uplift events` or `uplift deliveries`",
            409: "check the current state, then try again",
            429: "try again in a moment",
            503: "try again in a moment",
        },
        lists={
            "endpoint": "`uplift endpoints`",
            "event": "`uplift events`",
            "event type": "`uplift event-types`",
            "delivery": "`uplift deliveries`",
            "rejected event": "`uplift rejected-events`",
            "replay": "`uplift replays`",
        },
        rewrite=_with_commands,
    )


def _with_commands(text: str) -> str:
    """Replace the API calls in an error message with `uplift` commands."""
    return _CALLS.sub(r"`uplift \1`", text)


_SERVER: Final[kit.Options] = {
    "api_url": (
        Annotated[
            str | None, typer.Option("--api-url", metavar="URL", help="URL of the server. Default: UPLIFT_API_URL.")
        ],
        None,
    ),
    "api_key": (
        Annotated[
            str | None,
            typer.Option(
                "--api-key",
                metavar="KEY",
                help="API key. Default: UPLIFT_API_KEY. Other users on this machine can see the values of"
                " command-line options, but not environment variables.",
            ),
        ],
        None,
    ),
    "profile": (
        Annotated[
            str | None,
            typer.Option(
                "--profile", metavar="NAME", help="Profile in ~/.config/uplift/config.toml. Default: UPLIFT_PROFILE."
            ),
        ],
        None,
    ),
}


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...], server: bool = True
) -> Callable[[Callable[..., None]], None]:
    """Register a command. `server`: the command calls a server and has options to select the server."""
    return kit.command(app, name, Session, _SERVER if server else {}, examples=examples)
