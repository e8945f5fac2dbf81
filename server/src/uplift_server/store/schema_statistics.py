"""The tables of numbers, and the trigger that notes which deliveries changed their status.

Most changes need no note: that a delivery was made is counted from its attempt, and so costs the database nothing more.
What is noted is rare: what fails, is held, cancelled, let go or sent once more.
"""

from typing import Final

import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.store import status_sql
from uplift_server.store.schema import Seq, metadata

rollups = sa.Table(
    "rollups",
    metadata,
    sa.Column("endpoint_seq", sa.BigInteger, primary_key=True, comment="0: all of the account"),
    sa.Column("account_seq", sa.BigInteger, primary_key=True, comment="0: all accounts"),
    sa.Column("at", sa.BigInteger, primary_key=True, comment="when the hour begins"),
    sa.Column("deliveries", sa.BigInteger, nullable=False),
    sa.Column("delivered", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.Column("cancelled", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.BigInteger, nullable=False),
    sa.Column("first_attempts", sa.BigInteger, nullable=False),
    sa.Column("first_delivered", sa.BigInteger, nullable=False),
    sa.Column("outcomes", sa.Text, nullable=False, comment="how many attempts by outcome, as `0:17 5:1`"),
    sa.Column("durations", sa.Text, nullable=False, comment="how many attempts by class of duration, in the same way"),
    sqlite_with_rowid=False,
)
sa.Index("rollups_by_age", rollups.c.at)

delivery_changes = sa.Table(
    "delivery_changes",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("event_seq", sa.BigInteger, nullable=False),
    sa.Column("endpoint_seq", sa.BigInteger, nullable=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False, comment="of the event, which may be gone when this is read"),
    sa.Column("old_status", sa.SmallInteger, nullable=False),
    sa.Column("new_status", sa.SmallInteger, nullable=False),
    comment="what is still to be counted",
)

# A delivery that a successful attempt has just settled is noted as if it were still pending (0): the attempt tells the
# rest. Such an attempt alone moves the count and leaves its outcome (0) behind; what leads back to `delivered` without
# success does not. Tests (3) are never counted.
_TOLD: Final = (
    f"CASE WHEN NEW.status = {status_sql.DELIVERED} AND NEW.last_outcome = {int(Outcome.DELIVERED)}"
    f" AND NEW.attempts_made > OLD.attempts_made THEN {status_sql.PENDING}"
    " ELSE NEW.status END"
)
_NOTED: Final = f"OLD.status <> {_TOLD} AND NEW.trigger <> {status_sql.TEST}"
_NOTE: Final = (
    "INSERT INTO delivery_changes (event_seq, endpoint_seq, account_seq, created_at, old_status, new_status)"  # noqa: S608 - of our own texts
    f" SELECT NEW.event_seq, NEW.endpoint_seq, NEW.account_seq, created_at, OLD.status, {_TOLD}"
    " FROM events WHERE seq = NEW.event_seq;"
)
_ON_SQLITE: Final = (
    f"CREATE TRIGGER deliveries_note_changes AFTER UPDATE OF status ON deliveries WHEN {_NOTED} BEGIN {_NOTE} END"
)
_FUNCTION_ON_POSTGRESQL: Final = (
    "CREATE FUNCTION deliveries_note_changes() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$ BEGIN {_NOTE} RETURN NULL; END $$"
)
_ON_POSTGRESQL: Final = (
    "CREATE TRIGGER deliveries_note_changes AFTER UPDATE OF status ON deliveries FOR EACH ROW"
    f" WHEN ({_NOTED}) EXECUTE FUNCTION deliveries_note_changes()"
)
NOTE_CHANGES: Final = {"sqlite": (_ON_SQLITE,), "postgresql": (_FUNCTION_ON_POSTGRESQL, _ON_POSTGRESQL)}
"""The statements that make the trigger, by database."""


@sa.event.listens_for(metadata, "after_create")
def _make_trigger(_metadata: sa.MetaData, connection: sa.Connection, **_options: object) -> None:
    for statement in NOTE_CHANGES[connection.dialect.name]:
        connection.exec_driver_sql(statement)
