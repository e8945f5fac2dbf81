"""Shows the result of a row, as text for people and as one line of JSON."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import filesystem, machine, now, versions
from bench.options import Options


@dataclass(frozen=True)
class Figure:
    """A number with an optional target."""

    name: str
    value: float
    unit: str = ""
    target: str = ""
    reached: bool | None = None

    @property
    def text(self) -> str:
        """The formatted value."""
        if self.value == int(self.value) or abs(self.value) >= 100:
            return f"{self.value:,.0f}"
        return f"{self.value:,.2f}"


def at_least(name: str, value: float, unit: str, target: float, aim: str = "") -> Figure:
    """Return a figure with a minimum."""
    return Figure(name, value, unit, f"≥ {target:,g}{aim}", value >= target)


def at_most(name: str, value: float, unit: str, target: float, aim: str = "") -> Figure:
    """Return a figure with a maximum."""
    return Figure(name, value, unit, f"≤ {target:,g}{aim}", value <= target)


@dataclass
class Report:
    """The result of one row."""

    row: str
    title: str
    figures: list[Figure]
    conditions: dict[str, str]
    """Conditions of the measurement. The keys are their names, such as `payload` and `durability`."""
    reference: dict[str, float] = field(default_factory=dict)
    """Limits of the machine, measured in the same run. The keys are their names, such as `raw commits/s`."""
    curves: dict[str, dict[str, float]] = field(default_factory=dict)
    """Percentiles of measured latencies, in ms. The keys are labels, such as `accept at half load`."""
    notes: list[str] = field(default_factory=list)
    """Sentences for readers of the report, such as warnings."""

    def record(self, options: Options) -> dict[str, Any]:
        """Return all values for the JSON line."""
        return {
            "row": self.row,
            "title": self.title,
            "at": now(),
            "smoke": options.smoke,
            "figures": {
                figure.name: {"value": round(figure.value, 4), "unit": figure.unit}
                | ({"target": figure.target, "reached": figure.reached} if figure.target else {})
                for figure in self.figures
            },
            "conditions": self.conditions,
            "reference": self.reference,
            "curves": self.curves,
            "notes": self.notes,
            "machine": machine() | {"filesystem": filesystem(options.directory)},
            "versions": versions(),
        }


def show(report: Report, options: Options, file: Path | None) -> None:
    """Print a report with its JSON line at the end, and append the line to `file`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    record = report.record(options)
    console.print(f"\n[bold]{report.row}[/bold]  {report.title}\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for _ in range(3):
        table.add_column()
    for figure in report.figures:
        verdict = {True: "[green]reached[/green]", False: "[red]missed[/red]", None: ""}[figure.reached]
        if options.smoke:
            verdict = ""
        table.add_row(figure.name, f"[bold]{figure.text}[/bold]", figure.unit, figure.target, verdict)
    console.print(table)
    if options.smoke:
        console.print(
            "\n[yellow]This was a smoke run. It only checks that the row works. Its figures are meaningless.[/yellow]"
        )
    for note in report.notes:
        console.print(f"\n{note}", markup=False)
    console.print()
    for label, values in (
        ("reference", {name: f"{value:,.5g}" for name, value in report.reference.items()}),
        ("conditions", report.conditions),
        ("machine", record["machine"]),
        ("versions", record["versions"]),
    ):
        if values:
            line = ", ".join(f"{name} {value}" for name, value in values.items())
            console.print(f"[dim]{label:<11}[/dim]{line}", soft_wrap=True)
    print()
    line = json.dumps(record, ensure_ascii=False)
    print(line, flush=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(line + "\n")
