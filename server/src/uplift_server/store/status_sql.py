"""SQL conditions on delivery status, with the status numbers of `core.lifecycle`.

The partial indexes use these conditions. A database uses such an index only if the statement repeats the condition
of the index literally.
"""

from typing import Final

from uplift_server.core import lifecycle
from uplift_server.core.lifecycle import Status, Trigger

PENDING: Final = int(Status.PENDING)
DELIVERED: Final = int(Status.DELIVERED)
FAILED: Final = int(Status.FAILED)
HELD: Final = int(Status.HELD)
CANCELLED: Final = int(Status.CANCELLED)
CREATED: Final = -1
"""The placeholder for the old status in `delivery_changes` if a replay has created the delivery."""
SCHEDULE: Final = int(Trigger.SCHEDULE)
REPLAY: Final = int(Trigger.REPLAY)
TEST: Final = int(Trigger.TEST)
OPEN: Final = ", ".join(str(int(status)) for status in lifecycle.OPEN)
"""The numbers of the open statuses (pending and held) for an `IN` list."""


def waiting(alias: str = "") -> str:
    """Return the condition for waiting deliveries (pending and not leased), as in the index `deliveries_due`."""
    d = _prefix(alias)
    return f"{d}status = {PENDING} AND {d}lease_owner = 0"


def leased(alias: str = "") -> str:
    """Return the condition for leased deliveries, as in the index `deliveries_leased`."""
    d = _prefix(alias)
    return f"{d}status = {PENDING} AND {d}lease_owner <> 0"


def held(alias: str = "") -> str:
    """Return the condition for held deliveries, as in the index `deliveries_held`."""
    return f"{_prefix(alias)}status = {HELD}"


def blocked(alias: str = "") -> str:
    """Return the condition for blocked deliveries, which wait for an earlier delivery in their order group."""
    return f"{waiting(alias)} AND {_prefix(alias)}due_at IS NULL"


def ordered(alias: str = "") -> str:
    """Return the condition for open deliveries in an order group, as in the index `deliveries_ordered`."""
    d = _prefix(alias)
    return f"{d}order_group IS NOT NULL AND {d}status IN ({OPEN})"


def unsuccessful(alias: str = "") -> str:
    """Return the condition for failed, held and cancelled deliveries, as in the index `deliveries_unsuccessful`."""
    return f"{_prefix(alias)}status > {DELIVERED}"


def _prefix(alias: str) -> str:
    return f"{alias}." if alias else ""
