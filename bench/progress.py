"""A progress bar, which is shown only on a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

console = Console(stderr=True)


class Step(Protocol):
    """Callback that moves a bar. It takes the progress, and a short text such as a rate."""

    def __call__(self, done: float, note: str = "") -> None: ...


@contextmanager
def bar(label: str, total: float) -> Iterator[Step]:
    """Show a bar for one step of a row."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[note]:>18}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=1,
        disable=not sys.stderr.isatty(),
    )
    with progress:
        task = progress.add_task(label, total=total, note="")

        def step(done: float, note: str = "") -> None:
            progress.update(task, completed=min(done, total), note=note)

        yield step
