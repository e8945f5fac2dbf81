"""Commands named by a noun: `uplift deliveries` lists, `uplift deliveries dlv_…` shows, and verbs stand between."""

from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.help import Group

_HELP: Final = frozenset({"-h", "--help"})

Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many, the newest first.")]
EventType = Annotated[str | None, typer.Option("--type", help="Only those of this event type.")]


class _Noun(Group):
    """A group that lists without a verb, and shows what is named without one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in _HELP):
            args = ["list", *args]
        elif args[0] not in self.commands and args[0] not in _HELP:
            args = ["show", *args]
        return super().parse_args(ctx, args)


def noun(app: typer.Typer, name: str, about: str) -> typer.Typer:
    """A group of commands about one noun, which has `list` and `show`."""
    group = typer.Typer(cls=_Noun, help=f"{about} Without a verb: list them, or show the one that is named.")
    app.add_typer(group, name=name)
    return group
