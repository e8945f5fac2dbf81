"""All nouns of the API, for the clients."""

from uplift_webhooks.api.administration import (
    Accounts,
    AuditLog,
    EventTypes,
    Invitations,
    Keys,
    Links,
    Members,
    Retention,
)
from uplift_webhooks.api.calls import Call, Noun, Way, get, verb
from uplift_webhooks.api.nouns import Deliveries, Endpoints, Events, ListenSessions, Period, Replays
from uplift_webhooks.api.pages import JsonObject, Request


class Everything(Noun[Way]):
    """The nouns of a client."""

    def __init__(self, request: Request, way: type[Way]) -> None:
        """Same as `Noun`."""
        super().__init__(request, way)
        self.endpoints = Endpoints(request, way)
        self.events = Events(request, way)
        self.deliveries = Deliveries(request, way)
        self.replays = Replays(request, way)
        self.event_types = EventTypes(request, way)
        self.listen_sessions = ListenSessions(request, way)
        self.audit_log = AuditLog(request, way)
        self.accounts = Accounts(request, way)
        self.keys = Keys(request, way)
        self.members = Members(request, way)
        self.invitations = Invitations(request, way)
        self.links = Links(request, way)
        self.retention = Retention(request, way)

    @verb
    def source_ips(self) -> Call[JsonObject]:
        """The egress IPs: `current`, and `upcoming` with `from`, the start of their use.

        Needs no key. `SourceAddresses` checks addresses against them.
        """
        return get("/v1/source-ips")

    @verb
    def stats(self, period: Period | None = None) -> Call[JsonObject]:
        """The statistics of a period (24h), of the account or, for an operator's key without one, of all accounts."""
        return get("/v1/stats", period=period)
