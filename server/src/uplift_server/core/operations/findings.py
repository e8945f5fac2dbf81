"""What an examination of a server and its surroundings finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `remedy` is empty where all is well."""

    check: str
    result: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""
