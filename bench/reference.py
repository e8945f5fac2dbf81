"""Measures limits of the machine during a row's run, because ratios to these limits vary less than absolute figures."""

import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.clients.request import wrk_script
from bench.processes import ROOT, environment

BATCH: Final = 100
_ROW: Final = b"x" * 1024


@dataclass(frozen=True)
class Posted:
    """The result of a client."""

    requests: int
    secs: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.secs

    @property
    def per_cpu_s(self) -> float:
        """Requests per second of the client's CPU time."""
        return self.requests / self.cpu_s


def commits(directory: Path, secs: float) -> dict[str, float]:
    """Return durable SQLite commits per second with one row of 1 KiB, and rows per second in commits of 100."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="uplift-commits-", dir=directory) as made:
        connection = sqlite3.connect(Path(made) / "raw.db", isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        for name, rows in (("raw commits/s", 1), (f"raw rows/s in commits of {BATCH}", BATCH)):
            batch, count, began = [(_ROW,)] * rows, 0, time.monotonic()
            while (elapsed := time.monotonic() - began) < secs:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO events (body) VALUES (?)", batch)
                connection.execute("COMMIT")
                count += rows
            found[name] = round(count / elapsed)
        connection.close()
    return found


def requests(port: int, directory: Path, secs: float, connections: int) -> dict[str, float]:
    """Return the requests per second from `wrk`, or else from the bare client, to the receiver."""
    if wrk_installed():
        return {"wrk requests/s to the receiver": round(wrk(port, "/ok/reference", directory, secs, connections).per_s)}
    posted = client("bare", port, "/ok/reference", secs, connections)
    return {"bare requests/s to the receiver": round(posted.per_s)}


def wrk_installed() -> bool:
    """Whether `wrk` is available."""
    return shutil.which("wrk") is not None


def wrk(port: int, path: str, directory: Path, secs: float, connections: int, core: int | None = None) -> Posted:
    """Post with `wrk`, optionally on one core."""
    script = directory / "wrk.lua"
    script.write_text(wrk_script(path))
    whole = max(1, round(secs))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(pinned(command, core), capture_output=True, text=True, check=True, timeout=whole + 30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    match = re.search(r"(\d+) requests in ([\d.]+)s", run.stdout)
    assert match is not None, run.stdout
    if "Non-2xx" in run.stdout:
        raise RuntimeError(f"wrk received errors:\n{run.stdout}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Posted(int(match[1]), float(match[2]), used)


def client(
    name: str, port: int, path: str, secs: float, connections: int, core: int | None = None, *options: str
) -> Posted:
    """Post with one of `bench.clients`."""
    command = [sys.executable, "-m", f"bench.clients.{name}", str(port), path, str(connections), str(secs), *options]
    run = subprocess.run(
        pinned(command, core), capture_output=True, check=True, timeout=secs + 30, env=environment(), cwd=ROOT
    )
    found = json.loads(run.stdout)
    if found.get("failures"):
        raise RuntimeError(f"{found['failures']} requests of {name} failed")
    return Posted(found["requests"], found["secs"], found["cpu_s"])


def pinned(command: list[str], core: int | None) -> list[str]:
    """Return the command, limited to one core if the system supports it."""
    if core is None or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(core), *command]


def cores() -> list[int]:
    """Return the numbers of the available cores."""
    return sorted(os.sched_getaffinity(0))
