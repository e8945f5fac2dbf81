"""The program `uplift` with all its commands."""

from typing import Final

import typer

from uplift_webhooks import __version__
from uplift_webhooks.cli import (
    attempts,
    deliveries,
    endpoints,
    event_types,
    events,
    ips,
    listen,
    reconcile,
    rejected_events,
    replays,
    stats,
    trigger,
    verification,
)
from uplift_webhooks.cli.kit.program import program, register, require_standard_output

app: Final[typer.Typer] = program(
    "uplift",
    __version__,
    "Develop, test and operate receivers of Uplift webhooks.",
    epilog=(
        (
            "Server and key: set UPLIFT_API_URL and UPLIFT_API_KEY, use --api-url and --api-key, or choose a profile in"
            " ~/.config/uplift/config.toml with --profile or UPLIFT_PROFILE."
        ),
        "IDs: commands accept a full ID or a unique ID prefix.",
        (
            "Output: results go to standard output, everything else to standard error. On a terminal, lists are tables;"
            " in a pipe, columns are separated by tabs. NO_COLOR turns colors off."
        ),
    ),
)
register(
    app,
    {
        "Develop": (listen, trigger, verification),
        "Inspect and change": (
            events,
            reconcile,
            rejected_events,
            deliveries,
            attempts,
            replays,
            stats,
            endpoints,
            event_types,
        ),
        "Server": (ips,),
    },
)


def start() -> None:
    """Run the program, or exit with an error if standard output is closed."""
    require_standard_output()
    app()
