"""Command options for the endpoint settings of the API client."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, get_origin

import typer

from uplift_webhooks.api.nouns import Endpoints
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import metadata_of

SETTINGS: Final[dict[str, str]] = {
    each.name: each.annotation.__metadata__[0]
    for each in inspect.signature(Endpoints.create.describe, eval_str=True).parameters.values()
    if get_origin(each.annotation) is Annotated
}
"""The help of each setting, by its name."""
SETTING_OPTIONS: Final = {name: f"--{name.replace('_', '-')}" for name in SETTINGS}


NewUrl = Annotated[str | None, typer.Option("--url", metavar="URL", help="New URL.")]
NewTypes = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="New event type or pattern. Repeatable. Replaces the subscription."),
]
NewDescription = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="New description.")]


def with_setting_options(body: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's `**settings` with an option for each setting. An omitted option is None."""
    *own, _ = inspect.signature(body, eval_str=True).parameters.values()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[int | None, typer.Option(option, metavar="N", help=SETTINGS[name])],
        )
        for name, option in SETTING_OPTIONS.items()
    ]
    body.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return body


def endpoint_body(
    url: str,
    event_types: list[str] | None,
    description: str,
    uid: str | None,
    metadata: list[str] | None,
    paused: bool,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the body of a request that creates an endpoint, without omitted options. Raises CliError."""
    given = {
        "description": description or None,
        "uid": uid,
        "metadata": metadata_of(metadata),
        "state": "paused" if paused else None,
        **settings,
    }
    return {"url": url, "event_types": event_types or [], **_without_omitted(given)}


def endpoint_changes(
    url: str | None,
    event_types: list[str] | None,
    description: str | None,
    uid: str | None,
    metadata: list[str] | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the body of a request that updates an endpoint. Raises CliError without options."""
    given = {
        "url": url,
        "event_types": event_types,
        "description": description,
        "uid": uid,
        "metadata": metadata_of(metadata),
        **settings,
    }
    body = _without_omitted(given)
    if not body:
        raise CliError("nothing to update", "pass the options to change, such as --url URL", ExitCode.USAGE)
    return body


def _without_omitted(options: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in options.items() if each is not None}
