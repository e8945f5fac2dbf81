"""Findings of the `doctor` command."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one `doctor` check. `remedy` is empty if the check passed."""

    check: str
    result: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""
