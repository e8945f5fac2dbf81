"""Effect of ten open dashboard pages, which reload after every change, on latency and CPU usage at half load."""

import http.client
import socket
import statistics
import threading
from contextlib import suppress
from operator import itemgetter
from typing import Final

from bench.half import half_rate
from bench.options import Options
from bench.pairs import p99_times
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.half_load import CONNECTIONS_MAX
from bench.scene import Measurement, Scene, conditions
from bench.server import Server
from bench.visitor import Visitor

_USUAL_S: Final = 10.0
_PAIRS: Final = 6
_PAGES: Final = ("overview", "endpoints", "events", "overview", "events")
"""The dashboard pages that ten users open, one page each. Two users open each entry."""


class _Open:
    """An open page: its stream, and a reload after every change."""

    def __init__(self, server: Server, stream: str, path: str) -> None:
        self._visitor = Visitor(server)
        self._path = path
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self._connection.request("GET", stream, headers={"cookie": self._visitor.cookie})
        assert self._connection.sock is not None
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        self.loaded = 0
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            while line := self._answer.readline():
                if line.startswith(b"event: change"):
                    self._visitor.load(self._path)
                    self.loaded += 1

    def close(self) -> None:
        """Close the page."""
        with suppress(OSError):
            # This ends the read that blocks the thread.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()
        self._visitor.close()


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    with Scene(options) as scene:
        scene.server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        rate, words = half_rate(scene, options)
        pairs, loaded = [], 0
        for number in range(1 if options.smoke else _PAIRS):
            runs = []
            # The second run has more history. That alone can raise p99 by a quarter, so the order alternates.
            for is_open in (False, True) if number % 2 == 0 else (True, False):
                run, count = _run(scene, secs, rate, is_open=is_open)
                loaded += count
                runs.append((is_open, run))
            alone, beside = (run for _, run in sorted(runs, key=itemgetter(0)))
            pairs.append((alone, beside))
        notes = list(dict.fromkeys(note for pair in pairs for run in pair for note in run.trouble)) + scene.trouble()
    pairs.sort(key=p99_times)
    alone, beside = pairs[len(pairs) // 2]
    return Report(
        row.name,
        row.title,
        [
            at_most(
                "p99 with ten open pages, relative to none, median",
                statistics.median(map(p99_times, pairs)),
                "times",
                1.2,
            ),
            Figure("accepted → received p99, ten open pages", beside.received_ms.get("p99", 0), "ms"),
            Figure("accepted → received p99, no open pages", alone.received_ms.get("p99", 0), "ms"),
            Figure("CPU cores of the server, ten open pages", beside.cores),
            Figure("CPU cores of the server, no open pages", alone.cores),
            Figure("page reloads", loaded / len(pairs) / max(secs, 1e-9), "per second"),
            at_most("lost", sum(run.lost for pair in pairs for run in pair), "events", 0),
        ],
        conditions(options, load=f"{words}, {secs:g} s each, {len(pairs)} pairs"),
        {},
        {"half load": alone.received_ms, "half load, ten open pages": beside.received_ms},
        notes,
    )


def _run(scene: Scene, secs: float, rate: float, *, is_open: bool) -> tuple[Measurement, int]:
    """Run the load with or without open pages. Return the measurement and the number of reloads."""
    pages = [_open(scene, number) for number in range(2 * len(_PAGES))] if is_open else []
    words = "half load, ten open pages" if is_open else "half load"
    run = scene.run(words, secs=secs, rate=rate, connections=CONNECTIONS_MAX)
    for page in pages:
        page.close()
    return run, sum(page.loaded for page in pages)


def _open(scene: Scene, number: int) -> _Open:
    start = f"/accounts/{scene.accounts[number % len(scene.accounts)]}"
    return _Open(scene.server, f"{start}/live", f"{start}/{_PAGES[number % len(_PAGES)]}")


ROW: Final = Row("live-pages", "latency at half load with ten open live pages", _measure, 120)
