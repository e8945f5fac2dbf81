"""Sends the events in a file. Each line of the file is one event as a JSON object."""

import hashlib
import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from uplift_server.core.limits import EVENT_BODY_BYTES_MAX
from uplift_webhooks import Emitter, EventsRejected
from uplift_webhooks.api import ApiError, ApiFailure, ApiUnreachable
from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import input_name
from uplift_webhooks.cli.kit.output import Output

_FIELDS: Final = frozenset({"type", "data", "account", "id", "idempotency_key", "expires_at", "ordering_key"})
INTERRUPTED_SECONDS_MAX: Final = 1.0
"""Maximum time, in seconds, that an interrupted command waits for responses to the events that it has already read."""
_REPORTED_MAX: Final = 10
_NOT_ALLOWED: Final = frozenset({401, 403})
_REPEAT: Final = "repeat the command: the server does not store the accepted events again"


def send_file(client: Calls, output: Output, source: str, account: str | None) -> None:
    """Send every event in a file, or from standard input if `source` is `-`. Raises CliError.

    If an event has neither an ID nor an idempotency key, the command derives a key from the content of the line, and
    from its place among identical lines. If the user repeats the command, even after removing or adding other
    lines, the server therefore does not store the event again.
    """
    with _opened(source) as file, _without_emitter_errors():
        results = _Results(output, None if source == "-" else Path(source).stat().st_size)
        with results.drawn():
            try:
                with Emitter(client.api_url, client.api_key, account, use_proxy=False) as emitter:
                    try:
                        _send_lines(emitter, file, source, results)
                    except KeyboardInterrupt:
                        # Do not wait for all responses: the user can repeat the command to send the remaining events.
                        with suppress(EventsRejected, TimeoutError):
                            emitter.close(INTERRUPTED_SECONDS_MAX)
                        raise
            except EventsRejected:
                pass  # `results` reports the rejected events with their line numbers.
    results.report(source)


def _send_lines(emitter: Emitter, file: BinaryIO, source: str, results: "_Results") -> None:
    identical: Counter[int] = Counter()
    for number, line in _lines(file, source):
        event = _event(source, number, line)
        if event.get("id") is None and event.get("idempotency_key") is None:
            digest = hashlib.sha256(line.strip()).hexdigest()[:32]
            short = int(digest[:16], 16)  # An integer takes less memory than the whole digest.
            identical[short] += 1
            event["idempotency_key"] = f"{digest}/{identical[short]}"
        try:
            future = emitter.send(event.pop("type"), event.pop("data"), **event)
        except ValueError as error:
            raise _wrong(source, number, str(error).rstrip(".")) from error
        future.add_done_callback(partial(results.note, number, len(line)))


@contextmanager
def _without_emitter_errors() -> Iterator[None]:
    """Hide the emitter's log lines about rejected events, because `_Results` also reports them.

    Keep the emitter's warnings.
    """
    logger = logging.getLogger("uplift_webhooks.emitter")

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)


def _opened(source: str) -> BinaryIO:
    if source == "-":
        return sys.stdin.buffer
    try:
        return Path(source).open("rb")
    except OSError as error:
        remedy = "correct the path, or give your user read access to the file"
        raise CliError(f"cannot read {source}: {error.strerror}", remedy, ExitCode.USAGE) from error


def _lines(file: BinaryIO, source: str) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each line that is not empty. Raises CliError if a line is too long."""
    number = 0
    while line := file.readline(EVENT_BODY_BYTES_MAX + 1):
        number += 1
        if len(line) > EVENT_BODY_BYTES_MAX:
            raise _wrong(source, number, f"the line has more than {EVENT_BODY_BYTES_MAX} bytes")
        if line.strip():
            yield number, line


def _event(source: str, number: int, line: bytes) -> dict[str, Any]:
    """Parse one line into the arguments of `Emitter.send`. Raises CliError."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(source, number, f"not valid JSON: {error}") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str) or "data" not in event:
        raise _wrong(source, number, 'not an event such as {"type": "athlete.created", "data": {}}')
    if unknown := sorted(event.keys() - _FIELDS):
        raise _wrong(source, number, f"unknown field {unknown[0]}; known fields: {', '.join(sorted(_FIELDS))}")
    return event


def _wrong(source: str, number: int, cause: str) -> CliError:
    remedy = "correct the line and repeat the command: the server does not store the accepted events again"
    return CliError(f"line {number} of {input_name(source)}: {cause}", remedy, ExitCode.USAGE)


class _Results:
    """Counts accepted, duplicate and rejected events, and shows a progress bar on a terminal.

    `note` is thread-safe, because the emitter calls it from another thread.
    """

    def __init__(self, output: Output, size: int | None) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._counts = {"accepted": 0, "duplicates": 0, "rejected": 0}
        self._rejected: list[tuple[int, ApiFailure]] = []
        self._without_response = 0
        self._progress = Progress(
            TextColumn("{task.fields[sent]:,} events sent"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=output.notes,
            transient=True,
            disable=output.as_json or not output.notes.is_terminal,
        )
        self._task = self._progress.add_task("", total=size, sent=0)

    def drawn(self) -> Progress:
        """Return the progress bar. To show the bar, use it as a context manager."""
        return self._progress

    def note(self, number: int, size: int, future: "Future[dict[str, Any]]") -> None:
        """Count the server's response to the event in one line of the file."""
        error = future.exception()
        with self._lock:
            if error is None:
                self._counts["accepted"] += 1
                self._counts["duplicates"] += bool(future.result().get("duplicate"))
            elif isinstance(error, ApiUnreachable):
                self._without_response += 1
            else:
                self._counts["rejected"] += 1
                if isinstance(error, ApiFailure) and len(self._rejected) < _REPORTED_MAX:
                    self._rejected.append((number, error))
            self._progress.update(
                self._task, advance=size, sent=sum(self._counts.values()) - self._counts["duplicates"]
            )

    def report(self, source: str) -> None:
        """Print the counts. Raises CliError if the server did not accept every event."""
        rejected_lines = sorted(self._rejected, key=lambda each: each[0])
        if self._output.as_json:
            rejections = [{"line": number, "error": str(error)} for number, error in rejected_lines]
            self._output.json({**self._counts, "rejections": rejections})
        else:
            self._output.fields(dict(self._counts))
        for number, error in rejected_lines:
            self._output.note(f"line {number} of {input_name(source)}: {error}")
        if self._without_response:
            cause = f"the server did not respond to {self._without_response} of the events"
            raise CliError(cause, f"check the server, and {_REPEAT}", ExitCode.TRY_LATER)
        if rejected := self._counts["rejected"]:
            if all(isinstance(error, ApiError) and error.status in _NOT_ALLOWED for _, error in self._rejected):
                cause = f"the server rejected the key: {self._rejected[0][1]}"
                raise CliError(cause, f"correct UPLIFT_OPERATOR_KEY, and {_REPEAT}", ExitCode.NOT_ALLOWED)
            raise CliError(
                f"the server did not accept {rejected} of the events", f"correct the reported lines, and {_REPEAT}"
            )
