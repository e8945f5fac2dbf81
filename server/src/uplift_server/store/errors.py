"""The two ways a verb of the store can fail."""


class StoreError(Exception):
    """What every error of the store is."""


class Conflict(StoreError):
    """The write contradicts what is stored: a name is taken, or a delivery is not in a state that allows it."""


class Unavailable(StoreError):
    """The database cannot do it now: full disk, read-only file, lost connection, too much waiting. Try again later."""
