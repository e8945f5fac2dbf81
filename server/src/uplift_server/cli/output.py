"""What commands print: results on standard output, everything else on standard error; JSON where it was asked for."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uplift_server.cli.tables import Column, distance, short_ids
from uplift_server.core import texts

_GAP: Final = 2
_GIVEN_LEAST: Final = 12


def printable(value: object) -> str:
    """A value as text that cannot steer a terminal, whoever wrote it."""
    return "" if value is None else texts.printable(str(value), lines=True)


class OutputLost(Exception):
    """What was to be printed could not be. `seen_enough`: a list, and its reader went away, as `head` does."""

    def __init__(self, error: OSError, *, seen_enough: bool) -> None:
        """Keep what the system said."""
        super().__init__(error.strerror or str(error))
        self.seen_enough = seen_enough


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller: rich would end the program without a word."""
        error = sys.exception()
        assert error is not None, "rich calls this while it handles one"
        raise error


class Output:
    """The two streams of a command. Colours and widths follow the terminal, and `NO_COLOR`."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # What NO_COLOR asks for is text without any escapes; rich would still write bold.
        colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        self.results: Console = _Console(highlight=False, soft_wrap=not sys.stdout.isatty(), color_system=colours)
        self.notes: Console = _Console(stderr=True, highlight=False, soft_wrap=True, color_system=colours)
        self._lists = False

    def json(self, value: Any) -> None:
        """One JSON value in one line."""
        with self._printing():
            print(json.dumps(value, ensure_ascii=False), flush=True)

    def print(self, *values: Any, **how: Any) -> None:
        """What rich can draw, as a result."""
        with self._printing():
            self.results.print(*values, **how)

    def line(self, text: str, style: str | None = None) -> None:
        """One line of a result."""
        # Wrapped by the terminal alone, a long line can still be copied.
        self.print(Text(printable(text), style=style or ""), soft_wrap=True)

    def flush(self) -> None:
        """Hand over everything that was printed."""
        with self._printing():
            sys.stdout.flush()

    @contextmanager
    def _printing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            seen_enough = self._lists and isinstance(error, BrokenPipeError)
            raise OutputLost(error, seen_enough=seen_enough) from error

    def note(self, text: str) -> None:
        """A line that is no result: progress, advice."""
        if not self.as_json:
            self.notes.print(Text(printable(text)))

    def failure(self, cause: str, remedy: str, code: int) -> None:
        """The two lines of an error."""
        if self.as_json:
            print(failure_json(cause, remedy, code), file=sys.stderr, flush=True)
            return
        self.notes.print(Text.assemble(("Error: ", "bold red"), printable(cause)))
        if remedy:
            self.notes.print(Text.assemble(("Remedy: ", "bold"), printable(remedy)))

    def rows(
        self, items: Iterable[dict[str, Any]], columns: Sequence[Column], *, empty: str, wide: bool = False
    ) -> None:
        """A list: one JSON object a line, or a table, which on a terminal fits its width unless it shall be `wide`."""
        found = list(items)
        self._lists = True
        if self.as_json:
            for item in found:
                self.json(item)
            return
        if not found:
            self.note(empty)
            return
        if not self.results.is_terminal:
            # For grep and cut: a table drawn to fit a width would cut the ids.
            with self._printing():
                print("\t".join(each.heading for each in columns))
                for item in found:
                    print("\t".join(cell(item.get(each.name)).replace("\n", " ") or "-" for each in columns))
            return
        self._table(found, columns, wide=wide)

    def _table(self, items: Sequence[dict[str, Any]], columns: Sequence[Column], *, wide: bool) -> None:
        shown = {each.name: _texts(items, each, wide=wide) for each in columns}
        fitting = list(columns)
        if wide:
            self.results.width = max(self.results.width, _width(fitting, shown))
        else:
            while _width(fitting, shown, least=True) > self.results.width and any(each.dropped for each in fitting):
                fitting.remove(max(fitting, key=lambda each: each.dropped))
        table = Table(box=None, pad_edge=False, header_style="bold")
        rooms = _rooms(fitting, shown, self.results.width)
        for each in fitting:
            table.add_column(each.heading, overflow="fold", no_wrap=not each.folds)
            if each.gives:
                shown[each.name] = [_cut(text, rooms[each.name]) for text in shown[each.name]]
        for number, item in enumerate(items):
            texts = ((each.name, shown[each.name][number]) for each in fitting)
            table.add_row(*(Text(text, style=_style(name, item.get(name))) for name, text in texts))
        self.print(table)

    def fields(self, item: dict[str, Any], *, indent: str = "") -> None:
        """One object: as JSON, or a line for each of its fields that has a value; those of an inner one stand below."""
        if self.as_json:
            self.json(item)
            return
        filled = {name: value for name, value in item.items() if value not in (None, "", [], {}, ())}
        width = max(map(len, filled), default=0)
        for name, value in filled.items():
            if isinstance(value, dict):
                self.print(Text(f"{indent}{printable(name)}", style="bold"))
                self.fields(value, indent=f"{indent}  ")
            else:
                label = f"{indent}{printable(name):<{width}}  "
                self.print(Text.assemble((label, "bold"), (cell(value), _style(name, value))))


def failure_json(cause: str, remedy: str, code: int) -> str:
    """An error for programs, in one line."""
    return json.dumps({"error": {"cause": cause, "remedy": remedy, "exit_code": code}}, ensure_ascii=False)


def _texts(items: Sequence[dict[str, Any]], column: Column, *, wide: bool) -> list[str]:
    """What a column shows of each item."""
    texts = [cell(item.get(column.name)) for item in items]
    if wide or column.kind == "text":
        return texts
    if column.kind == "instant":
        return [text and distance(text) for text in texts]
    short = short_ids([text for text in dict.fromkeys(texts) if text])
    return [short.get(text, text) for text in texts]


def _width(columns: Sequence[Column], shown: dict[str, list[str]], *, least: bool = False) -> int:
    """How many cells a table takes, or would take at least."""
    total = 0
    for each in columns:
        widest = max(map(cell_len, (each.heading, *shown[each.name])))
        total += _GAP + (min(widest, _GIVEN_LEAST) if least and (each.gives or each.folds) else widest)
    return total - _GAP


def _rooms(columns: Sequence[Column], shown: dict[str, list[str]], width: int) -> dict[str, int]:
    """How wide each column may be that gives: what the others leave, shared evenly where it is too little."""
    widest = {each.name: max(map(cell_len, (each.heading, *shown[each.name]))) for each in columns if each.gives}
    left = width - _width(columns, shown) + sum(widest.values())
    rooms: dict[str, int] = {}
    for number, name in enumerate(sorted(widest, key=lambda each: widest[each])):
        rooms[name] = min(widest[name], max(_GIVEN_LEAST, left // (len(widest) - number)))
        left -= rooms[name]
    return rooms


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def cell(value: object) -> str:
    """A value as one text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return printable(", ".join(f"{name} {cell(each)}" for name, each in value.items()))
    if isinstance(value, list | tuple):
        return printable(", ".join(cell(each) for each in value))
    return printable(value)


_STYLES: Final = {
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
