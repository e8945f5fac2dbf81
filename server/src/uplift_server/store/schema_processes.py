"""The tables for a cluster of server processes on one database. On SQLite, they stay empty."""

from typing import Final

import sqlalchemy as sa

from uplift_server.store.schema import Seq, metadata

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("seq", Seq, primary_key=True, comment="process ID of leases; a rejoin changes it"),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False, comment="time of the last heartbeat"),
    sa.Column("delivers", sa.Boolean, nullable=False, comment="whether it can own endpoints"),
    sa.Column("view", sa.BigInteger, nullable=False, comment="hash of the known workers: `membership_hash`"),
    sa.Column("in_flight", sa.Integer, nullable=False, server_default="0"),
    sa.Column("in_flight_max", sa.Integer, nullable=False, server_default="0"),
    sa.Column(
        "waiting", sa.Integer, nullable=False, server_default="0", comment="leased deliveries that are not in flight"
    ),
)

duties = sa.Table(
    "duties",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("process_seq", sa.BigInteger, nullable=False, comment="0 if no process holds the lease"),
    sa.Column("until", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="leader leases of singleton jobs",
)

directory_changes = sa.Table(
    "directory_changes",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True, comment="name of the table"),
    sa.Column("subject_seq", sa.BigInteger, primary_key=True),
    sa.Column("xid", sa.BigInteger, nullable=False, comment="last transaction that changed it"),
    sqlite_with_rowid=False,
    comment="change log of the objects that processes cache",
)
sa.Index("directory_changes_by_xid", directory_changes.c.xid)

told_texts = sa.Table(
    "told_texts",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    comment="notifications of earlier releases through a pooler",
)

commands = sa.Table(
    "commands",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("endpoint_seq", sa.BigInteger, nullable=False),
    sa.Column("event_seq", sa.BigInteger, nullable=False, comment="0 for a test, whose event is not stored yet"),
    sa.Column("arguments", sa.Text, nullable=False, comment="JSON"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, comment="NULL if kept until a process executes or rejects it"),
    sa.Column("result", sa.Text, comment="JSON; NULL until a process executes or rejects it"),
    comment="commands to cancel, resend or test deliveries of other processes",
)

CHANNEL: Final = "uplift"
"""The PostgreSQL channel for notifications between processes."""
CHANGED: Final = "changed"
"""The text of the notification that `directory_changes` has new rows."""
_ENDPOINT_COLUMNS: Final = (
    "url", "description", "event_types", "secret", "headers", "rate_limit_per_second", "max_in_flight", "state",
    "disabled_reason", "updated_at", "deleted_at", "previous_secret", "previous_expires_at", "uplift_header_new",
    "state_since", "held_action", "held_through",
    # A new setting needs no entry, because `updated_at` changes with it. Omit health columns that attempts change.
    "warned_at", "excused_ms",
)  # fmt: skip
_WATCHED: Final[dict[str, tuple[str, ...]]] = {
    "accounts": (),
    "api_keys": (),
    "service_keys": (),
    "event_types": (),
    "endpoints": _ENDPOINT_COLUMNS,
    "replays": ("state", "completed_at", "rate_per_second"),
}
"""The tables that processes cache, each with the columns whose changes the triggers record.

An empty tuple means all columns.
"""


def _differs(columns: tuple[str, ...]) -> str:
    if not columns:
        return "OLD IS DISTINCT FROM NEW"
    old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
    return f"({old}) IS DISTINCT FROM ({new})"


NOTE_DIRECTORY_CHANGES: Final = (
    f"""CREATE FUNCTION note_directory_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
INSERT INTO directory_changes (kind, subject_seq, xid)
VALUES (TG_TABLE_NAME, NEW.seq, pg_current_xact_id()::text::bigint)
ON CONFLICT (kind, subject_seq) DO UPDATE SET xid = EXCLUDED.xid;
PERFORM pg_notify('{CHANNEL}', '{CHANGED}');
RETURN NULL;
END $$""",  # noqa: S608 - contains only constants
    *(
        f"CREATE TRIGGER {table}_note_creation AFTER INSERT ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION note_directory_change()"
        for table in _WATCHED
    ),
    *(
        f"CREATE TRIGGER {table}_note_change AFTER UPDATE ON {table} FOR EACH ROW"
        f" WHEN ({_differs(columns)}) EXECUTE FUNCTION note_directory_change()"
        for table, columns in _WATCHED.items()
    ),
)


@sa.event.listens_for(metadata, "after_create")
def _create_triggers(_metadata: sa.MetaData, connection: sa.Connection, **_options: object) -> None:
    if connection.dialect.name == "postgresql":
        for statement in NOTE_DIRECTORY_CHANGES:
            connection.exec_driver_sql(statement)
