"""The base class of `Client` and `AsyncClient`, which provides all API resources as attributes."""

from typing import Literal

from uplift_webhooks.api.administration import (
    Accounts,
    AuditLog,
    Erasures,
    EventTypes,
    Invitations,
    Keys,
    Links,
    Members,
    Retention,
    ServiceKeys,
)
from uplift_webhooks.api.attempts import Attempts
from uplift_webhooks.api.calls import Call, Noun, Way, get, verb
from uplift_webhooks.api.deliveries import Deliveries
from uplift_webhooks.api.listen_sessions import ListenSessions
from uplift_webhooks.api.nouns import Endpoints, Events, Period
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Request
from uplift_webhooks.api.rejected_events import RejectedEvents
from uplift_webhooks.api.replays import Replays


class Everything(Noun[Way]):
    """All API resources of a client, as attributes such as `endpoints`."""

    def __init__(self, request: Request, way: type[Way]) -> None:
        """`request` makes the HTTP requests. `way` is Blocking or Awaited."""
        super().__init__(request, way)
        self.endpoints = Endpoints(request, way)
        self.events = Events(request, way)
        self.rejected_events = RejectedEvents(request, way)
        self.deliveries = Deliveries(request, way)
        self.attempts = Attempts(request, way)
        self.replays = Replays(request, way)
        self.event_types = EventTypes(request, way)
        self.listen_sessions = ListenSessions(request, way)
        self.audit_log = AuditLog(request, way)
        self.accounts = Accounts(request, way)
        self.keys = Keys(request, way)
        self.service_keys = ServiceKeys(request, way)
        self.members = Members(request, way)
        self.invitations = Invitations(request, way)
        self.erasures = Erasures(request, way)
        self.links = Links(request, way)
        self.retention = Retention(request, way)

    @verb
    def account(self) -> Call[JsonObject]:
        """Return the API key's account. For an operator key or a service key, pass `account` to the client."""
        return get("/v1/account")

    @verb
    def fleet(self) -> Call[JsonObject]:
        """Return the problems with the server, and one group of failing endpoints for each cause of failure.

        Only operators can call this method.
        """
        return get("/v1/fleet")

    @verb
    def source_ips(self) -> Call[JsonObject]:
        """Return the egress IPs: `current` and `upcoming`.

        `from` is the time when the server starts to use an upcoming IP.

        This call does not require a key. To check the source address of a request, use `SourceAddresses`.
        """
        return get("/v1/source-ips")

    @verb
    def stats(
        self,
        period: Period | None = None,
        *,
        since: Instant | None = None,
        until: Instant | None = None,
        by: Literal["hour", "day", "type", "endpoint"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        order: Order | None = None,
    ) -> Call[JsonObject]:
        """Return the account's statistics for a `period` (default 24h) or a time range.

        With an operator key and no account, the statistics cover all accounts. `by="type"` and `by="endpoint"` return a
        page of `groups`.
        """
        return get("/v1/stats", period=period, since=since, until=until, by=by, limit=limit, cursor=cursor, order=order)
