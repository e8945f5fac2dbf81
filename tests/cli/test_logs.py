"""Log lines: formats, masked secrets, and a bounded queue that drops lines instead of blocking the server."""

import io
import json
import logging
import re
import threading
from pathlib import Path

import pytest
import structlog

from uplift_server.observe import log_writer, logs
from uplift_server.observe.attempt_log import AttemptLine, AttemptLog, encode_lines, readable_lines
from uplift_server.observe.log_writer import LogWriter, QueuedStream

AT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def line(**changes: object) -> AttemptLine:
    values: dict[str, object] = {
        "at": 1_764_000_000_007,
        "next_attempt_at": None,
        "event": "0197f0c2-0000-7000-8000-000000000001",
        "delivery": "dlv_01",
        "endpoint": "ep_01",
        "account": "acc_01",
        "type": "movement.analytics.created",
        "attempt": 1,
        "trigger": "schedule",
        "outcome": "delivered",
        "delivery_status": "delivered",
        "duration_ms": 1.5,
        "status_code": 200,
        **changes,
    }
    return AttemptLine(**values)  # type: ignore[arg-type]


def failed(**changes: object) -> AttemptLine:
    return line(
        next_attempt_at=1_764_000_005_000,
        outcome="connect_error",
        delivery_status="pending",
        status_code=None,
        error="refused\x1b[2J, twice",
        **changes,
    )


def test_attempts_are_json_lines_like_all_others() -> None:
    first, second = (
        json.loads(each) for each in encode_lines([line(), failed(remote_address="192.0.2.1")]).splitlines()
    )
    assert list(first)[:3] == ["at", "level", "message"]
    assert first == {
        "at": "2025-11-24T16:00:00.007Z",
        "level": "info",
        "message": "attempt",
        "event": "0197f0c2-0000-7000-8000-000000000001",
        "delivery": "dlv_01",
        "endpoint": "ep_01",
        "account": "acc_01",
        "type": "movement.analytics.created",
        "attempt": 1,
        "trigger": "schedule",
        "outcome": "delivered",
        "delivery_status": "delivered",
        "duration_ms": 1.5,
        "status_code": 200,
    }
    assert second["next_attempt_at"] == "2025-11-24T16:00:05.000Z"
    assert second["error"] == "refused\x1b[2J, twice"
    assert second["remote_address"] == "192.0.2.1"
    assert "status_code" not in second


def test_a_text_line_shows_the_next_attempt_without_control_characters() -> None:
    text = readable_lines([line(), failed(), line(outcome="server_error", delivery_status="failed")]).decode()
    first, second, third = text.splitlines()
    assert "delivered" in first
    assert first.endswith("attempt 1 (schedule)")
    assert second.endswith("refused?[2J, twice  next attempt at 2025-11-24T16:00:05.000Z")
    assert third.endswith("now failed")
    assert "\x1b" not in text
    assert "\x1b[32mdelivered" in readable_lines([line()], colors=True).decode()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_queued_lines_are_written_before_close_returns(log_format: str) -> None:
    stream = io.BytesIO()
    writer = LogWriter(stream)
    log = AttemptLog(writer, log_format)  # type: ignore[arg-type]
    for _ in range(50):
        log.write([line(), failed()])
    assert writer.close()
    assert stream.getvalue().count(b"\n") == 100
    assert writer.dropped == 0


def test_the_format_none_ignores_attempts_and_writes_warnings() -> None:
    stream, ordinary = io.BytesIO(), io.StringIO()
    writer = LogWriter(stream)
    log = AttemptLog(writer, "none")
    log.write([line()])
    writer.close()
    assert (stream.getvalue(), writer.dropped) == (b"", 0)
    logs.configure_logs("none", ordinary)
    structlog.get_logger().info("not shown")
    structlog.get_logger().warning("shown")
    assert ordinary.getvalue().endswith("shown\n")
    assert ordinary.getvalue().count("\n") == 1


class StuckStream(io.BytesIO):
    """A stream that blocks each write until `free` is set, like a full pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.free = threading.Event()

    def write(self, content: object) -> int:
        self.entered.set()
        self.free.wait(10)
        return super().write(content)  # type: ignore[arg-type]


def test_a_full_queue_drops_lines_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "LINES_WAITING_MAX", 10)
    stream = StuckStream()
    writer = LogWriter(stream)
    log = AttemptLog(writer, "json")
    logs.configure_logs("json", QueuedStream(io.StringIO(), writer))
    log.write([line(attempt=number) for number in range(6)])
    assert stream.entered.wait(10)
    structlog.get_logger().info("ordinary")
    log.write([line(attempt=number) for number in range(6, 9)])
    log.write([line()] * 3)
    writer.put(b"x" * (log_writer.TEXT_BYTES_PER_LINE * 12))
    assert writer.dropped == 4
    stream.free.set()
    assert writer.flush(10)
    written = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert [each.get("attempt") for each in written[:10]] == [0, 1, 2, 3, 4, 5, None, 6, 7, 8]


def test_lines_that_the_stream_rejects_are_counted() -> None:
    stream = io.BytesIO()
    stream.close()
    writer = LogWriter(stream)
    log = AttemptLog(writer, "json")
    log.write([line(), line()])
    assert writer.close()
    assert writer.dropped == 2


def test_ordinary_lines_are_json_and_mask_secrets() -> None:
    stream = io.StringIO()
    logs.configure_logs("json", stream)
    structlog.get_logger().info("started", port=8420, operator_key="op_x", new_token="t", path=Path("x"))
    logging.getLogger("library").warning("slow %s", "thing")
    logging.getLogger("library").info("not shown")
    first, second = (json.loads(each) for each in stream.getvalue().splitlines())
    [attempt] = (json.loads(each) for each in encode_lines([line()]).splitlines())
    for each in (first, second):
        assert list(each)[:3] == list(attempt)[:3] == ["at", "level", "message"]
        assert re.fullmatch(AT, each["at"])
    assert re.fullmatch(AT, attempt["at"])
    del first["at"]
    assert first == {
        "level": "info",
        "message": "started",
        "port": 8420,
        "operator_key": "[masked]",
        "new_token": "[masked]",
        "path": "x",
    }
    assert second["message"] == "slow thing"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(log_format: str) -> None:
    stream = io.StringIO()
    logs.configure_logs(log_format, stream)  # type: ignore[arg-type]
    whsec = "local-value"
    try:
        raise ValueError(len(whsec))
    except ValueError:
        structlog.get_logger().exception("broken")
    assert "ValueError" in stream.getvalue()
    assert "local-value" not in stream.getvalue().replace('whsec = "local-value"', "")


def test_text_lines_begin_with_the_same_timestamp() -> None:
    stream = io.StringIO()
    logs.configure_logs("console", stream)
    structlog.get_logger().warning("slow", endpoint="ep_01")
    logging.getLogger("library").warning("slow thing")
    ours, theirs = stream.getvalue().splitlines()
    for each in (ours, theirs, readable_lines([line()]).decode()):
        assert re.match(f"{AT} ", each)
    assert "endpoint=ep_01" in ours


class ClosedPipe(io.StringIO):
    """A pipe with a closed reader."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("closed", [False, True])
def test_an_unwritable_line_raises_nothing(closed: bool) -> None:
    stream = ClosedPipe()
    if closed:
        stream.close()
    logs.configure_logs("console", stream)
    structlog.get_logger().error("not to be seen")
    logging.getLogger("library").error("nor this")


def test_warnings_about_requests_are_written_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    logs.configure_logs("json", stream)
    monkeypatch.setattr(logs, "WARNINGS_KNOWN_MAX", 3)

    def messages(at: float, text: str, level: int = logging.WARNING) -> list[str]:
        stream.seek(0)
        stream.truncate()
        name = logging.getLevelName(level).lower()
        record = logging.makeLogRecord({"levelno": level, "levelname": name, "msg": text, "created": at})
        logging.getLogger("a.library").handle(record)
        return [json.loads(each)["message"] for each in stream.getvalue().splitlines()]

    assert messages(1000, "Invalid HTTP request received.") == ["Invalid HTTP request received."]
    assert messages(1001, "Invalid HTTP request received.") == messages(1059, "Invalid HTTP request received.") == []
    assert messages(1002, "another") == ["another"]
    assert messages(1060, "Invalid HTTP request received.") == [
        "Invalid HTTP request received. (2 similar lines suppressed)"
    ]
    assert messages(1121, "Invalid HTTP request received.") == ["Invalid HTTP request received."]
    # Errors are never suppressed, and the number of remembered warnings has a limit.
    assert messages(1122, "broken", logging.ERROR) == messages(1122, "broken", logging.ERROR) == ["broken"]
    assert all(messages(1123, f"warning {number}") for number in range(5))
    assert messages(1124, "another") == ["another"]


def test_colors_are_only_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert logs.supports_color(Terminal())
    assert not logs.supports_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not logs.supports_color(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not logs.supports_color(Terminal())
