"""What commands print: results on standard output, everything else on standard error; JSON where it was asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from uplift_server.core import texts


def printable(value: object) -> str:
    """A value as text that cannot steer a terminal, whoever wrote it."""
    return "" if value is None else texts.printable(str(value), lines=True)


class Output:
    """The two streams of a command. Colours and widths follow the terminal, and `NO_COLOR`."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.results = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def json(self, value: Any) -> None:
        """One JSON value in one line."""
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def line(self, text: str, style: str | None = None) -> None:
        """One line of a result."""
        self.results.print(Text(printable(text), style=style or ""))

    def note(self, text: str) -> None:
        """A line that is no result: progress, advice."""
        if not self.as_json:
            self.notes.print(Text(printable(text)))

    def failure(self, cause: str, remedy: str, code: int) -> None:
        """The two lines of an error."""
        if self.as_json:
            text = json.dumps({"error": {"cause": cause, "remedy": remedy, "exit_code": code}}, ensure_ascii=False)
            print(text, file=sys.stderr, flush=True)
            return
        self.notes.print(Text.assemble(("Error: ", "bold red"), printable(cause)))
        self.notes.print(Text.assemble(("Remedy: ", "bold"), printable(remedy)))

    def rows(self, items: Iterable[dict[str, Any]], columns: Sequence[tuple[str, str]], *, empty: str) -> None:
        """A list: one JSON object a line, or a table of (field, heading) columns."""
        found = list(items)
        if self.as_json:
            for item in found:
                self.json(item)
            return
        if not found:
            self.note(empty)
            return
        if not self.results.is_terminal:
            # For grep and cut: a table drawn to fit a width would cut the ids.
            print("\t".join(heading for _, heading in columns))
            for item in found:
                print("\t".join(_cell(item.get(name)).replace("\n", " ") or "-" for name, _ in columns))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for _, heading in columns:
            table.add_column(heading, overflow="fold")
        for item in found:
            table.add_row(*(Text(_cell(item.get(name)), style=_style(name, item.get(name))) for name, _ in columns))
        self.results.print(table)

    def fields(self, item: dict[str, Any]) -> None:
        """One object: as JSON, or a line for each of its fields."""
        if self.as_json:
            self.json(item)
            return
        width = max(map(len, item), default=0)
        for name, value in item.items():
            self.results.print(Text.assemble((f"{name:<{width}}  ", "bold"), (_cell(value), _style(name, value))))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return printable(", ".join(f"{name} {_cell(each)}" for name, each in value.items()))
    if isinstance(value, list | tuple):
        return printable(", ".join(_cell(each) for each in value))
    return printable(value)


_STYLES = {
    "delivered": "green",
    "enabled": "green",
    "healthy": "green",
    "ok": "green",
    "failed": "red",
    "fail": "red",
    "disabled": "red",
    "pending": "yellow",
    "held": "yellow",
    "paused": "yellow",
    "warn": "yellow",
}


def _style(name: str, value: object) -> str:
    return (
        _STYLES.get(value, "")
        if name in ("status", "state", "last_outcome", "outcome", "result") and isinstance(value, str)
        else ""
    )
