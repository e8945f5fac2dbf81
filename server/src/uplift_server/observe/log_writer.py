"""A thread that writes the log from a bounded queue. The event loop never waits for a slow log reader."""

import contextlib
import io
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Final, TextIO, cast

import structlog

LINES_WAITING_MAX: Final = 20_000
"""Maximum number of queued lines (about 15 MiB). When the queue is full, the writer drops and counts new lines."""
TEXT_BYTES_PER_LINE: Final = 1024
"""The maximum size of a string that counts as one line, in bytes.

A longer string counts as several lines. Therefore, LINES_WAITING_MAX also limits the queue's memory use.
"""
GATHER_SECONDS: Final = 0.025
"""How long the thread waits for more lines after it wakes, in seconds.

Without this wait, the thread would compete with the event loop for each line.
"""
CLOSE_SECONDS: Final = 2.0
"""Maximum time, in seconds, that `close` waits until the queued lines are written."""
_POLL_SECONDS: Final = 0.005

Payload = bytes | Callable[[], bytes]
_log = structlog.get_logger()


class LogWriter:
    """Writes lines to a stream in the order in which they were queued. The class is thread-safe."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: queue.SimpleQueue[tuple[int, int, Payload] | None] = queue.SimpleQueue()
        # The lock is reentrant, because the garbage collector may emit a warning through this writer at any time.
        self._lock = threading.RLock()
        self._queued = 0
        self._done = 0
        self._reported = 0
        self._hurry = threading.Event()
        self._closed = False
        self.dropped = 0
        """The number of dropped lines. The writer drops lines if the queue is full or the stream fails."""
        self.error: OSError | None = None
        """The latest error of the stream, or None."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, payload: Payload, lines: int = 1) -> None:
        """Queue lines without waiting. Drop them if the queue is full or the writer is closed.

        `payload` contains the lines as bytes, or is a function that the thread calls to get the bytes. `lines` is the
        number of lines.
        """
        weight = lines + (len(payload) // TEXT_BYTES_PER_LINE if isinstance(payload, bytes) else 0)
        with self._lock:
            if self._closed or self._queued - self._done + weight > LINES_WAITING_MAX:
                self.dropped += lines
                return
            self._queued += weight
            self._queue.put((lines, weight, payload))

    def flush(self, within_s: float) -> bool:
        """Wait until the thread has written or dropped all lines that are queued now.

        Return False if this takes longer than `within_s`.
        """
        until, queued = time.monotonic() + within_s, self._queued
        self._hurry.set()
        while self._done < queued and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        self._hurry.clear()
        return self._done >= queued

    def close(self) -> bool:
        """Write queued lines for at most CLOSE_SECONDS, and drop all other lines. Return False if the thread hangs."""
        with self._lock:
            if not self._closed:
                self._queue.put(None)
            self._closed = True
        self._hurry.set()
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        closing = False
        while not closing:
            entries = [self._queue.get()]
            self._hurry.wait(GATHER_SECONDS)
            with contextlib.suppress(queue.Empty):
                while True:
                    entries.append(self._queue.get_nowait())
            closing = None in entries
            batch = [entry for entry in entries if entry is not None]
            weight = sum(entry[1] for entry in batch)
            try:
                self._write(b"".join(each if isinstance(each, bytes) else each() for _, _, each in batch))
            except Exception as error:
                # If the pipe is closed, the disk is full or a line cannot be encoded, the server drops the batch.
                self.error = error if isinstance(error, OSError) else self.error
                with self._lock:
                    self.dropped += sum(entry[0] for entry in batch)
                    self._done += weight
            else:
                with self._lock:
                    self._done += weight
                    missing, self._reported = self.dropped - self._reported, self.dropped
                if missing:
                    _log.warning("log lines dropped", count=missing)

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            # A raw stream may write only part of the content. A full pipe in non-blocking mode writes nothing.
            written: int | None = self._stream.write(rest)
            if written is None:
                self._until_writable()
            else:
                rest = rest[written:]
        self._stream.flush()

    def _until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLOUT)
        poll.poll()


class QueuedStream(io.TextIOBase):
    """A text stream that passes its lines to a LogWriter, and can replace `sys.stderr`.

    Only `flush` waits, for a limited time.
    """

    def __init__(self, stream: TextIO, writer: LogWriter, flush_seconds: float = 0) -> None:
        self._stream = stream
        self._writer = writer
        self._flush_seconds = flush_seconds
        self._encoding = stream.encoding or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the underlying stream."""
        return self._encoding

    def fileno(self) -> int:
        """Return the file descriptor of the underlying stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the underlying stream is a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Queue a string without waiting."""
        self._writer.put(text.encode(self._encoding, "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Wait up to `flush_seconds` for the thread to write the queued lines.

        Raises the underlying stream's error (OSError).
        """
        if self._flush_seconds:
            if not self._writer.flush(self._flush_seconds):
                _log.warning("output stream stalled", stream=getattr(self._stream, "name", None))
            if self._writer.error is not None:
                raise self._writer.error


def raw_stream(stream: TextIO) -> BinaryIO:
    """Return an unbuffered binary stream to the same file as a text stream.

    A buffered stream has a lock, which a hanging thread would still hold at exit. If the text stream has no file
    descriptor, return its buffer.
    """
    try:
        return cast(BinaryIO, open(stream.fileno(), "wb", buffering=0, closefd=False))
    except (OSError, ValueError):
        return stream.buffer
