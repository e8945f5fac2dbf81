"""The addresses requests come from, as they are published: those in use, and those that are announced."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from uplift_server.core.timestamps import format_timestamp, parse_timestamp

_SEPARATOR: Final = "@"


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """One address, and from when it is used (Unix ms); None: it already is."""

    address: str
    since: int | None = None

    @classmethod
    def parse(cls, text: str) -> "SourceAddress":
        """From `192.0.2.10` or `192.0.2.10@2026-12-01T00:00:00Z`. Raises ValueError."""
        address, separator, instant = (part.strip() for part in text.partition(_SEPARATOR))
        if "%" in address:
            raise ValueError("An address that is published has no zone.")
        return cls(str(ip_address(address)), parse_timestamp(instant) if separator else None)

    @property
    def text(self) -> str:
        """The form that `parse` reads."""
        return self.address if self.since is None else f"{self.address}{_SEPARATOR}{format_timestamp(self.since)}"

    def is_upcoming(self, now_ms: int) -> bool:
        """Whether it is only announced."""
        return self.since is not None and self.since > now_ms


def current(published: Iterable[SourceAddress], now_ms: int) -> list[str]:
    """The addresses in use at an instant, in their order."""
    return list(dict.fromkeys(each.address for each in published if not each.is_upcoming(now_ms)))


def upcoming(published: Iterable[SourceAddress], now_ms: int) -> list[SourceAddress]:
    """Those that are announced, the next one first."""
    return sorted((each for each in published if each.is_upcoming(now_ms)), key=lambda each: each.since or 0)
