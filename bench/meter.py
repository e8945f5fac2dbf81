"""Resource usage of process trees, from /proc."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


def tree(root: int) -> set[int]:
    """Return the process IDs of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [root]
    while todo:
        process = todo.pop()
        if process not in found:
            found.add(process)
            todo += children.get(process, [])
    return found


def cpu_s(root: int) -> float:
    """Return the user and system time of the tree in seconds, including ended children."""
    ticks = 0
    for process in tree(root):
        # utime, stime, cutime, cstime: the time of an ended child moves to its parent, so it is counted once.
        ticks += sum(int(value) for value in _fields(process)[11:15])
    return ticks * _TICK_S


class Others:
    """CPU usage of other processes, which distorts measurements."""

    def __init__(self, *ours: int) -> None:
        """`ours` are processes of the run that are not descendants of this one."""
        self._ours = (os.getpid(), *ours)
        self._began = time.monotonic()
        self._busy = self._busy_s()

    def cores(self) -> float:
        """Return the mean number of cores that others used since the start, including the hypervisor's steal time."""
        return max(0.0, (self._busy_s() - self._busy) / (time.monotonic() - self._began))

    def _busy_s(self) -> float:
        return _busy_s() - sum(map(cpu_s, self._ours))


def _busy_s() -> float:
    """Return the CPU time of the machine, without idle and I/O wait."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(value) for value in (_PROC / "stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def memory_mib(root: int) -> float:
    """Return the proportional set size of the tree in MiB. Shared pages count once."""
    total = 0
    for process in tree(root):
        try:
            rollup = (_PROC / str(process) / "smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


class MemoryWatch:
    """Samples the memory of process trees during the block, and keeps the maximum."""

    def __init__(self, roots: Sequence[int], every_s: float = 2.0) -> None:
        self._roots = roots
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.highest_mib = 0.0

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        self.highest_mib = max(self.highest_mib, sum(map(memory_mib, self._roots)))


def _fields(process: int) -> list[str]:
    """Return the fields after the name in /proc/PID/stat; empty for an ended process."""
    try:
        return (_PROC / str(process) / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
