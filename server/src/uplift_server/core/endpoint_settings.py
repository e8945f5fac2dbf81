"""The delivery settings of an endpoint.

The API models and reference, the options of both command-line programs, the dashboard's form and the audit log are
generated from these definitions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.limits import (
    ENDPOINT_IN_FLIGHT_MAX,
    ENDPOINT_RETRIES_MAX,
    ENDPOINT_RETRY_DELAY_MS_MAX,
    ENDPOINT_RETRY_DELAY_MS_MIN,
    ENDPOINT_RETRY_DELAYS_TOTAL_MS_MAX,
    ENDPOINT_TIMEOUT_MS_MAX,
    ENDPOINT_TIMEOUT_MS_MIN,
    RATE_LIMIT_PER_SECOND_MAX,
)
from uplift_server.core.problems import Problem
from uplift_server.core.setting_values import Choice, Duration, Durations, ValueType, WholeNumber

_UNIT: Final = "_ms"


@dataclass(frozen=True, slots=True)
class EndpointSetting:
    """The definition of one endpoint setting."""

    attribute: str
    """Name of the `EndpointSettings` attribute and of the database column.

    For a duration, the attribute's name ends with `_ms`, but the setting's `name` does not.
    """
    label: str
    help: str
    """A description of the setting, for the API reference, the commands and the form."""
    type: ValueType
    default: str
    """A description of the default, for people."""
    initial: Any = None
    """The value of the setting for endpoints that do not set it. None means that the server's setting applies."""

    @property
    def name(self) -> str:
        """Name of the setting in the API and in the form."""
        return self.attribute.removesuffix(_UNIT)

    def problems(self, sent: Any) -> list[Problem]:
        """Return the problems with a JSON value that is null or already has the right JSON type."""
        return [] if sent is None else list(self.type.problems(self.name, sent))

    def read(self, sent: Any) -> Any:
        """Convert a valid JSON value to a Python value. Null becomes `initial`."""
        return self.initial if sent is None else self.type.read(sent)

    def json(self, value: Any) -> Any:
        """Convert a Python value to the JSON value."""
        return None if value is None else self.type.json(value)

    def text(self, value: Any) -> str:
        """Return a value as the text of a form field, or an empty string for None."""
        return "" if value is None else self.type.text(value)

    def words(self, value: Any) -> str:
        """Return a value as text for people. If the value is None, return the description of the default."""
        return self.default if value is None else self.type.words(value)

    def stored(self, value: Any) -> Any:
        """Convert a Python value to the content of the database column."""
        return None if value is None else self.type.stored(value)

    def loaded(self, content: Any) -> Any:
        """Convert the content of the database column to a Python value."""
        return self.initial if content is None else self.type.loaded(content)


def _setting(**definition: Any) -> Any:
    return field(default=definition.get("initial"), metadata=definition)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The settings of one endpoint. None means the default."""

    rate_limit_per_second: int | None = _setting(
        label="Rate limit",
        help="Maximum number of attempts per second.",
        type=WholeNumber(RATE_LIMIT_PER_SECOND_MAX, "attempts per second"),
        default="no limit",
    )
    max_in_flight: int | None = _setting(
        label="Max concurrent requests",
        help="Maximum number of attempts in flight.",
        type=WholeNumber(ENDPOINT_IN_FLIGHT_MAX, "attempts in flight"),
        default="server default",
    )
    retry_schedule_ms: tuple[int, ...] | None = _setting(
        label="Retry schedule",
        help="Delays before the retries, such as 5s, 5m and 2h. Without delays, a delivery has one attempt.",
        type=Durations(
            Duration(ENDPOINT_RETRY_DELAY_MS_MIN, ENDPOINT_RETRY_DELAY_MS_MAX),
            ENDPOINT_RETRIES_MAX,
            ENDPOINT_RETRY_DELAYS_TOTAL_MS_MAX,
        ),
        default="server default",
    )
    attempt_timeout_ms: int | None = _setting(
        label="Attempt timeout",
        help="Timeout for an attempt, such as 10s.",
        type=Duration(ENDPOINT_TIMEOUT_MS_MIN, ENDPOINT_TIMEOUT_MS_MAX),
        default="server default",
    )
    ordering: Ordering = _setting(  # noqa: RUF009 - a field, like the others
        label="Ordering",
        help=(
            "Deliveries that the server sends in event order: none, those with the same ordering key"
            " (key), or all (endpoint). An ordered delivery waits until the previous delivery is no longer pending or"
            " held."
        ),
        type=Choice(Ordering),
        default="none",
        initial=Ordering.NONE,
    )

    def columns(self) -> dict[str, Any]:
        """Return the value of each database column. The keys are column names."""
        return {each.attribute: each.stored(getattr(self, each.attribute)) for each in ENDPOINT_SETTINGS}

    def as_json(self) -> dict[str, Any]:
        """Return the JSON value of each setting, in definition order.

        The keys are setting names.
        """
        return {each.name: each.json(getattr(self, each.attribute)) for each in ENDPOINT_SETTINGS}

    def updated(self, sent: Mapping[str, Any]) -> "EndpointSettings":
        """Return the settings after an update. `sent` maps setting names to valid JSON values."""
        named = ((each, sent[each.name]) for each in ENDPOINT_SETTINGS if each.name in sent)
        return replace(self, **{each.attribute: each.read(value) for each, value in named})


ENDPOINT_SETTINGS: Final = tuple(EndpointSetting(each.name, **each.metadata) for each in fields(EndpointSettings))
SETTING_NAMES: Final = tuple(each.name for each in ENDPOINT_SETTINGS)
DEFAULTS: Final = EndpointSettings()


@dataclass(frozen=True, slots=True)
class AttemptTimeouts:
    """The attempt timeouts that the operator configured."""

    default_ms: int
    """The timeout for endpoints without their own timeout, in milliseconds."""
    endpoint_ms_max: int
    """The maximum timeout that endpoints can set, in milliseconds."""

    def of(self, settings: EndpointSettings) -> int:
        """Return the timeout of an endpoint in milliseconds.

        If an endpoint's own timeout exceeds the current maximum, return the maximum. The operator may have lowered the
        maximum after the timeout was stored.
        """
        own_ms = settings.attempt_timeout_ms
        return self.default_ms if own_ms is None else min(own_ms, self.endpoint_ms_max)


def from_columns(contents: Iterable[Any]) -> EndpointSettings:
    """Create the settings from the values of the database columns, in definition order."""
    return EndpointSettings(*(each.loaded(content) for each, content in zip(ENDPOINT_SETTINGS, contents, strict=True)))


def setting_problems(sent: Mapping[str, Any], timeouts: AttemptTimeouts) -> list[Problem]:
    """Return the problems with JSON values. `sent` maps setting names to JSON values.

    The upper bound for timeouts is the operator's maximum, not the upper bound in the setting's definition.
    """
    found = []
    for each in ENDPOINT_SETTINGS:
        setting = each
        if each.attribute == "attempt_timeout_ms":
            setting = replace(each, type=Duration(ENDPOINT_TIMEOUT_MS_MIN, timeouts.endpoint_ms_max))
        found.extend(setting.problems(sent.get(each.name)))
    return found
