"""Commands of a noun: `uplift deliveries` lists, `uplift deliveries dlv_…` shows, and subcommands follow the noun."""

import typer

from uplift_webhooks.cli.kit.program import Noun


def noun(app: typer.Typer, name: str, about: str) -> typer.Typer:
    """Return a group of commands for one noun, with `list` and `show`."""
    group = typer.Typer(
        cls=Noun, help=f"{about} Without a subcommand, the command lists all of them, or shows one by its ID."
    )
    app.add_typer(group, name=name)
    return group
