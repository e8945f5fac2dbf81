"""The tables, with column types that both databases support. The modules `store.schema_*` define further tables.

Timestamps are integers in Unix ms. Rows refer to each other by integer numbers, which are never public. A column `id`
contains the 16 bytes that the public ID encodes. Secrets, header values and endpoint
authentication are encrypted.
"""

import sqlalchemy as sa

from uplift_server.store import status_sql

metadata = sa.MetaData()

# In SQLite, only INTEGER PRIMARY KEY is an alias of the row ID.
Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Uuid = sa.LargeBinary(16)

# The conditions of the partial indexes that retention uses to find deleted, revoked and completed objects.
_DELETED = "deleted_at IS NOT NULL"
_REVOKED = "revoked_at IS NOT NULL"
_COMPLETED = "completed_at IS NOT NULL"
# A deleted object frees its uid.
_LIVE_UID = "uid IS NOT NULL AND deleted_at IS NULL"

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("contact_emails", sa.Text, nullable=False, comment="JSON list"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
    sa.Column("uid", sa.Text, comment="the operator's own ID"),
    sa.Column("metadata", sa.Text, comment="JSON object of strings; NULL if empty"),
)
sa.Index(
    "accounts_deleted",
    accounts.c.deleted_at,
    sqlite_where=sa.text(_DELETED),
    postgresql_where=sa.text(_DELETED),
)
sa.Index(
    "accounts_by_uid",
    accounts.c.uid,
    unique=True,
    sqlite_where=sa.text(_LIVE_UID),
    postgresql_where=sa.text(_LIVE_UID),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, comment="NULL for operator keys"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the key"),
    # The column keeps its name from the first revision. In the API, `hint` has another meaning.
    sa.Column("hint", sa.Text, key="ends_with", nullable=False, comment="last characters of the key, for recognition"),
    sa.Column("scopes", sa.Text, nullable=False, comment="separated by spaces"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger, comment="NULL if the key does not expire"),
)
sa.Index("api_keys_by_account", api_keys.c.account_seq, api_keys.c.seq)
sa.Index(
    "api_keys_revoked",
    api_keys.c.revoked_at,
    sqlite_where=sa.text(_REVOKED),
    postgresql_where=sa.text(_REVOKED),
)

# Do not store service keys in `api_keys`: servers of earlier releases would treat them as operator keys.
service_keys = sa.Table(
    "service_keys",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the key"),
    sa.Column("ends_with", sa.Text, nullable=False, comment="last characters of the key, for recognition"),
    sa.Column("scopes", sa.Text, nullable=False, comment="separated by spaces"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, comment="NULL if the key does not expire"),
    sa.Column("revoked_at", sa.BigInteger),
    comment="keys of operators' programs, for all accounts within their scopes",
)
sa.Index(
    "service_keys_revoked",
    service_keys.c.revoked_at,
    sqlite_where=sa.text(_REVOKED),
    postgresql_where=sa.text(_REVOKED),
)

event_types = sa.Table(
    "event_types",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("group_name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, comment="JSON Schema of `data`, as JSON"),
    sa.Column("example", sa.Text, comment="example of `data`, as JSON"),
    sa.Column("api_version", sa.Text, nullable=False),
    sa.Column("documented", sa.Boolean, nullable=False, comment="documented by Uplift, not an extension"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("archived_at", sa.BigInteger),
    sa.Column("deleted_at", sa.BigInteger),
)
sa.Index(
    "event_types_deleted",
    event_types.c.deleted_at,
    sqlite_where=sa.text(_DELETED),
    postgresql_where=sa.text(_DELETED),
)

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("event_types", sa.Text, nullable=False, comment="JSON list of names and patterns; empty for all"),
    sa.Column("secret", sa.LargeBinary, nullable=False, comment="encrypted; empty after deletion"),
    sa.Column("secret_created_at", sa.BigInteger, nullable=False),
    sa.Column("headers", sa.LargeBinary, comment="encrypted JSON object"),
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
    sa.Column("previous_secret", sa.LargeBinary, comment="encrypted; also signs until `previous_expires_at`"),
    sa.Column("previous_expires_at", sa.BigInteger),
    sa.Column(
        "uplift_header_new",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="whether x-uplift-signature-256 uses `secret` during an overlap",
    ),
    sa.Column(
        "excused_ms",
        sa.BigInteger,
        nullable=False,
        server_default="0",
        comment="time since `failing_since` that does not count",
    ),
    sa.Column("warned_at", sa.BigInteger, comment="if before `failing_since`, a recovery email is still due"),
    sa.Column("state_since", sa.BigInteger, comment="NULL since creation"),
    sa.Column("held_action", sa.SmallInteger, comment="action for the held deliveries"),
    sa.Column("held_through", sa.BigInteger, comment="last event to which `held_action` applies"),
    sa.Column("last_status_code", sa.SmallInteger),
    sa.Column("last_error", sa.Text, comment="NULL after a success"),
    sa.Column("last_location", sa.Text, comment="redirect target without secrets"),
    sa.Column("probe_at", sa.BigInteger, comment="of a failing endpoint with an open circuit breaker"),
    sa.Column("tested_at", sa.BigInteger, comment="time of the last test event to this URL"),
    sa.Column("verified_at", sa.BigInteger, comment="when this URL passed the signature check"),
    sa.Column("uid", sa.Text, comment="the operator's own ID, unique in the account"),
    sa.Column("metadata", sa.Text, comment="JSON object of strings; NULL if empty"),
    sa.Column("retry_schedule_ms", sa.Text, comment="JSON list of delays"),
    sa.Column("attempt_timeout_ms", sa.Integer),
    sa.Column("ordering", sa.SmallInteger),
    sa.Column("filter", sa.Text, comment="JSON object; NULL to match all events"),
    sa.Column("auth", sa.LargeBinary, comment="encrypted JSON object; NULL without authentication"),
    sa.Column("certificate_expires_at", sa.BigInteger, comment="of the client certificate in `auth`"),
    sa.Column("certificate_warned_at", sa.BigInteger, comment="time of the last warning about its expiry"),
)
sa.Index("endpoints_by_account", endpoints.c.account_seq, endpoints.c.seq)
sa.Index(
    "endpoints_deleted",
    endpoints.c.deleted_at,
    sqlite_where=sa.text(_DELETED),
    postgresql_where=sa.text(_DELETED),
)
sa.Index(
    "endpoints_by_uid",
    endpoints.c.account_seq,
    endpoints.c.uid,
    unique=True,
    sqlite_where=sa.text(_LIVE_UID),
    postgresql_where=sa.text(_LIVE_UID),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("type_seq", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("body", sa.LargeBinary, nullable=False, comment="envelope, as signed and sent"),
    sa.Column("object_id", sa.Text, comment="string or integer at `data.object.id`"),
    sa.Column("erased_at", sa.BigInteger, comment="of an erased event, whose body has no data"),
    sa.Column("ordering_key", sa.Text, comment="events with the same key can be delivered in order"),
)
# Callers can choose event IDs, so they are unique only within an account.
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
    sa.Column("due_at", sa.BigInteger, comment="of a pending delivery: when it is due, or when its lease ends"),
    sa.Column(
        "lease_owner", sa.BigInteger, nullable=False, server_default="0", comment="0 if the delivery is not leased"
    ),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0", comment="increases by 1 with each lease"),
    sa.Column("trigger", sa.SmallInteger, nullable=False, server_default="0", comment="trigger of the next attempt"),
    sa.Column("attempts_made", sa.Integer, nullable=False, server_default="0"),
    sa.Column(
        "scheduled_attempts", sa.Integer, nullable=False, server_default="0", comment="attempts of the retry schedule"
    ),
    sa.Column("resume_status", sa.SmallInteger, comment="during a resend, the status after a failure"),
    sa.Column("resume_due_at", sa.BigInteger),
    sa.Column("last_outcome", sa.SmallInteger),
    sa.Column("failed_reason", sa.SmallInteger),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("replay_seq", sa.BigInteger, comment="replay that released the delivery and has not counted it"),
    sa.Column("order_group", sa.BigInteger, comment="0: the endpoint; otherwise a hash of the ordering key"),
    sqlite_with_rowid=False,
    # Every row is updated at least once, so leave space for its new version on the same page. Vacuum early. By default,
    # PostgreSQL waits until a fifth of the table consists of dead rows.
    postgresql_with={
        "fillfactor": 80,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_analyze_scale_factor": 0.05,
    },
)
sa.Index("deliveries_by_endpoint", deliveries.c.endpoint_seq, deliveries.c.event_seq)
# `deliveries_due` contains the waiting deliveries, and `deliveries_leased` contains the leased deliveries.
_WAITING = status_sql.waiting()
_LEASED = status_sql.leased()
_UNSUCCESSFUL = status_sql.unsuccessful()
_REPLAYED = "replay_seq IS NOT NULL"
_HELD = status_sql.held()
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
sa.Index(
    "deliveries_replayed",
    deliveries.c.replay_seq,
    deliveries.c.event_seq,
    sqlite_where=sa.text(_REPLAYED),
    postgresql_where=sa.text(_REPLAYED),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
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
    sa.Column("request_head", sa.LargeBinary, nullable=False, comment="as sent, with secret values masked"),
    sa.Column("response_head", sa.LargeBinary),
    sa.Column("response_body", sa.LargeBinary),
    sa.Column("body_truncated", sa.Boolean, nullable=False),
)
sa.Index("attempts_by_delivery", attempts.c.event_seq, attempts.c.endpoint_seq, attempts.c.number, unique=True)

idempotent_creates = sa.Table(
    "idempotent_creates",
    metadata,
    sa.Column("account_seq", sa.BigInteger, primary_key=True, comment="0 for operators without an account"),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("request_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("object_id", Uuid, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("idempotent_creates_by_age", idempotent_creates.c.created_at)

replays = sa.Table(
    "replays",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("endpoint_seq", sa.BigInteger, nullable=False),
    sa.Column("statuses", sa.Text, nullable=False, comment="JSON list of numbers"),
    sa.Column("types", sa.Text, nullable=False, comment="JSON list of names and patterns; empty for all"),
    sa.Column("type_seqs", sa.Text, nullable=False, comment="JSON list of the types that matched at creation"),
    sa.Column("created_after", sa.BigInteger),
    sa.Column("created_before", sa.BigInteger),
    sa.Column("rate_per_second", sa.Integer, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False, comment="number of deliveries counted so far"),
    sa.Column("counted_through", sa.BigInteger, nullable=False, comment="last event that is counted"),
    sa.Column("next_event_seq", sa.BigInteger, nullable=False, comment="next event of the replay"),
    sa.Column("last_event_seq", sa.BigInteger, nullable=False, comment="last event of the replay"),
    sa.Column("delivered", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("skipped", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("outcomes", sa.Text, comment="JSON list of numbers; NULL for all"),
    sa.Column("status_codes", sa.Text, comment="JSON list of ranges; NULL for all"),
    sa.Column("object_id", sa.Text, comment="NULL for all"),
    sa.Column("batch_id", Uuid, comment="bulk resend that created the replay"),
    sa.Column("missing_type_seqs", sa.Text, comment="JSON list of the types of missing events; NULL for none"),
)
sa.Index("replays_by_account", replays.c.account_seq, replays.c.seq)
sa.Index("replays_by_endpoint", replays.c.endpoint_seq)
sa.Index(
    "replays_completed",
    replays.c.completed_at,
    sqlite_where=sa.text(_COMPLETED),
    postgresql_where=sa.text(_COMPLETED),
)
_UNFINISHED = "completed_at IS NULL"
sa.Index(
    "replays_unfinished",
    replays.c.account_seq,
    replays.c.seq,
    sqlite_where=sa.text(_UNFINISHED),
    postgresql_where=sa.text(_UNFINISHED),
)

notices = sa.Table(
    "notices",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("account_seq", sa.BigInteger, comment="NULL for emails to the operator, or about no account"),
    sa.Column("endpoint_seq", sa.BigInteger),
    sa.Column("recipient", sa.Text, nullable=False, comment="email address"),
    sa.Column("facts", sa.Text, nullable=False, comment="content of the email, as a JSON object"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("due_at", sa.BigInteger, comment="time of the next attempt; NULL after the last"),
    sa.Column("attempts_made", sa.Integer, nullable=False, server_default="0"),
    sa.Column("sent_at", sa.BigInteger),
    sa.Column("last_error", sa.Text),
)
_UNSENT = "due_at IS NOT NULL"
_DONE = "due_at IS NULL"
sa.Index("notices_due", notices.c.due_at, sqlite_where=sa.text(_UNSENT), postgresql_where=sa.text(_UNSENT))
sa.Index("notices_done", notices.c.created_at, sqlite_where=sa.text(_DONE), postgresql_where=sa.text(_DONE))

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("account_seq", sa.BigInteger, comment="NULL if it concerns no account"),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor_kind", sa.SmallInteger, nullable=False),
    sa.Column("actor_id", sa.Text, comment="key or member; NULL for the system"),
    sa.Column("actor_name", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, comment="ID or name of the object"),
    sa.Column("details", sa.Text, nullable=False, comment="JSON object"),
    sa.Column("address", sa.Text, comment="source address of the request"),
)
sa.Index("audit_log_by_account", audit_log.c.account_seq, audit_log.c.seq)
sa.Index("audit_log_by_age", audit_log.c.at)

listen_sessions = sa.Table(
    "listen_sessions",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("key_id", Uuid, nullable=False, comment="API key that created the session"),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("event_types", sa.Text, nullable=False, comment="JSON list of names and patterns; empty for all"),
    sa.Column("position", sa.BigInteger, nullable=False, comment="number of the last event that was streamed"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("last_seen_at", sa.BigInteger, nullable=False, comment="time of the last connection"),
)
sa.Index("listen_sessions_by_account", listen_sessions.c.account_seq, listen_sessions.c.seq)

listen_answers = sa.Table(
    "listen_answers",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("session_seq", sa.BigInteger, nullable=False),
    sa.Column("event_id", Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("status_code", sa.SmallInteger),
    sa.Column("duration_ms", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("body", sa.Text, nullable=False, comment="beginning of the response of the local server"),
    sa.Column("redelivered", sa.Boolean, nullable=False),
)
sa.Index("listen_answers_by_session", listen_answers.c.session_seq, listen_answers.c.seq)

marks = sa.Table(
    "marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="server values by name",
)
