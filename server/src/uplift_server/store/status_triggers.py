"""Triggers that run after a delivery's status changes, even if a server of an earlier release changed the status."""

import sqlalchemy as sa

from uplift_server.store.schema import metadata


def create_status_trigger(name: str, *, condition: str, statement: str, lock: str = "") -> None:
    """Define a trigger that runs `statement` after a delivery's status changes, if `condition` is true.

    The trigger is created after the tables. On PostgreSQL, the trigger runs the statement `lock` first.
    """
    event = "AFTER UPDATE OF status ON deliveries"
    function = (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {lock}{statement} RETURN NULL; END $$"
    )
    by_database = {
        "sqlite": (f"CREATE TRIGGER {name} {event} WHEN {condition} BEGIN {statement} END",),
        "postgresql": (
            function,
            f"CREATE TRIGGER {name} {event} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()",
        ),
    }

    @sa.event.listens_for(metadata, "after_create")
    def create(_metadata: sa.MetaData, connection: sa.Connection, **_options: object) -> None:
        for each in by_database[connection.dialect.name]:
            connection.exec_driver_sql(each)
