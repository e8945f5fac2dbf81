"""Output of commands, as text or as JSON. Results go to standard output, everything else to standard error."""

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

from rich.console import Console
from rich.text import Text

from uplift_webhooks.cli.kit.tables import Column, draw

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
_STYLED: Final = frozenset({"status", "state", "outcome", "last_outcome", "health", "result"})
_UNLIMITED: Final = 1 << 20
"""Table width that means "no limit", in characters."""


def printable(value: object) -> str:
    """Return a value as text. Replaces control characters with `?`."""
    return "" if value is None else "".join(c if c.isprintable() or c == "\n" else "?" for c in str(value))


class OutputLost(Exception):
    """The command could not write its output.

    `seen_enough` is true if the reader of a list, such as `head`, closed the pipe.
    """

    def __init__(self, error: OSError, *, seen_enough: bool) -> None:
        super().__init__(error.strerror or str(error))
        self.seen_enough = seen_enough


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise the broken pipe error. Without this method, rich exits silently."""
        error = sys.exc_info()[1]
        assert error is not None, "rich calls this while it handles an error"
        raise error


class Output:
    """Standard output and standard error of a command. Colors and width depend on the terminal and `NO_COLOR`."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        if isinstance(sys.stdout, io.TextIOWrapper):
            # In a locale without some characters, results must not end in an error after the action.
            with suppress(OSError):
                sys.stdout.reconfigure(errors="replace")
        # With NO_COLOR, rich would still write bold text.
        colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        self.results: Console = _Console(highlight=False, soft_wrap=not sys.stdout.isatty(), color_system=colors)
        self.notes: Console = _Console(stderr=True, highlight=False, soft_wrap=True, color_system=colors)
        self.streams = False
        """Whether the command succeeds if the reader closes the pipe early.

        False for results that appear only once, such as a secret.
        """

    @property
    def is_seen_only(self) -> bool:
        """Whether standard error goes only to a terminal. False in CI, because CI systems store the output in logs."""
        return self.notes.is_terminal and not os.environ.get("CI")

    def json(self, value: Any) -> None:
        """Print a JSON value on one line."""
        with self._printing():
            is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            print(json.dumps(value, ensure_ascii=not is_utf8), flush=True)

    def print(self, *values: Any, **options: Any) -> None:
        """Print tables, text and other rich renderables to standard output."""
        with self._printing():
            self.results.print(*values, **options)
            sys.stdout.flush()

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Print a line to standard output. Each part is a string, or a string and its style."""
        texts = [(printable(part), "") if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts]
        # Let the terminal wrap long lines, so that users can copy them.
        self.print(Text.assemble(*texts), soft_wrap=True)

    def exactly(self, content: bytes) -> None:
        """Write bytes to standard output, unchanged."""
        with self._printing():
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    def flush(self) -> None:
        """Flush standard output."""
        with self._printing():
            sys.stdout.flush()

    @contextmanager
    def _printing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputLost(error, seen_enough=self.streams and isinstance(error, BrokenPipeError)) from error

    def note(self, text: str) -> None:
        """Print a line of progress or advice to standard error. With JSON output, print nothing."""
        if not self.as_json:
            self.state(text)

    def state(self, text: str, style: str = "") -> None:
        """Print a status message to standard error, even with JSON output."""
        self.notes.print(Text(printable(text), style=style))

    def failure(self, cause: str, remedy: str, code: int) -> None:
        """Print the cause of an error and how to fix it. With JSON output, print one JSON object."""
        if self.as_json:
            print(failure_json(cause, remedy, code), file=sys.stderr, flush=True)
            return
        self.notes.print(Text.assemble(("Error: ", "bold red"), printable(cause)))
        if remedy:
            self.notes.print(Text.assemble(("How to fix: ", "bold"), printable(remedy)))

    def rows(
        self, items: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, empty: str, wide: bool = False
    ) -> None:
        """Print a list: one JSON object per line, a table on a terminal, or columns separated by tabs.

        `wide` shows full values, even if the table does not fit the terminal.
        """
        self.streams = True
        found = list(items)
        if self.as_json:
            for item in found:
                self.json(item)
        elif not found:
            self.note(empty)
        elif self.results.is_terminal:
            self._table(found, columns, wide=wide)
        else:
            with self._printing():
                print("\t".join(each.heading for each in columns))
                for item in found:
                    print("\t".join(cell(item.get(each.name)).replace("\n", " ") or "-" for each in columns))
                sys.stdout.flush()

    def _table(self, items: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, wide: bool) -> None:
        texts = {each.name: [cell(item.get(each.name)) for item in items] for each in columns}
        if not wide:
            texts = {each.name: each.shorten(texts[each.name]) for each in columns}
        rows = [
            {each.name: Text(texts[each.name][number], style=_style(each.name, item)) for each in columns}
            for number, item in enumerate(items)
        ]
        table, width = draw(rows, columns, _UNLIMITED if wide else self.results.width)
        # Let the terminal wrap wider rows, so that users can copy them.
        self.results.width = max(self.results.width, width)
        self.print(table)

    def fields(self, item: Mapping[str, Any], *, indent: str = "") -> None:
        """Print an object as JSON, or as one line for each field that has a value. Nested objects are indented."""
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
    """Return an error as one line of JSON."""
    return json.dumps({"error": {"cause": cause, "remedy": remedy, "exit_code": code}}, ensure_ascii=False)


def cell(value: object) -> str:
    """Return a value as text for people: `yes` for True, and lists separated by commas."""
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
