"""The command `uplift-server serve`, which runs the server."""

import asyncio
import atexit
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import structlog
import typer
import uvloop

from uplift_server import __version__
from uplift_server.cli.listening import more_exactly
from uplift_server.cli.reach import local_url, operator_key_path, store_operator_key
from uplift_server.cli.session import Session, command
from uplift_server.config import Config, ConfigError
from uplift_server.core.durations import format_duration
from uplift_server.core.limits import DRAIN_MS_MAX
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.observe.log_writer import LogWriter, QueuedStream, raw_stream
from uplift_server.observe.logs import configure_logs
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.output import Output

if TYPE_CHECKING:
    from uplift_server.app import Application

SECOND_SIGNAL: Final = 128 + signal.SIGINT
STOP_SECONDS_MAX: Final = 19.0
"""Time limit for a clean stop, in seconds. After this time, the process exits immediately.

If the SQLite file is lost, the time limit for saving its content is added.
"""
OUTPUT_SECONDS: Final = 0.5
"""Maximum time, in seconds, to write each startup line to standard output."""
_log = structlog.get_logger()


def register(app: typer.Typer) -> None:
    """Add the `serve` command to the program."""
    examples = (
        "uplift-server serve",
        "UPLIFT_PORT=9000 uplift-server serve --json",
        "uplift-server serve --role worker",
    )
    command(app, "serve", examples=examples)(serve)


Role = Annotated[
    ProcessRole,
    typer.Option("--role", help="Role of this process if several processes share a PostgreSQL database: api serves"
                 " requests, worker sends deliveries, all does both."),
]  # fmt: skip

NewDatabase = Annotated[
    bool,
    typer.Option(
        "--new-database", help="Create an empty SQLite database even if a secret.key from an earlier database exists."
    ),
]


def serve(session: Session, role: Role = ProcessRole.ALL, new_database: NewDatabase = False) -> None:
    """Run the server.

    The first start creates the database, the encryption key and an operator key. With SQLite, the server stores the
    operator key in operator.key, and prints it only on a terminal. With PostgreSQL, the server prints it once.

    With SQLite, the server backs up and upgrades a database from an earlier version. With PostgreSQL, before you start
    a new version, run `uplift-server migrate`.

    When the server is ready, it prints a line that contains "ready". With --json, the line is a JSON object with the
    fields kind, url, version and operator_key.

    After SIGTERM, SIGHUP or Ctrl-C, the server stops accepting requests and waits up to 16 seconds for attempts in
    flight. A second SIGTERM or Ctrl-C stops the server immediately. No accepted event is lost: after the next start,
    the server repeats unfinished attempts.
    """
    config = session.config()
    log_writer = _queue_streams()
    configure_logs(config.log_format)
    stop_limit = StopLimit(log_writer)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config, session.output, role, log_writer, stop_limit, new_database=new_database))
    finally:
        stop_limit.cancel()


def _queue_streams() -> LogWriter:
    """Queue all output to standard output and standard error, and write it in threads. Return the log writer.

    Without threads, the process would block if the program that reads these streams stopped reading.
    """
    streams = sys.stdout, sys.stderr
    writers = [LogWriter(raw_stream(each)) for each in streams]

    def restore() -> None:
        closed = [writer.close() for writer in writers]
        if all(closed):
            sys.stdout, sys.stderr = streams

    sys.stdout = QueuedStream(sys.stdout, writers[0], OUTPUT_SECONDS)
    sys.stderr = QueuedStream(sys.stderr, writers[1])
    atexit.register(restore)
    return writers[1]


async def _serve(
    config: Config,
    output: Output,
    role: ProcessRole,
    log_writer: LogWriter,
    stop_limit: "StopLimit",
    *,
    new_database: bool,
) -> None:
    # Measured: garbage collections took 0.17 s of a 1.05 s import.
    gc.disable()
    from uplift_server.app import Application  # noqa: PLC0415 - slow to load

    gc.enable()

    # Processes on PostgreSQL do not share a directory, so they do not keep the operator key in a file.
    keep_key = (lambda _: None) if config.on_postgresql else lambda key: store_operator_key(config, key)
    application = Application(config, keep_key=keep_key, role=role, new_database=new_database, log_writer=log_writer)
    # Install the signal handlers before startup, so that signals work during a long startup.
    stopper = Stopper(application, output, stop_limit)
    stopper.install()
    try:
        await application.start()
    except ConfigError as error:
        raise more_exactly(config, error) from error.__cause__
    try:
        _announce(application, config, output)
        _notify()
        await application.wait_stopped()
    finally:
        stop_limit.start(STOP_SECONDS_MAX, lambda: application.rescue_seconds_max)
        await application.stop()
    if application.barred is not None:
        raise application.barred
    if application.failed:
        raise CliError("an internal error stopped the server", "report the logged error, then start the server")
    output.note("Stopped.")


def _announce(application: "Application", config: Config, output: Output) -> None:
    """Print the URL of the ready server, and the operator key if the server created it during startup."""
    url = listening_url(config, application.address)
    key = application.new_operator_key
    if output.as_json:
        output.json({"kind": "ready", "url": url, "version": __version__, "operator_key": key})
        return
    output.line(f"Uplift Webhooks {__version__} ready at {url}")
    if key is None:
        return
    if config.on_postgresql:
        output.line(f"Operator key, shown only once: {key}")
    elif output.results.is_terminal:
        output.line(f"Operator key, shown only once (stored in {operator_key_path(config)}): {key}")
    else:
        # The output of services ends up in logs, which more people can read.
        output.line(f"Operator key stored in {operator_key_path(config)}")


def _notify() -> None:
    """Notify systemd that the server is ready; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        # A leading @ stands for the zero byte of an abstract socket.
        name = f"\0{address[1:]}" if address.startswith("@") else address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.sendto(b"READY=1", name)


def listening_url(config: Config, address: tuple[str, int]) -> str:
    """Return the URL to show: the configured host with the real port."""
    return local_url(config).rpartition(":")[0] + f":{address[1]}"


class StopLimit:
    """Ends the process if the shutdown takes too long, for example because a thread is waiting for a hung disk."""

    def __init__(self, log_writer: LogWriter) -> None:
        self._log_writer = log_writer
        self._timer: threading.Timer | None = None
        self._is_extended = False

    def start(self, seconds: float, extension: Callable[[], float]) -> None:
        """Start the timer if it is not running.

        After `seconds`, the timer calls `extension`, which returns the additional seconds for the shutdown.
        """
        if self._timer is None:
            self._start(seconds, extension)

    def _start(self, seconds: float, extension: Callable[[], float]) -> None:
        self._timer = threading.Timer(seconds, self._end, [extension])
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Cancel the timer after a complete stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, extension: Callable[[], float]) -> None:
        more_seconds = 0 if self._is_extended else extension()
        if more_seconds:
            self._is_extended = True
            self._start(more_seconds, extension)
            return
        _log.critical("shutdown timed out", cause="the database did not finish its writes in time; check the disk")
        self._log_writer.flush(OUTPUT_SECONDS)
        os._exit(ExitCode.TRY_LATER)


class Stopper:
    """Handles the stop signals.

    The first SIGTERM, SIGINT or SIGHUP stops the server cleanly. After this signal, SIGTERM and SIGINT end the process
    immediately, and SIGHUP has no effect.
    """

    def __init__(self, application: "Application", output: Output, stop_limit: StopLimit) -> None:
        self._application = application
        self._output = output
        self._stop_limit = stop_limit
        self._is_stopping = False

    def install(self) -> None:
        """Install the handlers for SIGTERM, SIGINT and SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        # Under nohup, the process keeps ignoring SIGHUP.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        # Ignore SIGHUP during a stop: a closing terminal repeats SIGHUP, and some supervisors send it after SIGTERM.
        if not self._is_stopping:
            self._signalled()

    def _signalled(self) -> None:
        if self._is_stopping:
            if self._application.rescue_seconds_max:
                self._output.note("The server is still saving the data of the lost database file.")
                return
            # Accepted events are on disk, so the process can exit now. An exception would first wait for running tasks.
            os._exit(SECOND_SIGNAL)
        self._is_stopping = True
        self._stop_limit.start(STOP_SECONDS_MAX, lambda: self._application.rescue_seconds_max)
        limit = format_duration(DRAIN_MS_MAX)
        how = "" if self._application.rescue_seconds_max else " Repeat the signal to stop now."
        self._output.note(f"Stopping: waiting up to {limit} for attempts in flight.{how}")
        self._application.request_stop()
