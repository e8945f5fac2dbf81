"""The index of ordered deliveries, and the trigger that unblocks the next delivery of an order group.

At any time, one pending delivery in an order group is due, scheduled or leased, and has a due time. The other pending
deliveries are blocked: they have no due time. When a delivery ends or is held, the trigger gives a due time to the
first open delivery of the group, unless that delivery is held. Therefore, every statement that ends a delivery unblocks
the next delivery, even a statement from an earlier release.

Resends are an exception: at a person's request, they can be due together with other deliveries of their group.
"""

from typing import Final

import sqlalchemy as sa

from uplift_server.store import locks, status_sql
from uplift_server.store.schema import deliveries
from uplift_server.store.status_triggers import create_status_trigger

_ORDERED: Final = status_sql.ordered()
sa.Index(
    "deliveries_ordered",
    deliveries.c.endpoint_seq,
    deliveries.c.order_group,
    deliveries.c.due_at,
    deliveries.c.event_seq,
    sqlite_where=sa.text(_ORDERED),
    postgresql_where=sa.text(_ORDERED),
)

_LEAVES: Final = (
    f"OLD.order_group IS NOT NULL AND OLD.status IN ({status_sql.OPEN}) AND NEW.status <> {status_sql.PENDING}"
)
_OF_GROUP: Final = (
    f"d.endpoint_seq = NEW.endpoint_seq AND d.order_group = OLD.order_group AND {status_sql.ordered('d')}"
)
_UNBLOCK: Final = (
    "UPDATE deliveries SET due_at = coalesce(NEW.completed_at, 0)"  # noqa: S608 - contains only constants
    " WHERE endpoint_seq = NEW.endpoint_seq AND event_seq = (SELECT d.event_seq FROM deliveries d"
    f" WHERE {_OF_GROUP} AND d.due_at IS NULL ORDER BY d.event_seq LIMIT 1)"
    f" AND {status_sql.blocked()}"
    f" AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE {_OF_GROUP} AND d.due_at IS NOT NULL);"
)
# The lock and the update are separate statements, so that the update sees the previous lock holder's changes.
_LOCK: Final = f"PERFORM pg_advisory_xact_lock({locks.ORDER_CLASS}, (NEW.endpoint_seq % {locks.ORDER_SLOTS})::int); "

create_status_trigger("deliveries_unblock", condition=_LEAVES, statement=_UNBLOCK, lock=_LOCK)
