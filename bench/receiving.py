"""Starts the receiver process, and reads and resets its counts."""

import http.client
import json
import subprocess
import sys
from array import array
from contextlib import AbstractContextManager
from typing import Any

from bench.processes import start, stop


class Receiver(AbstractContextManager["Receiver"]):
    """Context manager that runs the receiver."""

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness

    def __enter__(self) -> "Receiver":
        self._process = start([sys.executable, "-m", "bench.receiver"], stdin=subprocess.PIPE, niceness=self._niceness)
        assert self._process.stdout is not None
        self.port, self._control = json.loads(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)

    def url(self, path: str) -> str:
        """Return an endpoint's URL."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def reset(self) -> None:
        """Reset the counts."""
        self._ask("/reset")

    def unique(self) -> int:
        """Return the number of unique events, summed over the paths that respond."""
        counts = json.loads(self._ask("/counts"))
        return sum(found["unique"] for kind, found in counts.items() if kind != "hang")

    def statistics(self) -> dict[str, Any]:
        """Return the counts by kind of path, the latencies, and the times of the first and last delivery."""
        found: dict[str, Any] = json.loads(self._ask("/statistics"))
        return found

    def seen(self) -> set[int]:
        """Return the sequence numbers of the events on paths that respond."""
        numbers = array("q")
        numbers.frombytes(self._ask("/seen"))
        return set(numbers)

    def _ask(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()
