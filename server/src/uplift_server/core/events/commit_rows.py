"""Measures the size of events in a database commit, as a number of rows."""

from uplift_server.core.limits import ROW_BODY_BYTES


def commit_rows(deliveries: int, body_bytes: int) -> int:
    """Return the size of an event and its deliveries in a commit, as a number of rows.

    The event and each delivery count as one row each. Every full ROW_BODY_BYTES bytes of the body count as one more
    row.
    """
    return 1 + deliveries + body_bytes // ROW_BODY_BYTES
