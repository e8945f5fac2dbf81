"""Runs the processes of a row (receiver, server and load generator), and measures the deliveries."""

import json
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.load import FIRST_SEQ, Plan
from bench.meter import MemoryWatch, Others, cpu_s
from bench.options import Options
from bench.processes import start, stop
from bench.progress import bar
from bench.receiving import Receiver
from bench.server import KEY, Server, ServerFailed

_IDLE_S: Final = 120.0
"""The missing events count as lost when no event has arrived for this time, in seconds.

The time is longer than a lease, because the server repeats an interrupted attempt when its lease expires.
"""
_LOOK_S: Final = 0.25
_SHOW_EVERY_S: Final = 2.0
# After the last delivery, the server needs this time to store the outcome.
_SETTLE_S: Final = 0.3
BODY_BYTES: Final = 1024
# Above these values, the report contains a warning.
_LATE_MS: Final = 1.0
_OTHERS_CORES: Final = 0.1


@dataclass
class Measurement:
    """One run: load, deliveries and cost."""

    load: dict[str, Any]
    """The load generator's result, with the fields of `bench.load.Result`."""
    accepted: int
    delivered: int
    lost: int
    """Number of accepted events that were not delivered in time, excluding events for endpoints that never respond."""
    duplicates: int
    per_s: float
    """Delivered events per second, over the time from the first request to the last delivery."""
    drain_s: float
    cpu_us: float
    """CPU time of the server's processes per delivered event, in microseconds."""
    cores: float
    memory_mib: float
    others_cores: float
    """Mean number of CPU cores that other processes used during the run."""
    accept_ms: dict[str, float] = field(default_factory=dict)
    received_ms: dict[str, float] = field(default_factory=dict)
    """Percentiles of the time from an event's scheduled time to its arrival at an `/ok` path, in ms."""

    @property
    def trouble(self) -> list[str]:
        """Reasons to doubt the measurement, as sentences."""
        found = []
        refused = {code: count for code, count in self.load["codes"].items() if code != "202"}
        if refused:
            found.append(f"Some requests were rejected: {refused}; example response: {self.load['refusal'] or 'none'}")
        late = self.load["late_ms"].get("p99", 0.0)
        if late > _LATE_MS:
            found.append(f"The load generator was late: p99 {late} ms.")
        if self.others_cores > _OTHERS_CORES:
            found.append(
                f"Other processes used {self.others_cores:.2f} cores during the run: repeat it on an idle machine."
            )
        return found


class Scene(AbstractContextManager["Scene"]):
    """A receiver, and a server on a new database. Both stop at the end of the block."""

    def __init__(
        self,
        options: Options,
        *,
        settings: dict[str, str] | None = None,
        directory: Path | None = None,
        role: str = "all",
    ) -> None:
        self.options = options
        self._given = directory
        self._settings = settings
        self._role = role
        self._stack = ExitStack()
        self._seq = FIRST_SEQ
        self.accounts: list[str] = []
        self.silent: set[int] = set()
        """Indexes of the accounts whose endpoint never responds."""
        self.extra_servers: list[Server] = []
        """Additional server processes on the same database."""
        self.others: tuple[int, ...] = ()
        """Process IDs of the run's processes that are not descendants of this process, such as PostgreSQL."""

    def __enter__(self) -> "Scene":
        with ExitStack() as stack:
            self.directory = self._given or workspace(self.options, stack)
            self.receiver = stack.enter_context(Receiver())
            self.server = Server(self.directory, self.options, self._settings, self._role)
            # The database is temporary, so the server needs no clean stop.
            stack.callback(self.server.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def servers(self) -> list[Server]:
        """All processes of the server."""
        return [self.server, *self.extra_servers]

    def trouble(self) -> list[str]:
        """The warnings of the server, as sentences."""
        lines = [line for server in self.servers for line in server.warnings()]
        return [f"The server logged {len(lines)} warnings or errors. The first one: {lines[0][:300]}"] if lines else []

    def add(self, paths: list[str]) -> None:
        """Create an account with one endpoint for each path of the receiver."""
        first = len(self.accounts)
        self.accounts += self.server.add_endpoints([self.receiver.url(path) for path in paths])
        self.silent |= {first + index for index, path in enumerate(paths) if path.startswith("hang")}

    def warm_up(self) -> None:
        """Run a short load, to open connections and fill caches."""
        self.run("warming up", secs=self.options.warm_up_s)

    def run(
        self,
        label: str,
        *,
        secs: float,
        connections: int | None = None,
        rate: float = 0.0,
        batch: int = 1,
        keys: int = 0,
    ) -> Measurement:
        """Run the load for `secs`, wait for all deliveries, and return the measurement."""
        # Reset before the generator starts. On a busy machine, the generator could otherwise send before the reset.
        self.receiver.reset()
        load = self.begin(secs=secs, connections=connections, rate=rate, batch=batch, keys=keys)
        roots = [server.pid for server in self.servers]
        cpu, others, began = sum(map(cpu_s, roots)), Others(*self.others), time.monotonic()
        with MemoryWatch(roots) as memory, bar(label, secs) as step:
            while load.poll() is None:
                elapsed = time.monotonic() - began
                step(elapsed)
                # Four requests per second to the receiver, and the drawing of a rate, added 0.7 ms to the p99 latency.
                time.sleep(min(_SHOW_EVERY_S, max(_LOOK_S, secs - elapsed)))
            result, accepted = self.finish(load)
        drain = time.monotonic()
        lost = self.drain(accepted)
        drained = time.monotonic() - drain
        time.sleep(_SETTLE_S)
        used, elapsed = sum(map(cpu_s, roots)) - cpu, time.monotonic() - began
        found = self.receiver.statistics()
        answering = [counts for kind, counts in found["counts"].items() if kind != "hang"]
        delivered = sum(counts["unique"] for counts in answering)
        span = max((found["last_at"] - result["began_at"]) / 1e9, result["secs"], 1e-9)
        return Measurement(
            load=result,
            accepted=len(accepted),
            delivered=delivered,
            lost=len(lost),
            duplicates=sum(counts["duplicates"] for counts in answering),
            per_s=delivered / span,
            drain_s=drained,
            cpu_us=used / max(1, delivered) * 1e6,
            cores=used / elapsed,
            memory_mib=memory.highest_mib,
            others_cores=others.cores(),
            accept_ms=result["accept_ms"],
            received_ms=found["latency_ms"].get("ok", {}),
        )

    # ---- the parts of a run, for rows that interfere with it

    def begin(
        self, *, secs: float, connections: int | None = None, rate: float = 0.0, batch: int = 1, keys: int = 0
    ) -> subprocess.Popen[bytes]:
        """Start the generator. It connects before it sends."""
        plan = Plan(
            ports=[server.port for server in self.servers if server.role != "worker"],
            key=KEY,
            accounts=self.accounts,
            secs=secs,
            connections=connections or self.options.connections,
            rate=rate,
            batch=batch,
            first_seq=self._seq,
            body_bytes=BODY_BYTES,
            keys=keys,
            accepted_file=str(self.directory / "accepted"),
        )
        file = self.directory / "plan.json"
        file.write_text(json.dumps(asdict(plan)))
        process = start([sys.executable, "-m", "bench.load", file])
        self._stack.callback(stop, process)
        return process

    def finish(self, load: subprocess.Popen[bytes]) -> tuple[dict[str, Any], set[int]]:
        """Return the generator's result, and the numbers of the accepted events."""
        out, _ = load.communicate(timeout=120)
        if load.returncode:
            raise ServerFailed(f"the load generator exited with code {load.returncode}")
        result: dict[str, Any] = json.loads(out)
        self._seq += result["sent"]
        numbers = array("q")
        numbers.frombytes((self.directory / "accepted").read_bytes())
        return result, set(numbers)

    def drain(self, accepted: set[int]) -> set[int]:
        """Wait for all accepted events. Return the missing events if none has arrived for a long time."""
        count = len(self.accounts)
        wanted = {seq for seq in accepted if seq % count not in self.silent} if self.silent else accepted
        unique, until = -1, 0.0
        with bar("waiting for the last deliveries", len(wanted)) as step:
            while True:
                previous, unique = unique, self.receiver.unique()
                if unique > previous:
                    until = time.monotonic() + _IDLE_S
                    step(unique)
                has_ended = time.monotonic() >= until
                # The count may be complete only because it includes an event whose 202 was lost.
                if has_ended or unique >= len(wanted):
                    missing = wanted - self.receiver.seen()
                    if has_ended or not missing:
                        return missing
                    time.sleep(_LOOK_S)
                time.sleep(_LOOK_S / 5)


def workspace(options: Options, stack: ExitStack) -> Path:
    """Create a directory on the measured disk, removed when the stack closes."""
    options.directory.mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(prefix="uplift-bench-", dir=options.directory, ignore_cleanup_errors=True)
    return Path(stack.enter_context(made))


def conditions(options: Options, **more: str) -> dict[str, str]:
    """Return the conditions of all rows."""
    return {
        "payload": f"{BODY_BYTES} bytes per event",
        "fan-out": "one endpoint per event",
        "endpoints": str(options.endpoints),
        "durability": "SQLite, WAL, synchronous=FULL, response 202 after the commit",
    } | more
