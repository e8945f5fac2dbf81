"""The delivery settings of an endpoint.

The API models and reference, the options of both command-line programs, the dashboard's form and the audit log are
generated from these definitions. A setting is a whole number in a nullable column with the same name.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Final

from uplift_server.core.limits import ENDPOINT_IN_FLIGHT_MAX, RATE_LIMIT_PER_SECOND_MAX


@dataclass(frozen=True, slots=True)
class EndpointSetting:
    """The definition of one setting."""

    name: str
    """Name of the API field, the column and the form field."""
    label: str
    unit: str
    help: str
    """One sentence for the API reference, the commands and the form."""
    maximum: int
    """The maximum value. The minimum is 1."""
    default: str
    """The default in words."""

    @property
    def bounds(self) -> str:
        """The allowed values, in words."""
        return f"1 to {self.maximum:,}"

    def allows(self, value: int) -> bool:
        """Whether a value is within the bounds."""
        return 1 <= value <= self.maximum


def _setting(**definition: Any) -> Any:
    return field(default=None, metadata=definition)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The settings of one endpoint. None means the default."""

    rate_limit_per_second: int | None = _setting(
        label="Rate limit",
        unit="attempts per second",
        help="Maximum attempts per second.",
        maximum=RATE_LIMIT_PER_SECOND_MAX,
        default="no limit",
    )
    max_in_flight: int | None = _setting(
        label="Max concurrent requests",
        unit="attempts in flight",
        help="Maximum attempts in flight.",
        maximum=ENDPOINT_IN_FLIGHT_MAX,
        default="server default",
    )

    def by_name(self) -> dict[str, Any]:
        """All settings with their values, in the order of the definitions."""
        return {each.name: getattr(self, each.name) for each in ENDPOINT_SETTINGS}


DEFAULTS: Final = EndpointSettings()
ENDPOINT_SETTINGS: Final = tuple(EndpointSetting(name=each.name, **each.metadata) for each in fields(EndpointSettings))
SETTING_NAMES: Final = tuple(each.name for each in ENDPOINT_SETTINGS)
