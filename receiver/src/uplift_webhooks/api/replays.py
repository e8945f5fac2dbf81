"""API calls that create, read and control replays."""

from collections.abc import Iterable
from typing import Final

from uplift_webhooks.api.calls import (
    Call,
    Noun,
    Way,
    every,
    get,
    get_page,
    given,
    post,
    texts,
    verb,
)
from uplift_webhooks.api.nouns import Ended
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page, segment

_REPLAYS: Final = "/v1/replays"


class Replays(Noun[Way]):
    """`/v1/replays`: jobs that resend an endpoint's completed deliveries, oldest event first."""

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None) -> Call[Page]:
        """Return one page of replays, newest first."""
        return get_page(_REPLAYS, limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def get(self, replay: str) -> Call[JsonObject]:
        """Return a replay by its ID, with its progress."""
        return get(_path(replay))

    @verb
    def create(
        self,
        endpoint: str,
        *,
        status: Ended | Iterable[Ended] | None = None,
        types: str | Iterable[str] | None = None,
        created_after: Instant | None = None,
        created_before: Instant | None = None,
        rate_per_second: int | None = None,
        include_missing: bool = False,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Replay an endpoint's deliveries, selected by their `status` (default: failed).

        With `dry_run`, only count the deliveries. With `include_missing`, the replay also sends events that the
        endpoint never received, because the endpoint did not exist or was not subscribed to the event type when the
        event was created. With `include_missing` and an empty `status`, the replay sends only events that the endpoint
        never received.
        """
        body = given(
            endpoint=endpoint,
            status=texts(status),
            types=texts(types),
            created_after=created_after,
            created_before=created_before,
            rate_per_second=rate_per_second,
            include_missing=include_missing or None,
            dry_run=dry_run or None,
        )
        return post(_REPLAYS, body, idempotency_key=idempotency_key)

    @verb
    def pause(self, replay: str) -> Call[JsonObject]:
        """Pause a replay. The server finishes attempts in flight."""
        return post(_path(replay, "pause"))

    @verb
    def resume(self, replay: str) -> Call[JsonObject]:
        """Resume a replay."""
        return post(_path(replay, "resume"))

    @verb
    def cancel(self, replay: str) -> Call[JsonObject]:
        """Cancel a replay. The server finishes attempts in flight. The remaining deliveries do not change."""
        return post(_path(replay, "cancel"))


def _path(replay: str, *more: str) -> str:
    return "/".join([_REPLAYS, segment(replay), *more])
