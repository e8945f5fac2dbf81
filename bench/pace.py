"""Calls a function at a fixed rate, with a kernel timer, because event loops round their timers to milliseconds."""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class Pace:
    """Timer that calls `tick(intended)` at a fixed rate, and catches up after a delay.

    `intended` is the scheduled time of the call on the monotonic clock, in ns. Measure latencies from it, so that they
    include the delays caused by a stall.
    """

    def __init__(self, rate: float, tick: Callable[[int], None]) -> None:
        self._gap = round(1e9 / rate)
        self._tick = tick
        self._next = time.monotonic_ns() + self._gap
        self._handle: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        timer = _Timer(_timespec(self._gap), _timespec(self._next))
        if _libc.timerfd_settime(self._handle, _ABSOLUTE, ctypes.byref(timer), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        asyncio.get_running_loop().add_reader(self._handle, self._due)

    def _due(self) -> None:
        try:
            times = int.from_bytes(os.read(self._handle, 8), "little")
        except BlockingIOError:
            return
        for _ in range(times):
            self._tick(self._next)
            self._next += self._gap

    def stop(self) -> None:
        """Stop the calls."""
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)


def _timespec(nanoseconds: int) -> _Timespec:
    return _Timespec(*divmod(nanoseconds, 1_000_000_000))
