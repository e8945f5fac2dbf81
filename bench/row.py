"""A row of the benchmark table."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.options import Options
from bench.report import Report


@dataclass(frozen=True)
class Row:
    """A benchmark: one or more figures that are measured together."""

    name: str
    title: str
    measure: Callable[["Row", Options], Report]
    usual_secs: float
    """Approximate duration in standard conditions, for the list."""
