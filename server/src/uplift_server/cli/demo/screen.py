"""Prints the attempts and the progress of the demo, with a progress bar on a terminal."""

from types import TracebackType
from typing import Final, Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from uplift_server.cli.demo.receiver import DOWN, Arrival
from uplift_server.cli.demo.tally import Summary
from uplift_webhooks.cli.kit.output import Output, printable

_MEANINGS: Final = {
    204: "accepted",
    302: "redirect to login",
    400: "rejected",
    500: "crashed",
    503: "unavailable",
}


class Screen:
    """Shows the progress of a run. Use it as a context manager."""

    def __init__(self, output: Output, events: int | None) -> None:
        self._output = output
        self._progress: Progress | None = None
        self._live: Live | None = None
        self._down: int | None = None
        if not output.as_json and output.results.is_terminal:
            counts = (
                [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
                if events
                else [TextColumn("{task.completed}  To stop, press Ctrl-C.")]
            )
            self._progress = Progress(SpinnerColumn(), TextColumn("{task.description}"), *counts)
            self._live = Live(self._progress, console=output.results, transient=True)
            self._task = self._progress.add_task("delivered and verified", total=None if events is None else 2 * events)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line of text, except with JSON output."""
        if not self._output.as_json:
            self._output.line((text, style))

    def links(self, owner: str, operator: str) -> None:
        """Print the links to the dashboard. A terminal always shows the links below the attempts."""
        lines = (f"  as the account's owner  {owner}", f"  as the operator         {operator}")
        if self._live is None or self._progress is None:
            self.say("Open the dashboard. The links work until the demo stops:")
            for line in lines:
                self.say(line)
        else:
            shown = Group(Text("\nOpen the dashboard:", style="bold"), *map(Text, lines), self._progress)
            self._live.update(shown, refresh=True)

    def delivered(self, count: int) -> None:
        """Update the number of verified deliveries."""
        if self._progress is not None:
            self._progress.update(self._task, completed=count)

    def heading(self) -> None:
        """Print the column headings for the received requests, except with JSON output."""
        if not self._output.as_json:
            columns = f"    {'RECEIVER':<9}{'RESPONSE':<24}{'LATENCY':>17}  {'TYPE':<28}ATTEMPT    SIGNATURE  EVENT"
            self._row(Text(columns, style="dim"))

    def arrival(self, arrival: Arrival, latency_ms: float | None) -> None:
        """Print a received request, as a row or as JSON.

        For the down receiver, print a row only if its status code has changed.
        """
        good = arrival.problem is None and 200 <= arrival.status < 300
        if self._output.as_json:
            self._output.json(
                {
                    "kind": "attempt",
                    "receiver": arrival.receiver,
                    "event": arrival.event,
                    "type": arrival.type,
                    "attempt": arrival.attempt,
                    "status_code": arrival.status,
                    "verified": arrival.problem is None,
                    "problem": arrival.problem,
                    "latency_ms": latency_ms,
                }
            )
            return
        if arrival.receiver == DOWN:
            if arrival.status == self._down:
                return  # print only the first of many similar attempts
            self._down = arrival.status
        meaning = _MEANINGS.get(arrival.status, "")
        after = f"{latency_ms:14.1f} ms" if latency_ms is not None else " " * 17
        line = Text.assemble(
            (f"{'ok ' if good else 'no '}", "green" if good else "yellow"),
            f" {arrival.receiver:<9}{arrival.status} {meaning:<20}{after}  ",
            (f"{printable(arrival.type):<28}", "cyan"),
            f"attempt {arrival.attempt}  ",
            (arrival.problem or "verified ", "red" if arrival.problem else "dim"),
            (f"  {printable(arrival.event)}", "dim"),
        )
        self._row(line)

    def _row(self, line: Text) -> None:
        # Truncate lines only on a terminal.
        live = self._progress is not None
        self._output.print(line, no_wrap=True, overflow="ellipsis" if live else "ignore", crop=live)

    def summary(self, summary: Summary) -> None:
        """Print the summary of the run, as text or JSON."""
        if self._output.as_json:
            self._output.json(summary.as_json())
            return
        say = self.say
        say("")
        say(
            f"Delivered and verified: {summary.steady_verified} of {summary.sent} events at the steady receiver, "
            f"{summary.shaky_verified} of {summary.sent} at the shaky receiver",
            "bold green" if summary.complete else "bold red",
        )
        say(
            f"Failed attempts: {summary.failed_attempts}, retried events: {summary.retried_events}, "
            f"duplicates: {summary.duplicates}, invalid signatures: {summary.unverified}"
        )
        if summary.unfinished:
            say(f"Unfinished deliveries: {summary.unfinished}", "red")
        if summary.p50_ms is not None:
            say(f"Latency: p50 {summary.p50_ms} ms, p99 {summary.p99_ms} ms. Duration: {summary.seconds} s")
