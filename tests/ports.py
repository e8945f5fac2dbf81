"""Free ports of 127.0.0.1 for the processes that tests start."""

import contextlib
import itertools
import os
import random
import socket
from typing import Final

from tests import engines

_PORTS: Final = 2_000
_OFFSETS: Final = itertools.cycle(random.sample(range(_PORTS), _PORTS))
"""The offsets of all ports in random order, so that two processes that start together get different ports."""


def free_port() -> int:
    """Return an unused port below the range for outgoing connections, so that it stays free between two starts.

    Each parallel test process has its own range. Processes with different engines count from different ends.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
    if engines.chosen().name != "sqlite":
        worker = 7 - worker
    for _ in range(100):
        port = 15_000 + _PORTS * worker + next(_OFFSETS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
