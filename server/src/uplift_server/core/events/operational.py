"""Operational events: events that the server itself creates, about endpoints and failed deliveries."""

from typing import Final

from uplift_server.core.named_codes import NamedCode

GROUP: Final = "operational"
"""The group of the operational event types in the catalog."""
FAILED_DELIVERIES_EVERY_MS: Final = 60_000
"""The minimum time in ms between two `delivery.failed` events about the same endpoint."""


class OperationalKind(NamedCode):
    """The kind of an operational event. The database stores it as a number."""

    ENDPOINT_WARNED = 0
    ENDPOINT_DISABLED = 1
    ENDPOINT_RECOVERED = 2
    DELIVERY_FAILED = 3

    @property
    def type_name(self) -> str:
        """The event type, such as `delivery.failed`."""
        return self.text.replace("_", ".")


OPERATIONAL_TYPES: Final = frozenset(kind.type_name for kind in OperationalKind)
"""The names of the operational event types. Only a subscription that names a type or its group matches the type."""
