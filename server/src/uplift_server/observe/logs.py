"""Writes log lines to standard error: readable text on a terminal, otherwise one JSON object per line.

The format `none` writes only warnings and errors, as readable text. Every line starts with `at` (a UTC timestamp),
`level` and `message`, followed by the caller's fields. Never log bodies, secrets or keys. As a precaution, the log
masks fields whose names contain a word such as `body` or `secret`. If the log cannot write a line, it drops the line,
and the caller continues.
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
"""The minimum interval between identical warnings from a library, in seconds.

The log suppresses repeats within this interval, because clients can cause many warnings. The next warning contains the
number of suppressed repeats.
"""
WARNINGS_KNOWN_MAX: Final = 1_000

LogFormat = Literal["console", "json", "none"]


def configure_logs(log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send the log lines of this process and warnings from libraries to `stream` (default: standard error)."""
    target = _TolerantStream(sys.stderr if stream is None else stream)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        _masked,
        _reordered,
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
                # The default formatter shows local variables, which can contain secrets and bodies.
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


class _TolerantStream(io.TextIOBase):
    """A stream that ignores failed writes, for example to a closed pipe or a full disk."""

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
    """Return a filter that passes the same warning at most once every REPEAT_SECONDS seconds.

    The filter adds the number of suppressed repeats to the warning. The filter passes every error.
    """
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
            record.msg = f"{text} ({count} similar lines suppressed)"
        return True

    return passes


def supports_color(stream: TextIO | io.TextIOBase) -> bool:
    """Return whether a stream is a terminal that supports colors and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _reordered(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the common fields of a line first, in the same order and format as in the lines about attempts."""
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
