"""The causes of endpoint failures.

Lists of endpoints use the code of each cause to group and filter failing endpoints.
"""

from typing import Final, NamedTuple

from uplift_server.core.deliveries.causes import cause_of
from uplift_server.delivery.endpoint_cache import LiveEndpoint


class FailureCause(NamedTuple):
    """The reason why an endpoint is failing. `code` does not change between releases."""

    code: str
    title: str
    how_to_fix: str


UNKNOWN_CAUSE: Final = FailureCause("unknown", "Cause unknown until the next attempt", "Wait for the next attempt.")
"""The cause of failures if an earlier release stored the endpoint's health without a cause."""


def failure_cause(live: LiveEndpoint) -> FailureCause | None:
    """Return the cause of an endpoint's failures.

    Return None unless the endpoint is failing, or the server disabled it because of failures or a 410 response.
    """
    if not live.is_broken:
        return None
    found = cause_of(live.health)
    return UNKNOWN_CAUSE if found is None else FailureCause(found.code, found.title, found.remedy)
