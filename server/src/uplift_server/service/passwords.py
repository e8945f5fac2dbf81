"""Creates and checks password hashes with argon2id, in a few threads. Each hash takes 60 ms and 32 MiB."""

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

THREADS_MAX: Final = 2
NICENESS: Final = 10
"""The increase in the niceness of the hashing threads, so that many sign-ins do not slow down deliveries."""
WAITING_MAX: Final = 20
"""The maximum number of queued hash calculations. The last calculation in the queue waits for less than a second."""
_DUMMY_HASH: Final = "$argon2id$v=19$m=32768,t=3,p=1$ELwZrlc2qhW7A4Y9T0G2qw$5kBn/BvB3YKBZxE91GP9svVcxpfsfe2U/xdZ2DC5FW0"
"""The hash that the server checks for a person without a password, so that all checks take the same time.

This hash has the same parameters as all other hashes.
"""


class Passwords:
    """Hashes and verifies passwords."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS_MAX, "passwords", _lower_priority)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return the hash of a password with a new salt. Raises Busy."""
        return await self._run(_hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password matches the hash. Raises Busy.

        Without a hash, the password never matches, but the check takes the same time as with a hash.
        """
        given = password[: PASSWORD_CHARACTERS_MAX + 1]
        found = await self._run(_matches, password_hash or _DUMMY_HASH, given)
        return found and password_hash is not None

    async def _run(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        if self._waiting >= WAITING_MAX:
            raise Busy("Too many people are signing in. Try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1


def _lower_priority() -> None:
    """Lower the priority of the current thread on Linux.

    Other systems do not support a priority for a single thread.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)


def _hash(password: str) -> str:
    return _hasher().hash(normalize_password(password))


def _matches(password_hash: str, password: str) -> bool:
    # Import argon2 only at the first sign-in, because most processes never need it.
    from argon2.exceptions import VerifyMismatchError  # noqa: PLC0415

    try:
        return _hasher().verify(password_hash, normalize_password(password))
    except VerifyMismatchError:
        return False


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # noqa: PLC0415

    # These parameters exceed OWASP's minimum (19 MiB, 2 passes), and are suitable for a small machine.
    return PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)
