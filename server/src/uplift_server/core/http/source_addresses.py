"""The current and upcoming egress IPs that the server publishes."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from uplift_server.core.timestamps import format_timestamp, parse_timestamp

_SEPARATOR: Final = "@"


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """An egress IP.

    `since` is the time when the server begins to use the IP (Unix ms), or None if it already uses the IP.
    """

    address: str
    since: int | None = None

    @classmethod
    def parse(cls, text: str) -> "SourceAddress":
        """Parse `192.0.2.10` or `192.0.2.10@2026-12-01T00:00:00Z`. Raises ValueError."""
        address, separator, since = (part.strip() for part in text.partition(_SEPARATOR))
        if "%" in address:
            raise ValueError("a published address must not have a zone (%)")
        return cls(str(ip_address(address)), parse_timestamp(since) if separator else None)

    @property
    def text(self) -> str:
        """The egress IP, and `since` unless it is None, in the notation that `parse` accepts."""
        return self.address if self.since is None else f"{self.address}{_SEPARATOR}{format_timestamp(self.since)}"

    def is_upcoming(self, now_ms: int) -> bool:
        """Return whether the server will begin to use the egress IP after `now_ms` (Unix ms)."""
        return self.since is not None and self.since > now_ms


def current(published: Iterable[SourceAddress], now_ms: int) -> list[str]:
    """Return the egress IPs from which the server connects to receivers now, in the given order."""
    return list(dict.fromkeys(each.address for each in published if not each.is_upcoming(now_ms)))


def upcoming(published: Iterable[SourceAddress], now_ms: int) -> list[SourceAddress]:
    """Return the egress IPs from which the server will connect to receivers later, earliest first."""
    return sorted((each for each in published if each.is_upcoming(now_ms)), key=lambda each: each.since or 0)
