"""Add accounts, keys, the event catalog, endpoints, events, deliveries and attempts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# In SQLite, only INTEGER PRIMARY KEY is an alias of the row ID.
_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables of the first version."""
    op.create_table(
        "accounts",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("contact_emails", sa.Text(), nullable=False, comment="JSON list"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "api_keys",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), comment="NULL for operator keys"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the key"),
        sa.Column("hint", sa.Text(), nullable=False, comment="last characters of the key, for recognition"),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("api_keys_by_account", "api_keys", ["account_seq", "seq"])
    op.create_table(
        "attempts",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.SmallInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("dns_ms", sa.Integer()),
        sa.Column("connect_ms", sa.Integer()),
        sa.Column("tls_ms", sa.Integer()),
        sa.Column("first_byte_ms", sa.Integer()),
        sa.Column("status_code", sa.SmallInteger()),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("location", sa.Text()),
        sa.Column("remote_address", sa.Text()),
        sa.Column("request_head", sa.LargeBinary(), nullable=False, comment="as sent, with secret values masked"),
        sa.Column("response_head", sa.LargeBinary()),
        sa.Column("response_body", sa.LargeBinary()),
        sa.Column("body_truncated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("attempts_by_delivery", "attempts", ["event_seq", "endpoint_seq", "number"], unique=True)
    op.create_table(
        "deliveries",
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), comment="of a pending delivery: when it is due, or when its lease ends"),
        sa.Column("lease_owner", sa.BigInteger(), server_default="0", nullable=False, comment="0 if the delivery is not leased"),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False, comment="increases by 1 with each lease"),
        sa.Column("trigger", sa.SmallInteger(), server_default="0", nullable=False, comment="trigger of the next attempt"),
        sa.Column("attempts_made", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "scheduled_attempts", sa.Integer(), server_default="0", nullable=False, comment="attempts of the retry schedule"
        ),
        sa.Column("resume_status", sa.SmallInteger(), comment="during a resend, the status after a failure"),
        sa.Column("resume_due_at", sa.BigInteger()),
        sa.Column("last_outcome", sa.SmallInteger()),
        sa.Column("failed_reason", sa.SmallInteger()),
        sa.Column("completed_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("event_seq", "endpoint_seq"),
        sqlite_with_rowid=False,
        postgresql_with={
            "fillfactor": 80,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_analyze_scale_factor": 0.05,
        },
    )
    op.create_index("deliveries_by_endpoint", "deliveries", ["endpoint_seq", "event_seq"])
    op.create_index(
        "deliveries_due",
        "deliveries",
        ["endpoint_seq", "due_at"],
        sqlite_where=sa.text("status = 0 AND lease_owner = 0"),
        postgresql_where=sa.text("status = 0 AND lease_owner = 0"),
    )
    op.create_index(
        "deliveries_leased",
        "deliveries",
        ["due_at"],
        sqlite_where=sa.text("status = 0 AND lease_owner <> 0"),
        postgresql_where=sa.text("status = 0 AND lease_owner <> 0"),
    )
    op.create_index(
        "deliveries_held",
        "deliveries",
        ["endpoint_seq", "event_seq"],
        sqlite_where=sa.text("status = 3"),
        postgresql_where=sa.text("status = 3"),
    )
    op.create_index(
        "deliveries_unsuccessful",
        "deliveries",
        ["account_seq", "event_seq"],
        sqlite_where=sa.text("status > 1"),
        postgresql_where=sa.text("status > 1"),
    )
    op.create_table(
        "endpoints",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("event_types", sa.Text(), nullable=False, comment="JSON list of names and patterns; empty for all"),
        sa.Column("secret", sa.LargeBinary(), nullable=False, comment="encrypted; empty after deletion"),
        sa.Column("secret_created_at", sa.BigInteger(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), comment="encrypted JSON object"),
        sa.Column("rate_limit_per_second", sa.Integer()),
        sa.Column("max_in_flight", sa.Integer()),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("disabled_reason", sa.SmallInteger()),
        sa.Column("consecutive_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failing_since", sa.BigInteger()),
        sa.Column("last_success_at", sa.BigInteger()),
        sa.Column("last_failure_at", sa.BigInteger()),
        sa.Column("last_outcome", sa.SmallInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("endpoints_by_account", "endpoints", ["account_seq", "seq"])
    op.create_table(
        "event_types",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), comment="JSON Schema of `data`, as JSON"),
        sa.Column("example", sa.Text(), comment="example of `data`, as JSON"),
        sa.Column("api_version", sa.Text(), nullable=False),
        sa.Column("documented", sa.Boolean(), nullable=False, comment="documented by Uplift, not an extension"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger()),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "events",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("type_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="envelope, as signed and sent"),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("events_by_account", "events", ["account_seq", "seq"])
    op.create_index("events_by_id", "events", ["id", "account_seq"], unique=True)
    op.create_index("events_by_type", "events", ["account_seq", "type_seq", "seq"])
    op.create_table(
        "idempotency_keys",
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_seq", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["created_at"])
    op.create_table(
        "idempotent_creates",
        sa.Column("account_seq", sa.BigInteger(), nullable=False, comment="0 for operators without an account"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_seq", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("idempotent_creates_by_age", "idempotent_creates", ["created_at"])
