"""Request body models for replays."""

from pydantic import Field

from uplift_server.api.bodies import ALL_TYPES, Body, Timestamp
from uplift_server.core.limits import REPLAY_RATE_PER_SECOND_DEFAULT, REPLAY_RATE_PER_SECOND_MAX


class ReplayNew(Body):
    """A new replay: the deliveries to resend, and the maximum rate at which the server resends them."""

    endpoint: str = Field(description="Endpoint ID or uid.")
    status: list[str] | None = Field(
        default=None,
        description="Statuses of the deliveries to resend: `failed`, `cancelled`, `delivered`. Default: `failed`. With"
        " `include_missing`, the list can be empty.",
        examples=[["failed", "cancelled"]],
    )
    types: list[str] | None = Field(
        default=None,
        description=f"{ALL_TYPES}.",
        examples=[["movement.*"]],
    )
    created_after: Timestamp | None = Field(default=None, description="Only events accepted after this time.")
    created_before: Timestamp | None = Field(default=None, description="Only events accepted before this time.")
    rate_per_second: int | None = Field(
        default=None,
        ge=1,
        le=REPLAY_RATE_PER_SECOND_MAX,
        description=f"Maximum number of deliveries per second. Default: {REPLAY_RATE_PER_SECOND_DEFAULT}.",
    )
    include_missing: bool = Field(
        default=False,
        description="Also send events that match the endpoint's subscription but have no delivery, because the endpoint"
        " did not exist or was not subscribed yet. Default: `false`.",
    )
    dry_run: bool = Field(default=False, description="Only count the deliveries.")
