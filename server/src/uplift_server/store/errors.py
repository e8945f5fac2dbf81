"""The ways a verb of the store can fail."""


class StoreError(Exception):
    """What every foreseen error of the store is."""


class Conflict(StoreError):
    """The write contradicts what is stored: a name is taken, or a delivery is not in a state that allows it."""


class InFlight(Conflict):
    """A process has leased the delivery: an attempt is in flight, or it waits in that process's memory."""


class Missing(StoreError):
    """What is to be changed is not there any more."""


class Unavailable(StoreError):
    """The database cannot do it now: full disk, read-only file, lost connection, too much waiting. Try again later."""


class InUse(Unavailable):
    """Another process has it for itself."""


class Misaddressed(Unavailable):
    """It cannot be used as it is addressed, now or later."""


class Rejected(Exception):
    """The database never will: a defect of ours, or data that it cannot hold. Trying again is of no use."""
