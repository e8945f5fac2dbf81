"""What commands print: results on standard output, everything else on standard error; JSON where it was asked for."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from rich.console import Console
from rich.text import Text

from uplift_webhooks.cli.tables import Column, draw

_STYLES: Final = {
    "delivered": "green",
    "enabled": "green",
    "healthy": "green",
    "failed": "red",
    "disabled": "red",
    "pending": "yellow",
    "held": "yellow",
    "paused": "yellow",
}
_STYLED: Final = frozenset({"status", "state", "outcome", "last_outcome", "health"})


def printable(value: object) -> str:
    """A value as text that cannot steer a terminal, whoever wrote it."""
    return "" if value is None else "".join(c if c.isprintable() or c == "\n" else "?" for c in str(value))


class OutputLost(Exception):
    """What was to be printed could not be. `seen_enough`: its reader went away, as `head`, and nothing is lost."""

    def __init__(self, error: OSError, *, seen_enough: bool) -> None:
        """Keep what the system said."""
        super().__init__(error.strerror or str(error))
        self.seen_enough = seen_enough


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller: rich would end the program without a word."""
        error = sys.exc_info()[1]
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
        self.streams = False
        """Whether a reader may have seen enough of what is printed: all but what is shown once, such as a secret."""

    @property
    def is_seen_only(self) -> bool:
        """Whether notes go to a person at a terminal and nowhere else; what CI runs is logged, on terminals too."""
        return self.notes.is_terminal and not os.environ.get("CI")

    def json(self, value: Any) -> None:
        """One JSON value in one line."""
        with self._printing():
            print(json.dumps(value, ensure_ascii=False), flush=True)

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line of a result; a part may be a text and its style."""
        texts = [(printable(part), "") if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts]
        with self._printing():
            # Wrapped by the terminal alone, a long line can still be copied.
            self.results.print(Text.assemble(*texts), soft_wrap=True)
            sys.stdout.flush()

    def exactly(self, content: bytes) -> None:
        """Bytes as they are, with nothing around them."""
        with self._printing():
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    def flush(self) -> None:
        """Hand over everything that was printed."""
        with self._printing():
            sys.stdout.flush()

    @contextmanager
    def _printing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputLost(error, seen_enough=self.streams and isinstance(error, BrokenPipeError)) from error

    def note(self, text: str) -> None:
        """A line that is no result: progress, advice."""
        if not self.as_json:
            self.state(text)

    def state(self, text: str, style: str = "") -> None:
        """A line about what is going on, which also programs may wait for."""
        self.notes.print(Text(printable(text), style=style))

    def failure(self, cause: str, remedy: str, code: int) -> None:
        """The two lines of an error."""
        if self.as_json:
            print(failure_json(cause, remedy, code), file=sys.stderr, flush=True)
            return
        self.notes.print(Text.assemble(("Error: ", "bold red"), printable(cause)))
        if remedy:
            self.notes.print(Text.assemble(("Remedy: ", "bold"), printable(remedy)))

    def rows(self, items: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, empty: str) -> None:
        """A list: one JSON object a line; a table, where a terminal shows it; or columns with tabs between them."""
        self.streams = True
        found = list(items)
        if self.as_json:
            for item in found:
                self.json(item)
        elif not found:
            self.note(empty)
        elif self.results.is_terminal:
            self._table(found, columns)
        else:
            with self._printing():
                print("\t".join(each.heading for each in columns))
                for item in found:
                    print("\t".join(cell(item.get(each.name)).replace("\n", " ") or "-" for each in columns))

    def _table(self, items: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        rows = [
            {each.name: Text(cell(item.get(each.name)), style=_style(each.name, item)) for each in columns}
            for item in items
        ]
        table, width = draw(rows, columns, self.results.width)
        # What is wider is wrapped by the terminal alone, and can still be copied.
        self.results.width = max(self.results.width, width)
        with self._printing():
            self.results.print(table)

    def fields(self, item: Mapping[str, Any], *, indent: str = "") -> None:
        """One object: as JSON, or a line for each of its fields that has a value; those of an inner one stand below."""
        if self.as_json:
            self.json(item)
            return
        filled = {name: value for name, value in item.items() if value not in (None, "", [], {}, ())}
        width = max(map(len, filled), default=0)
        for name, value in filled.items():
            if isinstance(value, dict):
                self.line((f"{indent}{name}", "bold"))
                self.fields(value, indent=f"{indent}  ")
            else:
                self.line((f"{indent}{name:<{width}}  ", "bold"), (cell(value), _style(name, item)))


def failure_json(cause: str, remedy: str, code: int) -> str:
    """An error for programs, in one line."""
    return json.dumps({"error": {"cause": cause, "remedy": remedy, "exit_code": code}}, ensure_ascii=False)


def cell(value: object) -> str:
    """A value as one text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return printable(", ".join(f"{name} {cell(each)}" for name, each in value.items()))
    if isinstance(value, list | tuple):
        return printable(", ".join(cell(each) for each in value))
    return printable(value)


def _style(name: str, item: Mapping[str, Any]) -> str:
    value = item.get(name)
    return _STYLES.get(value, "") if name in _STYLED and isinstance(value, str) else ""
