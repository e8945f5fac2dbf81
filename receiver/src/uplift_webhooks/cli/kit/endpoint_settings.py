"""Command options for an endpoint's settings, derived from the parameters of `Endpoints.create`."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, get_args, get_origin

import typer

from uplift_webhooks.api.nouns import Endpoints
from uplift_webhooks.cli.kit.endpoint_auth import AUTH_OPTIONS, take_auth
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.filters import filter_field
from uplift_webhooks.cli.kit.inputs import OWN_DATA_OPTIONS, metadata_of

_ANNOTATIONS: Final = {
    each.name: each.annotation
    for each in inspect.signature(Endpoints.create.describe, eval_str=True).parameters.values()
    if get_origin(each.annotation) is Annotated
}
SETTINGS: Final[dict[str, str]] = {name: each.__metadata__[0] for name, each in _ANNOTATIONS.items()}
"""The help text of each setting. The keys are the names of the settings."""
_TYPES: Final[dict[str, object]] = {name: get_args(each.__origin__)[0] for name, each in _ANNOTATIONS.items()}
"""The type of each setting: int, str, a literal type, or a list of strings. The keys are the names of the settings."""
SETTING_OPTIONS: Final = {name: f"--{name.replace('_', '-')}" for name in SETTINGS}
_METAVARS: Final[dict[object, str]] = {int: "N", str: "DURATION", Iterable[str]: "DURATIONS"}
_RESET: Final = "default"
"""The option value that resets a setting to its default."""
_EMPTY: Final = "none"
"""The option value that means an empty list."""

ENDPOINT_OPTIONS: Final = {
    "description": "--description",
    **OWN_DATA_OPTIONS,
    "filter": "--filter",
    **AUTH_OPTIONS,
    **SETTING_OPTIONS,
}
"""The options for the commands that create and update endpoints. The keys are API fields."""

NewUrl = Annotated[str | None, typer.Option("--url", metavar="URL", help="New URL.")]
NewTypes = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="New event type or pattern. Repeatable. Replaces the subscription."),
]
NewDescription = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="New description.")]


def with_setting_options(body: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's `**settings` with an option for each endpoint setting. An omitted option is None."""
    *own, _ = inspect.signature(body, eval_str=True).parameters.values()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(option, metavar=_metavar(name), help=_help(name))],
        )
        for name, option in SETTING_OPTIONS.items()
    ]
    body.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return body


def _is_list(name: str) -> bool:
    return _TYPES[name] == Iterable[str]


def _metavar(name: str) -> str:
    choices = "|".join(map(str, get_args(_TYPES[name])))
    return _METAVARS.get(_TYPES[name], choices)


def _help(name: str) -> str:
    listed = f" Separate the values with commas. The value {_EMPTY} means an empty list." if _is_list(name) else ""
    return f"{SETTINGS[name]}{listed} The value {_RESET} resets the setting."


def _setting(name: str, text: str) -> Any:
    """Return the JSON value of an option. The server validates the value. Raises CliError if a number is not valid."""
    if text == _RESET:
        return None
    if _TYPES[name] is int:
        try:
            return int(text)
        except ValueError:
            cause = f"{SETTING_OPTIONS[name]} {text}: the value is not a whole number"
            raise CliError(cause, f"use a whole number, or {_RESET}", ExitCode.USAGE) from None
    if _is_list(name):
        return [] if text == _EMPTY else [part.strip() for part in text.split(",")]
    return text


def _settings(given: dict[str, str | None]) -> dict[str, Any]:
    return {name: _setting(name, text) for name, text in given.items() if text is not None}


def endpoint_body(
    url: str,
    event_types: list[str] | None,
    description: str,
    uid: str | None,
    metadata: list[str] | None,
    filter_text: str | None,
    paused: bool,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the request body to create an endpoint, without omitted options.

    `settings` also contains the authentication options. Raises CliError if an option is not valid.
    """
    auth = take_auth(settings)
    given = {
        "description": description or None,
        "uid": uid,
        "metadata": metadata_of(metadata),
        "state": "paused" if paused else None,
    }
    body = {**_without_omitted(given), **filter_field(filter_text), **auth, **_settings(settings)}
    return {"url": url, "event_types": event_types or [], **body}


def endpoint_changes(
    url: str | None,
    event_types: list[str] | None,
    description: str | None,
    uid: str | None,
    metadata: list[str] | None,
    filter_text: str | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the request body to update an endpoint.

    `settings` also contains the authentication options. Raises CliError if an option is not valid, or if all options
    are omitted.
    """
    auth = take_auth(settings)
    given = {
        "url": url,
        "event_types": event_types,
        "description": description,
        "uid": uid,
        "metadata": metadata_of(metadata),
    }
    body = {**_without_omitted(given), **filter_field(filter_text), **auth, **_settings(settings)}
    if not body:
        raise CliError("nothing to update", "pass the options to change, such as --url URL", ExitCode.USAGE)
    return body


def _without_omitted(options: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in options.items() if each is not None}
