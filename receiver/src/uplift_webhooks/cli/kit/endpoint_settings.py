"""Command options for the endpoint settings of the API client."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, get_origin

import typer

from uplift_webhooks.api.nouns import Endpoints

SETTINGS: Final[dict[str, str]] = {
    each.name: each.annotation.__metadata__[0]
    for each in inspect.signature(Endpoints.create.describe, eval_str=True).parameters.values()
    if get_origin(each.annotation) is Annotated
}
"""The help of each setting, by its name."""
SETTING_OPTIONS: Final = {name: f"--{name.replace('_', '-')}" for name in SETTINGS}


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
    url: str, event_types: list[str] | None, description: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the body of a request that creates an endpoint, without omitted options."""
    given = {"description": description or None, **settings}
    return {
        "url": url,
        "event_types": event_types or [],
        **{name: each for name, each in given.items() if each is not None},
    }
