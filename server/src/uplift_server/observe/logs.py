"""Ordinary log lines, on standard error: readable on a terminal, one JSON object a line elsewhere.

With the form `none` only warnings and errors are written, readable.

Every line has `at` (UTC, in ms), `level` and `message` first, and then whatever the caller adds as keywords. Bodies,
secrets and keys are no keywords: as a net below that rule, values under names that sound secret are masked.

A line that cannot be written is dropped: whoever logs, above all the loops of the engine, goes on.
"""

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import msgspec
import structlog

from uplift_server.core.timestamps import format_timestamp

MASKED_NAMES: Final = ("secret", "authorization", "password", "token", "operator_key", "api_key", "body", "signature")
MASK: Final = "[masked]"


REPEAT_SECONDS: Final = 60
"""After which a library's warning is written again; in between only counted, for clients may provoke them at will."""
WARNINGS_KNOWN_MAX: Final = 1_000

LogFormat = Literal["console", "json", "none"]


def configure_logs(log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send the lines of this process, and the warnings of libraries, to a stream (standard error by default)."""
    target = _Unfailing(sys.stderr if stream is None else stream)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        _masked,
        _begun,
    ]
    if log_format == "json":
        ending: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    else:
        ending = [
            structlog.dev.ConsoleRenderer(
                colors=supports_color(target),
                event_key="message",
                timestamp_key="at",
                # The default one shows local variables, among them secrets and bodies.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if log_format == "none" else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, target)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending], foreign_pre_chain=shared
        )
    )
    handler.addFilter(_once_a_minute())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Unfailing(io.TextIOBase):
    """A stream that drops what its own one refuses: a closed pipe or a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()


def _once_a_minute() -> Callable[[logging.LogRecord], bool]:
    """A filter that lets each warning through once in REPEAT_SECONDS, with the number of those held back."""
    held: dict[str, tuple[float, int]] = {}

    def passes(record: logging.LogRecord) -> bool:
        if record.levelno > logging.WARNING:
            return True
        text = str(record.msg)
        since, count = held.get(text, (0.0, 0))
        if 0 <= record.created - since < REPEAT_SECONDS:
            held[text] = since, count + 1
            return False
        if len(held) >= WARNINGS_KNOWN_MAX:
            held.clear()
        held[text] = record.created, 0
        if count:
            record.msg = f"{text} ({count} more since the last such line)"
        return True

    return passes


def supports_color(stream: TextIO | io.TextIOBase) -> bool:
    """Whether colours may be written to a stream: a terminal whose user did not say NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _begun(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The line with what all lines begin with: the lines of attempts have it in the same order and form."""
    level, message = line.pop("level"), line.pop("event")
    at = format_timestamp(time.time_ns() // 1_000_000)
    return {"at": at, "level": level, "message": message, **line}


def _masked(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in line:
        if any(part in name.lower() for part in MASKED_NAMES):
            line[name] = MASK
    return line


def _json(line: Any, **_options: Any) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()
