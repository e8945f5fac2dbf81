"""The program `uplift`: all commands, and its start."""

from typing import Final

import typer

from uplift_webhooks import __version__
from uplift_webhooks.cli import deliveries, endpoints, events, ips, listen, trigger, verification
from uplift_webhooks.cli.kit.program import program, require_standard_output

app: Final[typer.Typer] = program(
    "uplift",
    __version__,
    "Develop, test and operate receivers of Uplift's webhooks.",
    epilog="Server and key: --api-url and --api-key, UPLIFT_API_URL and UPLIFT_API_KEY, or a profile.",
)
# In the order of the help: develop, inspect, change.
for _each in (listen, trigger, verification, events, deliveries, endpoints, ips):
    _each.register(app)


def start() -> None:
    """Run the command that the arguments name."""
    require_standard_output()
    app()
