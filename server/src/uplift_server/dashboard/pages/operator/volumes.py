"""Summarizes the statistics of an account or an endpoint for one row of a table."""

from collections.abc import Sequence
from typing import NamedTuple

from uplift_server.core.operations.statistics import Series, Statistics
from uplift_server.dashboard.charts import Column
from uplift_server.dashboard.figures import status_columns, status_words, success_share


class Volume(NamedTuple):
    """The statistics that a table row shows for an account or an endpoint."""

    totals: Statistics
    error_share: float | None
    """The share of failed attempts, from 0 to 1, or None if there are no attempts."""
    columns: Sequence[Column]
    words: str


def volume(series: Series) -> Volume:
    """Summarize a series of statistics for a table row."""
    succeeded = success_share(series.totals)
    errors = None if succeeded is None else 1 - succeeded
    return Volume(series.totals, errors, status_columns(series), status_words(series.totals))
