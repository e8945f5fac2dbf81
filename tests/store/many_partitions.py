"""Databases with events in many partitions, to measure the cost of partitions."""

import re
from typing import Final

from uplift_server.store.schema_partitions import NUMBERS

PARTITIONS: Final = 12


def partition_statements(rows: int, partitions: int) -> str:
    """Return statements that create partitions and an SQL function `at`, which maps an event's index to its number."""
    return f"""
DO $$ BEGIN FOR k IN 1 .. {partitions - 1} LOOP
EXECUTE format('CREATE TABLE events_%s_%s (LIKE events_0_1 INCLUDING ALL)', k, k + 1);
EXECUTE format('ALTER TABLE events ATTACH PARTITION events_%s_%s FOR VALUES FROM (%s) TO (%s)',
    k, k + 1, k * {NUMBERS}, (k + 1) * {NUMBERS});
EXECUTE format('CREATE TABLE attempts_%s_%s (LIKE attempts_0_1 INCLUDING ALL)', k, k + 1);
EXECUTE format('ALTER TABLE attempts ATTACH PARTITION attempts_%s_%s FOR VALUES FROM (%s) TO (%s)',
    k, k + 1, k * {NUMBERS}, (k + 1) * {NUMBERS});
INSERT INTO event_partitions VALUES (k * {NUMBERS}, (k + 1) * {NUMBERS}, 0, NULL, false);
END LOOP; END $$;
CREATE FUNCTION at(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
SELECT n + (n - 1) * {partitions} / {rows} * {NUMBERS} $$;
"""


def last_number(rows: int, partitions: int) -> int:
    """Return the number of the last event."""
    return rows + (partitions - 1) * NUMBERS


def table_index(name: str | None) -> str | None:
    """Return the name of an index on the whole table, given its name on a partition."""
    return name and re.sub(r"^(events|attempts)(_\d+_\d+)", r"\1", name)
