"""Log messages in tests."""

from collections.abc import Iterable, MutableMapping
from typing import Any

Line = MutableMapping[str, Any]


def without_slow_reads(logs: Iterable[Line]) -> list[Line]:
    """Remove the messages about slow reads, which any test can cause on a busy machine."""
    return [line for line in logs if line["event"] != "slow read"]
