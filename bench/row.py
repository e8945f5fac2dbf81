"""A row of the table of figures."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.options import Options
from bench.report import Report


@dataclass(frozen=True)
class Row:
    """One figure, or a few that are measured together, and how."""

    name: str
    title: str
    measure: Callable[["Row", Options], Report]
    usual_secs: float
    """How long it takes in the figure's own conditions, roughly, for the list."""
