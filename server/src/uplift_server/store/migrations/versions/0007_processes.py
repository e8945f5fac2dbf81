"""Add processes, leader leases for singleton jobs, and the change log."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_FUNCTION: Final = """CREATE FUNCTION note_directory_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
INSERT INTO directory_changes (kind, subject_seq, xid)
VALUES (TG_TABLE_NAME, NEW.seq, pg_current_xact_id()::text::bigint)
ON CONFLICT (kind, subject_seq) DO UPDATE SET xid = EXCLUDED.xid;
PERFORM pg_notify('uplift', 'changed');
RETURN NULL;
END $$"""
_ENDPOINT_COLUMNS: Final = (
    "url", "description", "event_types", "secret", "headers", "rate_limit_per_second", "max_in_flight", "state",
    "disabled_reason", "updated_at", "deleted_at", "previous_secret", "previous_expires_at", "uplift_header_new",
    "state_since", "held_action", "held_through", "warned_at", "excused_ms",
)
_WATCHED: Final[dict[str, tuple[str, ...]]] = {
    "accounts": (),
    "api_keys": (),
    "event_types": (),
    "endpoints": _ENDPOINT_COLUMNS,
    "replays": ("state", "completed_at", "rate_per_second"),
}


def upgrade() -> None:
    """Add three tables and, on PostgreSQL, the triggers of the change log."""
    op.create_table(
        "processes",
        sa.Column("seq", _SEQ, nullable=False, comment="process ID of leases; a rejoin changes it"),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False, comment="time of the last heartbeat"),
        sa.Column("delivers", sa.Boolean(), nullable=False, comment="whether it can own endpoints"),
        sa.Column(
            "view", sa.BigInteger(), nullable=False, comment="hash of the known workers: `membership_hash`"
        ),
        sa.Column("in_flight", sa.Integer(), server_default="0", nullable=False),
        sa.Column("in_flight_max", sa.Integer(), server_default="0", nullable=False),
        sa.Column("waiting", sa.Integer(), server_default="0", nullable=False, comment="leased deliveries that are not in flight"),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("process_seq", sa.BigInteger(), nullable=False, comment="0 if no process holds the lease"),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
        comment="leader leases of singleton jobs",
    )
    op.create_table(
        "directory_changes",
        sa.Column("kind", sa.Text(), nullable=False, comment="name of the table"),
        sa.Column("subject_seq", sa.BigInteger(), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False, comment="last transaction that changed it"),
        sa.PrimaryKeyConstraint("kind", "subject_seq"),
        sqlite_with_rowid=False,
        comment="change log of the objects that processes cache",
    )
    op.create_index("directory_changes_by_xid", "directory_changes", ["xid"])
    if op.get_bind().dialect.name == "postgresql":
        _add_triggers()


def _add_triggers() -> None:
    op.execute(_FUNCTION)
    for table, columns in _WATCHED.items():
        old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
        differs = f"({old}) IS DISTINCT FROM ({new})" if columns else "OLD IS DISTINCT FROM NEW"
        op.execute(
            f"CREATE TRIGGER {table}_note_creation AFTER INSERT ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION note_directory_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_note_change AFTER UPDATE ON {table} FOR EACH ROW"
            f" WHEN ({differs}) EXECUTE FUNCTION note_directory_change()"
        )
