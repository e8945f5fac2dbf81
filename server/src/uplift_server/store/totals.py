"""The number of open deliveries for each endpoint, which the statistics updater keeps exact."""

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import server_values
from uplift_server.store.schema_statistics import delivery_totals
from uplift_server.store.statistics import TOTALS_COUNTED, VALUES


class OpenCounts(NamedTuple):
    """An endpoint's counts of open deliveries.

    The counts exclude test deliveries, and deliveries of events that were stored before the statistics began.
    """

    pending: int
    held: int


NO_OPEN: OpenCounts = OpenCounts(0, 0)


def read(connection: Connection, endpoint_seqs: Collection[int] | None = None) -> dict[int, OpenCounts] | None:
    """Return the counts of open deliveries, by endpoint number.

    If `endpoint_seqs` is None, include all endpoints. Endpoints without open deliveries are omitted. Return None
    until the first count after an upgrade is complete.
    """
    counted = server_values.get(connection, VALUES)
    # An upgraded database has stored positions but no totals yet. A new database has neither positions nor totals.
    if counted and TOTALS_COUNTED not in counted:
        return None
    query = sa.select(delivery_totals.c.endpoint_seq, delivery_totals.c.pending, delivery_totals.c.held)
    if endpoint_seqs is not None:
        query = query.where(delivery_totals.c.endpoint_seq.in_(endpoint_seqs))
    return {endpoint_seq: OpenCounts(*counts) for endpoint_seq, *counts in connection.execute(query)}
