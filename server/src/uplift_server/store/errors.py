"""Errors of the store."""

from typing import ClassVar


class StoreError(Exception):
    """Base class of the errors that store operations are expected to raise."""


class Conflict(StoreError):
    """The write conflicts with stored data, such as a name that is already used or the status of a delivery."""


class InFlight(Conflict):
    """A process has leased the delivery.

    An attempt is in flight, or the delivery waits in that process's memory.
    """


class Missing(StoreError):
    """The object that the caller wants to change no longer exists."""


class Unavailable(StoreError):
    """The database cannot execute the operation now. Try again later.

    Possible causes are a full disk, a read-only file, a lost connection or a long queue.
    """

    advice: ClassVar[str] = "The database is temporarily unavailable. Try again in a moment."
    """The error message for API callers."""


class InUse(Unavailable):
    """Another process holds the database lock."""


class Misaddressed(Unavailable):
    """The database cannot be used at the configured address. A retry does not help."""


class Rejected(Exception):
    """The database always rejects the operation, because of a bug or a value that the database cannot store.

    Do not retry.
    """
