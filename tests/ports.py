"""Ports for the servers of the tests."""

import contextlib
import os
import random
import socket


def free_port() -> int:
    """Return an unused port below the range for outgoing connections, so that it stays free between two starts.

    Each parallel test process has its own range.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4
    for _ in range(100):
        port = 15_000 + 4_000 * worker + random.randrange(4_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
