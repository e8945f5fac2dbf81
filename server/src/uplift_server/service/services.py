"""All services of one server, bundled for the edges."""

from collections.abc import Sequence
from dataclasses import dataclass

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.source_addresses import SourceAddress
from uplift_server.service.accounts import Accounts
from uplift_server.service.audit import AuditLog
from uplift_server.service.authentication import Authenticator
from uplift_server.service.changes import Changes
from uplift_server.service.deliveries import Deliveries
from uplift_server.service.endpoint_states import EndpointStates
from uplift_server.service.endpoints import Endpoints
from uplift_server.service.entrance import Entrance
from uplift_server.service.event_types import EventTypes
from uplift_server.service.events import Events
from uplift_server.service.explanations import Explanations
from uplift_server.service.fleet import Fleet
from uplift_server.service.greeting import Greeter
from uplift_server.service.keys import Keys
from uplift_server.service.listening import Listening
from uplift_server.service.means import Means
from uplift_server.service.members import Members
from uplift_server.service.metrics import Metrics, MetricsSettings
from uplift_server.service.notices import Notices
from uplift_server.service.passwords import Passwords
from uplift_server.service.portal_links import PortalLinks
from uplift_server.service.readiness import Readiness
from uplift_server.service.registration import Registrar, Resolve
from uplift_server.service.replays import Replays
from uplift_server.service.retention import Retention
from uplift_server.service.roster import Roster
from uplift_server.service.secrets import Secrets
from uplift_server.service.sessions import Sessions
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.statistics import Statistics
from uplift_server.service.traces import Traces
from uplift_server.service.trials import Trials
from uplift_server.service.troubles import TroubleFinder
from uplift_server.service.unfinished_bodies import UnfinishedBodies
from uplift_server.store.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Services:
    """What the edges may ask for."""

    means: Means
    authenticator: Authenticator
    unfinished_bodies: UnfinishedBodies
    accounts: Accounts
    keys: Keys
    event_types: EventTypes
    endpoints: Endpoints
    endpoint_states: EndpointStates
    trials: Trials
    troubles: TroubleFinder
    secrets: Secrets
    events: Events
    deliveries: Deliveries
    audit_log: AuditLog
    explanations: Explanations
    replays: Replays
    listening: Listening
    fleet: Fleet
    roster: Roster
    traces: Traces
    notices: Notices
    sessions: Sessions
    members: Members
    portal_links: PortalLinks
    changes: Changes
    statistics: Statistics
    metrics: Metrics
    readiness: Readiness
    retention: Retention
    source_ips: Sequence[SourceAddress]
    """The addresses that requests to endpoints come from."""

    @classmethod
    def build(
        cls,
        means: Means,
        *,
        sealer: Sealer,
        policy: AddressPolicy,
        resolve: Resolve,
        source_ips: Sequence[str],
        listen_key: bytes,
        entrance: Entrance,
        metrics: MetricsSettings | None = None,
    ) -> "Services":
        """All of them over the same means."""
        owned = Endpoints(means, sealer, Registrar(policy, resolve), Greeter(means))
        explanations, replays = Explanations(means), Replays(means)
        authenticator, readiness = Authenticator(means.directory), Readiness(means)
        return cls(
            means=means,
            authenticator=authenticator,
            unfinished_bodies=UnfinishedBodies(),
            accounts=Accounts(means),
            keys=Keys(means),
            event_types=EventTypes(means),
            endpoints=owned,
            endpoint_states=EndpointStates(means, owned),
            trials=Trials(means, owned),
            troubles=TroubleFinder(means, owned),
            secrets=Secrets(means, sealer, owned),
            events=Events(means),
            deliveries=Deliveries(means),
            audit_log=AuditLog(means),
            explanations=explanations,
            replays=replays,
            listening=Listening(means, listen_key),
            fleet=Fleet(means, replays),
            roster=Roster(means),
            traces=Traces(means, explanations, replays),
            notices=Notices(means),
            sessions=Sessions(means, entrance, Passwords(), SignInLimits(has_unknown_proxy=entrance.has_unknown_proxy)),
            members=Members(means, entrance),
            portal_links=PortalLinks(means, entrance),
            changes=Changes(means),
            statistics=Statistics(means),
            metrics=Metrics(means, authenticator, readiness, metrics or MetricsSettings()),
            readiness=readiness,
            retention=Retention(means),
            source_ips=[SourceAddress.parse(each) for each in source_ips],
        )
