"""How much went to an account or an endpoint, as a row of a list shows it."""

from collections.abc import Sequence
from typing import NamedTuple

from uplift_server.core.operations.statistics import Series, Statistics
from uplift_server.dashboard.charts import Column
from uplift_server.dashboard.figures import status_columns, status_words, success_share


class Volume(NamedTuple):
    """The numbers of a stretch of time."""

    totals: Statistics
    error_share: float | None
    """Of the attempts; None where there was none."""
    columns: Sequence[Column]
    words: str


def volume(series: Series) -> Volume:
    """What a row shows of a series."""
    succeeded = success_share(series.totals)
    errors = None if succeeded is None else 1 - succeeded
    return Volume(series.totals, errors, status_columns(series), status_words(series.totals))
