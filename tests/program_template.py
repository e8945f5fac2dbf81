"""A process that has imported both programs, and forks a child for each requested start. `tests.programs` runs it.

Its first argument is the file descriptor of a socket on which it gets requests. When the socket closes, it exits.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import typer.main

MODULES = ("uplift_server.cli.main", "uplift_server.app", "uplift_server.app.process", "uplift_webhooks.cli.main")
RUN_IN = {"uplift-server": "uplift_server.cli.main", "uplift": "uplift_webhooks.cli"}
"""The module whose function `run` each program runs."""
REQUEST_BYTES_MAX = 1024 * 1024


def next_start(requests: socket.socket) -> dict[str, Any]:
    """Fork a child for each request, and report when it exits. Return only in the child, with the request."""
    wakeup, wakeup_writer = socket.socketpair()
    wakeup_writer.setblocking(False)
    signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C also reaches this process, which must report the exits of its children until the tests end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reports: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, wakeup], [], [])
        if wakeup in ready:
            wakeup.recv(4096)
            report_ended(reports)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 4)
        if not message:
            os._exit(0)
        *streams, report_descriptor = descriptors
        report = socket.socket(fileno=report_descriptor)
        if pid := os.fork():
            for each in streams:
                os.close(each)
            reports[pid] = report
            with contextlib.suppress(OSError):
                report.send(b"%d" % pid)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, each in enumerate(streams):
            os.dup2(each, number)
            os.close(each)
        # Close the objects: otherwise, they would later close descriptors that the program has reused.
        for each in (requests, wakeup, wakeup_writer, report, *reports.values()):
            each.close()
        start: dict[str, Any] = json.loads(message)
        if start["has_own_session"]:
            os.setsid()
        return start


def report_ended(reports: dict[int, socket.socket]) -> None:
    """Send the exit codes of the children that have ended. A negative code is the number of a signal."""
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        # The test that started the child may have ended.
        with reports.pop(pid) as report, contextlib.suppress(OSError):
            report.send(b"%d" % os.waitstatus_to_exitcode(status))


def main() -> None:
    """Import the programs and define their commands, and then run one in each child."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    for name in MODULES:
        if app := getattr(importlib.import_module(name), "app", None):
            typer.main.get_command(app)
    # The children share these objects, and their garbage collections ignore them.
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, "a fork copies only one thread"
    start = next_start(socket.socket(fileno=int(sys.argv[1])))
    os.chdir(start["directory"])
    os.environ.clear()
    os.environ.update(start["environ"])
    sys.argv[:] = start["command"]

    importlib.import_module(RUN_IN[Path(sys.argv[0]).name]).run()


if __name__ == "__main__":
    main()
