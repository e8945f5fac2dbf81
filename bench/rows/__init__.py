"""Every row, in the order of the table."""

from typing import Final

from bench.row import Row
from bench.rows import (
    attack,
    batch,
    emitter_kill,
    end_to_end,
    filters,
    half_load,
    isolation,
    kill,
    kill_fleet,
    latency,
    live_pages,
    memory,
    ordered,
    pages,
    postgres,
    postgres_month,
    replay,
    sender,
    start,
    store,
    waiting,
)

ROWS: Final[tuple[Row, ...]] = (
    end_to_end.ROW,
    postgres.ROW,
    postgres.POOLED_ROW,
    postgres_month.ROW,
    batch.ROW,
    filters.ROW,
    ordered.ROW,
    latency.ROW,
    half_load.ROW,
    sender.ROW,
    store.ROW,
    isolation.ROW,
    attack.ROW,
    waiting.ROW,
    replay.ROW,
    pages.ROW,
    live_pages.ROW,
    memory.ROW,
    kill.ROW,
    kill_fleet.ROW,
    emitter_kill.ROW,
    start.ROW,
)
