"""Every table, in types both databases share.

Instants are integer milliseconds UTC. Rows are joined by integer sequence numbers, which the outside never sees; ids
are the 16 bytes behind the public text. Secrets, and header values that may hold some, are stored sealed.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

# SQLite makes only INTEGER PRIMARY KEY an alias of the row's own number.
_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Uuid = sa.LargeBinary(16)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("seq", _Seq, primary_key=True),
    sa.Column("id", _Uuid, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("contact_emails", sa.Text, nullable=False, comment="a JSON list"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("seq", _Seq, primary_key=True),
    sa.Column("id", _Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, comment="none: an operator's key"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the key's text"),
    sa.Column("hint", sa.Text, nullable=False, comment="the key's last characters, to recognise it by"),
    sa.Column("scopes", sa.Text, nullable=False, comment="separated by spaces"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
)
sa.Index("api_keys_by_account", api_keys.c.account_seq, api_keys.c.seq)

event_types = sa.Table(
    "event_types",
    metadata,
    sa.Column("seq", _Seq, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("group_name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, comment="JSON Schema of `data`, as JSON"),
    sa.Column("example", sa.Text, comment="an example of `data`, as JSON"),
    sa.Column("api_version", sa.Text, nullable=False),
    sa.Column("documented", sa.Boolean, nullable=False, comment="documented by Uplift, not an extension"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("archived_at", sa.BigInteger),
    sa.Column("deleted_at", sa.BigInteger),
)

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("seq", _Seq, primary_key=True),
    sa.Column("id", _Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("event_types", sa.Text, nullable=False, comment="a JSON list of names and patterns; empty: all"),
    sa.Column("secret", sa.LargeBinary, nullable=False, comment="sealed"),
    sa.Column("secret_created_at", sa.BigInteger, nullable=False),
    sa.Column("headers", sa.LargeBinary, comment="sealed JSON object"),
    sa.Column("rate_limit_per_second", sa.Integer),
    sa.Column("max_in_flight", sa.Integer),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("disabled_reason", sa.SmallInteger),
    sa.Column("consecutive_failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failing_since", sa.BigInteger),
    sa.Column("last_success_at", sa.BigInteger),
    sa.Column("last_failure_at", sa.BigInteger),
    sa.Column("last_outcome", sa.SmallInteger),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
)
sa.Index("endpoints_by_account", endpoints.c.account_seq, endpoints.c.seq)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", _Seq, primary_key=True),
    sa.Column("id", _Uuid, nullable=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("type_seq", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("body", sa.LargeBinary, nullable=False, comment="the envelope, as signed and sent"),
)
# A caller may choose an event's id, so it is unique only within the account.
sa.Index("events_by_id", events.c.id, events.c.account_seq, unique=True)
sa.Index("events_by_account", events.c.account_seq, events.c.seq)
sa.Index("events_by_type", events.c.account_seq, events.c.type_seq, events.c.seq)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("account_seq", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("event_seq", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("idempotency_keys_by_age", idempotency_keys.c.created_at)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("event_seq", sa.BigInteger, primary_key=True),
    sa.Column("endpoint_seq", sa.BigInteger, primary_key=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("status", sa.SmallInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, comment="of a pending one: when it may be leased, or when its lease ends"),
    sa.Column("lease_owner", sa.BigInteger, nullable=False, server_default="0", comment="0: not leased"),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0", comment="grows by one with every lease"),
    sa.Column("trigger", sa.SmallInteger, nullable=False, server_default="0", comment="of the next attempt"),
    sa.Column("attempts_made", sa.Integer, nullable=False, server_default="0"),
    sa.Column("scheduled_attempts", sa.Integer, nullable=False, server_default="0", comment="those the schedule spent"),
    sa.Column("resume_status", sa.SmallInteger, comment="during a resend: what a failure leads back to"),
    sa.Column("resume_due_at", sa.BigInteger),
    sa.Column("last_outcome", sa.SmallInteger),
    sa.Column("failed_reason", sa.SmallInteger),
    sa.Column("completed_at", sa.BigInteger),
    sqlite_with_rowid=False,
)
sa.Index("deliveries_by_endpoint", deliveries.c.endpoint_seq, deliveries.c.event_seq)
# A pending delivery stands in exactly one of the next two: the waiting ones are found by endpoint and due instant, and
# the few leased ones by the end of their lease.
_WAITING = "status = 0 AND lease_owner = 0"
_LEASED = "status = 0 AND lease_owner <> 0"
_UNSUCCESSFUL = "status > 1"
_HELD = "status = 3"
sa.Index(
    "deliveries_due",
    deliveries.c.endpoint_seq,
    deliveries.c.due_at,
    sqlite_where=sa.text(_WAITING),
    postgresql_where=sa.text(_WAITING),
)
sa.Index(
    "deliveries_leased",
    deliveries.c.due_at,
    sqlite_where=sa.text(_LEASED),
    postgresql_where=sa.text(_LEASED),
)
sa.Index(
    "deliveries_held",
    deliveries.c.endpoint_seq,
    deliveries.c.event_seq,
    sqlite_where=sa.text(_HELD),
    postgresql_where=sa.text(_HELD),
)
sa.Index(
    "deliveries_unsuccessful",
    deliveries.c.account_seq,
    deliveries.c.event_seq,
    sqlite_where=sa.text(_UNSUCCESSFUL),
    postgresql_where=sa.text(_UNSUCCESSFUL),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("seq", _Seq, primary_key=True),
    sa.Column("event_seq", sa.BigInteger, nullable=False),
    sa.Column("endpoint_seq", sa.BigInteger, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("trigger", sa.SmallInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("duration_us", sa.BigInteger, nullable=False),
    sa.Column("dns_ms", sa.Integer),
    sa.Column("connect_ms", sa.Integer),
    sa.Column("tls_ms", sa.Integer),
    sa.Column("first_byte_ms", sa.Integer),
    sa.Column("status_code", sa.SmallInteger),
    sa.Column("outcome", sa.SmallInteger, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("location", sa.Text),
    sa.Column("remote_address", sa.Text),
    sa.Column("request_head", sa.LargeBinary, nullable=False, comment="as sent, secret-looking values masked"),
    sa.Column("response_head", sa.LargeBinary),
    sa.Column("response_body", sa.LargeBinary),
    sa.Column("body_truncated", sa.Boolean, nullable=False),
)
sa.Index("attempts_by_delivery", attempts.c.event_seq, attempts.c.endpoint_seq, attempts.c.number, unique=True)

idempotent_creates = sa.Table(
    "idempotent_creates",
    metadata,
    sa.Column("account_seq", sa.BigInteger, primary_key=True, comment="0: an operator without an account"),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("request_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("object_id", _Uuid, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("idempotent_creates_by_age", idempotent_creates.c.created_at)
