"""Add ordered deliveries: order groups, and a trigger that unblocks the next delivery of a group."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | Sequence[str] | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# Servers that run 0.1.2 create no ordered deliveries. If they end one, the trigger unblocks the next delivery.
needs_release = "0.1.2"

_ORDERED: Final = "order_group IS NOT NULL AND status IN (0, 3)"
_LEAVES: Final = "OLD.order_group IS NOT NULL AND OLD.status IN (0, 3) AND NEW.status <> 0"
_OF_GROUP: Final = (
    "d.endpoint_seq = NEW.endpoint_seq AND d.order_group = OLD.order_group"
    " AND d.order_group IS NOT NULL AND d.status IN (0, 3)"
)
_UNBLOCK: Final = (
    "UPDATE deliveries SET due_at = coalesce(NEW.completed_at, 0)"
    " WHERE endpoint_seq = NEW.endpoint_seq AND event_seq = (SELECT d.event_seq FROM deliveries d"
    f" WHERE {_OF_GROUP} AND d.due_at IS NULL ORDER BY d.event_seq LIMIT 1)"
    " AND status = 0 AND lease_owner = 0 AND due_at IS NULL"
    f" AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE {_OF_GROUP} AND d.due_at IS NOT NULL);"
)
_ON_SQLITE: Final = (
    f"CREATE TRIGGER deliveries_unblock AFTER UPDATE OF status ON deliveries WHEN {_LEAVES} BEGIN {_UNBLOCK} END"
)
_ON_POSTGRESQL: Final = (
    "CREATE FUNCTION deliveries_unblock() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN PERFORM pg_advisory_xact_lock(1869767781, (NEW.endpoint_seq % 1024)::int);"
    f" {_UNBLOCK} RETURN NULL; END $$",
    "CREATE TRIGGER deliveries_unblock AFTER UPDATE OF status ON deliveries FOR EACH ROW"
    f" WHEN ({_LEAVES}) EXECUTE FUNCTION deliveries_unblock()",
)


def upgrade() -> None:
    """Add three columns, an index and a trigger. Existing deliveries are not ordered."""
    op.add_column("endpoints", sa.Column("ordering", sa.SmallInteger()))
    op.add_column(
        "events", sa.Column("ordering_key", sa.Text(), comment="events with the same key can be delivered in order")
    )
    op.add_column(
        "deliveries",
        sa.Column("order_group", sa.BigInteger(), comment="0: the endpoint; otherwise a hash of the ordering key"),
    )
    op.create_index(
        "deliveries_ordered",
        "deliveries",
        ["endpoint_seq", "order_group", "due_at", "event_seq"],
        sqlite_where=sa.text(_ORDERED),
        postgresql_where=sa.text(_ORDERED),
    )
    for statement in (_ON_SQLITE,) if op.get_bind().dialect.name == "sqlite" else _ON_POSTGRESQL:
        op.execute(statement)
