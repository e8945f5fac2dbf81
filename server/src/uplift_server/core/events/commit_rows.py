"""The size of an event in a database commit, in rows."""

from uplift_server.core.limits import ROW_BODY_BYTES


def commit_rows(deliveries: int, body_bytes: int) -> int:
    """Return the size of an event and its deliveries in a commit, in rows.

    The event and each delivery count as one row. The body adds one row for every ROW_BODY_BYTES bytes.
    """
    return 1 + deliveries + body_bytes // ROW_BODY_BYTES
