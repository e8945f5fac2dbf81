"""The size of an event in a database commit, in rows."""

from uplift_server.core.limits import ROW_BODY_BYTES


def commit_rows(deliveries: int, body_bytes: int) -> int:
    """Return the number of rows that an event and its deliveries count as. A large body counts as several rows."""
    return 1 + deliveries + body_bytes // ROW_BODY_BYTES
