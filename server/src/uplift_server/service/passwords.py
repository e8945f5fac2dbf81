"""Passwords: hashed with argon2id, off the event loop and a few at a time, since each takes 60 ms and 32 MiB."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

from uplift_server.core.people.people import PASSWORD_CHARACTERS_MAX, normalize_password
from uplift_server.service.errors import Busy

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

AT_ONCE_MAX: Final = 2
NICENESS: Final = 10
"""How far their threads stand back: whoever floods the sign-in must not slow down events."""
WAITING_MAX: Final = 20
"""More are refused for the moment: the last one of them waits for less than a second."""
_NOBODYS: Final = "$argon2id$v=19$m=32768,t=3,p=1$ELwZrlc2qhW7A4Y9T0G2qw$5kBn/BvB3YKBZxE91GP9svVcxpfsfe2U/xdZ2DC5FW0"
"""The hash of a password that nobody knows, made as all others are."""


class Passwords:
    """Makes hashes, and says whether a password is the one behind a hash."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE_MAX, "passwords", _stand_back)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash of a password, with a salt of its own. Raises Busy."""
        return await self._run(_hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether this is the password; takes as long where there is no hash at all. Raises Busy."""
        given = password[: PASSWORD_CHARACTERS_MAX + 1]
        found = await self._run(_matches, password_hash or _NOBODYS, given)
        return found and password_hash is not None

    async def _run(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        if self._waiting >= WAITING_MAX:
            raise Busy("Too many sign in at the same time. Try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1


def _stand_back() -> None:
    """Let this thread have what others leave of the processor; only Linux knows priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)


def _hash(password: str) -> str:
    return _hasher().hash(normalize_password(password))


def _matches(password_hash: str, password: str) -> bool:
    # Nobody has signed in to a server that has not loaded this.
    from argon2.exceptions import VerifyMismatchError  # noqa: PLC0415

    try:
        return _hasher().verify(password_hash, normalize_password(password))
    except VerifyMismatchError:
        return False


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # noqa: PLC0415

    # More than OWASP's least (19 MiB, 2 passes), and little enough for a small machine.
    return PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)
