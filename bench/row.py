"""The class for a benchmark, which is one row in the table of results."""

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
    """Approximate duration with default options, in seconds, for `bench/run --list`."""
