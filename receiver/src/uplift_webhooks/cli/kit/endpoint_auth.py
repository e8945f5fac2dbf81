"""Command options for endpoint authentication.

Options read secrets from files, because other users of the machine can see a command's arguments.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import input_name, read_input, read_secret

PEM_BYTES_MAX: Final = 64 * 1024
_FIELDS: Final = {
    "oauth_token_url": ("token_url", "URL", "Token URL for OAuth 2.0 client credentials."),
    "oauth_client_id": ("client_id", "ID", "Client ID for token requests."),
    "oauth_client_secret_file": ("client_secret", "FILE", "File with the client secret, or - for standard input."),
    "oauth_scope": ("scope", "SCOPES", "Scopes for the token, separated by spaces."),
    "client_certificate_file": ("certificate", "FILE", "PEM file with the client certificate and its chain."),
    "client_key_file": ("private_key", "FILE", "PEM file with the certificate's key, or - for standard input."),
}
_OAUTH: Final = ("oauth_token_url", "oauth_client_id", "oauth_client_secret_file")
_MTLS: Final = ("client_certificate_file", "client_key_file")
AUTH_OPTIONS: Final[dict[str, str]] = {
    f"auth.{field}": f"--{name.replace('_', '-')}" for name, (field, _, _) in _FIELDS.items()
}
"""The authentication options. The keys are API fields."""


def with_auth_options(body: Callable[..., None]) -> Callable[..., None]:
    """Add the authentication options to a command that has `**settings`. An omitted option is None."""
    *own, settings = inspect.signature(body, eval_str=True).parameters.values()
    options = [
        _parameter(name, None, Annotated[str | None, typer.Option(_option(name), metavar=metavar, help=text)])
        for name, (_, metavar, text) in _FIELDS.items()
    ]
    body.__signature__ = inspect.Signature([*own, *options, settings])  # type: ignore[attr-defined]
    return body


def with_auth_changes(body: Callable[..., None]) -> Callable[..., None]:
    """Add the authentication options and `--no-auth` to a command that updates an endpoint."""
    *own, settings = inspect.signature(with_auth_options(body), eval_str=True).parameters.values()
    removal = Annotated[bool, typer.Option("--no-auth", help="Remove the endpoint's authentication.")]
    body.__signature__ = inspect.Signature([*own, _parameter("no_auth", False, removal), settings])  # type: ignore[attr-defined]
    return body


def take_auth(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the authentication options from `options`, and return the request field `auth`, if any.

    Raises CliError if the options cannot be combined, an option is missing, or a file is not readable.
    """
    taken = {name: options.pop(name, None) for name in _FIELDS}
    given = [name for name, value in taken.items() if value is not None]
    if options.pop("no_auth", False):
        if given:
            raise CliError(
                f"--no-auth cannot be combined with {_option(given[0])}", "omit one of these options", ExitCode.USAGE
            )
        return {"auth": None}
    if not given:
        return {}
    is_oauth = any(name in given for name in (*_OAUTH, "oauth_scope"))
    if is_oauth and any(name in given for name in _MTLS):
        raise CliError(
            "an endpoint can have only one kind of authentication",
            "use OAuth or a client certificate",
            ExitCode.USAGE,
        )
    missing = [_option(name) for name in (_OAUTH if is_oauth else _MTLS) if name not in given]
    if missing:
        raise CliError(
            f"{_option(given[0])} requires {' and '.join(missing)}", "add the missing options", ExitCode.USAGE
        )
    kind = "oauth2_client_credentials" if is_oauth else "mtls"
    return {"auth": {"type": kind, **{_FIELDS[name][0]: _value(name, taken[name]) for name in given}}}


def _value(name: str, source: str) -> str:
    if name == "oauth_client_secret_file":
        return read_secret(source)
    return _read_pem(source) if name.endswith("_file") else source


def _read_pem(source: str) -> str:
    remedy = "use a text file in PEM"
    try:
        return read_input(source, PEM_BYTES_MAX, remedy).decode()
    except UnicodeDecodeError as error:
        raise CliError(f"{input_name(source)} is not UTF-8 text", remedy, ExitCode.USAGE) from error


def _parameter(name: str, default: object, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
